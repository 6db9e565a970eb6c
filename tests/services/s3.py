"""A small S3 client for tests: whatever an administrator, another tool or an attacker may do to a
bucket. It signs by itself (AWS Signature Version 4), so it also checks the signing of src/store."""
import datetime
import hashlib
import hmac
import http.client
import ssl
import urllib.parse
import xml.etree.ElementTree as ElementTree


class S3Error(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body[:300]!r}")
        self.status = status


def _plain(tree):
    """Without namespaces."""
    for node in tree.iter():
        node.tag = node.tag.split("}", 1)[-1]
    return tree


class S3:
    def __init__(self, endpoint, key, secret, ca=None, region="us-east-1"):
        self._url = urllib.parse.urlsplit(endpoint)
        self._key, self._secret, self._region = key, secret, region
        self._context = ssl.create_default_context(cafile=ca) if ca else None

    def call(self, method, bucket, key="", query=None, body=b"", headers=None):
        """(headers, body); S3Error for other than 2xx."""
        path = "/" + urllib.parse.quote(f"{bucket}/{key}" if key else bucket, safe="/-._~")
        encoded = "&".join(f"{urllib.parse.quote(str(k), safe='-._~')}={urllib.parse.quote(str(v), safe='-._~')}"
                           for k, v in sorted((query or {}).items()))
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        sent = {**(headers or {}), "host": self._url.netloc, "x-amz-date": now, "x-amz-content-sha256": digest}
        names = ";".join(sorted(sent))
        lines = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
        canonical = f"{method}\n{path}\n{encoded}\n{lines}\n{names}\n{digest}"
        scope = f"{now[:8]}/{self._region}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        step = ("AWS4" + self._secret).encode()
        for part in (now[:8], self._region, "s3", "aws4_request"):
            step = hmac.new(step, part.encode(), "sha256").digest()
        signature = hmac.new(step, to_sign.encode(), "sha256").hexdigest()
        sent["authorization"] = (f"AWS4-HMAC-SHA256 Credential={self._key}/{scope},SignedHeaders={names},"
                                 f"Signature={signature}")
        if self._context:
            connection = http.client.HTTPSConnection(self._url.netloc, timeout=60, context=self._context)
        else:
            connection = http.client.HTTPConnection(self._url.netloc, timeout=60)
        try:
            connection.request(method, path + ("?" + encoded if encoded else ""), body or None, sent)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if not 200 <= response.status < 300:
            raise S3Error(response.status, content)
        return {name.lower(): value for name, value in response.getheaders()}, content

    def make_bucket(self, bucket, object_lock=False):
        self.call("PUT", bucket, headers={"x-amz-bucket-object-lock-enabled": "true"} if object_lock else None)

    def put(self, bucket, key, body):
        return self.call("PUT", bucket, key, body=body)[0]

    def get(self, bucket, key):
        return self.call("GET", bucket, key)[1]

    def delete(self, bucket, key, version=None):
        self.call("DELETE", bucket, key, {"versionId": version} if version else None)

    def keys(self, bucket, prefix=""):
        found, token = [], None
        while True:
            query = {"list-type": 2, "prefix": prefix, **({"continuation-token": token} if token else {})}
            page = _plain(ElementTree.fromstring(self.call("GET", bucket, query=query)[1]))
            found += [entry.findtext("Key") for entry in page.findall("Contents")]
            token = page.findtext("NextContinuationToken")
            if page.findtext("IsTruncated") != "true":
                return found

    def versions(self, bucket, prefix=""):
        """(key, version, is a delete marker), as the server lists them."""
        found, after = [], {}
        while True:
            page = _plain(ElementTree.fromstring(
                self.call("GET", bucket, query={"versions": "", "prefix": prefix, **after})[1]))
            found += [(node.findtext("Key"), node.findtext("VersionId"), node.tag == "DeleteMarker")
                      for node in page if node.tag in ("Version", "DeleteMarker")]
            if page.findtext("IsTruncated") != "true":
                return found
            after = {"key-marker": page.findtext("NextKeyMarker"),
                     "version-id-marker": page.findtext("NextVersionIdMarker") or ""}

    def allow_reading(self, bucket, user):
        """Whoever `user` is may list and get, and nothing else."""
        arn = f"arn:aws:s3:::{bucket}"
        policy = ('{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":'
                  f'["arn:aws:iam:::user/{user}"]}},"Action":["s3:ListBucket","s3:GetObject"],'
                  f'"Resource":["{arn}","{arn}/*"]}}]}}')
        self.call("PUT", bucket, query={"policy": ""}, body=policy.encode())

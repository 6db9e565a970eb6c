#!/usr/bin/env python3
"""Azurite, the emulator of Azure Blob storage, for tests: over HTTPS, with an account, a key and a
certificate authority made for the occasion.

As a module: `with Azurite(directory) as azurite: …`. As a program: `azurite.py run -- COMMAND…` runs
the command with FARSHORE_TEST_AZURE_ENDPOINT, _ACCOUNT, _KEY, _CONTAINER, _CA and _SAS in its
environment, and ends the service with it; its exit code is the command's.

The npm packages are those of package-lock.json beside this file, installed once into the cache
(FARSHORE_CACHE, ~/.cache/farshore). Needs node and npm."""
import argparse
import base64
import datetime
import email.utils
import fcntl
import hashlib
import hmac
import http.client
import os
import pathlib
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
VERSION = "2023-11-03"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def installed_program():
    """Azurite's script, installed when it is not yet."""
    cache = pathlib.Path(os.environ.get("FARSHORE_CACHE") or pathlib.Path.home() / ".cache/farshore")
    cache.mkdir(parents=True, exist_ok=True)
    files = ["package.json", "package-lock.json", ".npmrc"]
    digest = hashlib.sha256(b"\0".join((HERE / name).read_bytes() for name in files)).hexdigest()
    place = cache / f"services-{digest[:12]}"
    program = place / "node_modules/azurite/dist/src/blob/main.js"
    with open(cache / "services.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            fresh = pathlib.Path(tempfile.mkdtemp(prefix="services-", dir=cache))
            try:
                for name in files:
                    shutil.copy(HERE / name, fresh / name)
                done = subprocess.run(["npm", "ci"], cwd=fresh, stdin=subprocess.DEVNULL,
                                      capture_output=True, text=True, timeout=600, check=False)
                if done.returncode != 0:
                    raise RuntimeError(f"npm ci: {done.stderr[-2000:]}")
                shutil.rmtree(place, ignore_errors=True)
                fresh.rename(place)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return program


def make_authority(directory):
    """An authority and a certificate of it for this machine: (ca, certificate, key)."""
    directory.mkdir(parents=True, exist_ok=True)

    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], cwd=directory, check=True,
                       capture_output=True, stdin=subprocess.DEVNULL)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "30", "-subj",
            "/CN=Test authority")
    openssl("req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (directory / "server.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "30", "-extfile", "server.ext", "-out", "server.crt")
    return directory / "ca.crt", directory / "server.crt", directory / "server.key"


class Azurite:
    """One service. Its methods are a small client of their own, which shares nothing with ours."""

    def __init__(self, directory, tls=True, port=None, account="farshoretest"):
        self.directory = pathlib.Path(directory)
        self.account = account
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.port = port or free_port()
        self.tls = tls
        self.ca = self.certificate = self.certificate_key = None
        if tls:
            self.ca, self.certificate, self.certificate_key = make_authority(self.directory / "tls")
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/{account}"
        self.process = None

    def start(self, timeout_s=60):
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        command = ["node", str(installed_program()), "--blobHost", "127.0.0.1", "--blobPort",
                   str(self.port), "--location", str(data), "--silent", "--disableTelemetry",
                   "--skipApiVersionCheck"]
        if self.tls:
            command += ["--cert", str(self.certificate), "--key", str(self.certificate_key)]
        with open(self.directory / "azurite.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                env={**os.environ, "AZURITE_ACCOUNTS": f"{self.account}:{self.key}"})
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    text = (self.directory / "azurite.log").read_text(errors="replace")
                    self.stop()
                    raise RuntimeError(f"Azurite does not start:\n{text[-2000:]}") from None
                time.sleep(0.05)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # --- a client ----------------------------------------------------------------------------

    def request(self, method, path, query=None, headers=None, body=b""):
        """(status, headers, body) of a request signed with the account key."""
        query = query or {}
        headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": VERSION,
                   **(headers or {})}
        if body or method == "PUT":
            headers["Content-Length"] = str(len(body))
        url = f"/{self.account}/{urllib.parse.quote(path)}"
        names = {name.lower(): value for name, value in headers.items()}
        text = "\n".join([method, "", "", str(len(body)) if body else "",
                          names.get("content-md5", ""), names.get("content-type", ""), "", "",
                          names.get("if-match", ""), names.get("if-none-match", ""), "",
                          names.get("range", ""), ""])
        text += "".join(f"{name}:{names[name]}\n" for name in sorted(names) if name.startswith("x-ms-"))
        text += f"/{self.account}{url}"
        text += "".join(f"\n{name}:{query[name]}" for name in sorted(query))
        headers["Authorization"] = f"SharedKey {self.account}:{self._sign(text)}"
        if query:
            url += "?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        context = ssl.create_default_context(cafile=str(self.ca)) if self.tls else None
        connection = (http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=60)
                      if self.tls else http.client.HTTPConnection("127.0.0.1", self.port, timeout=60))
        try:
            connection.request(method, url, body=body or None, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _sign(self, text):
        return base64.b64encode(hmac.new(base64.b64decode(self.key), text.encode(),
                                         hashlib.sha256).digest()).decode()

    def expect(self, wanted, method, path, **options):
        status, headers, body = self.request(method, path, **options)
        if status != wanted:
            raise RuntimeError(f"{method} {path}: {status} {body[:500]!r}")
        return headers, body

    def make_container(self, name):
        self.expect(201, "PUT", name, query={"restype": "container"})
        return name

    def remove_container(self, name):
        self.expect(202, "DELETE", name, query={"restype": "container"})

    def blob_names(self, container):
        """All of them, in the service's order."""
        names, marker = [], ""
        while True:
            query = {"restype": "container", "comp": "list", **({"marker": marker} if marker else {})}
            _, body = self.expect(200, "GET", container, query=query)
            text = body.decode()
            names += [part.split("</Name>")[0] for part in text.split("<Name>")[1:]]
            marker = text.split("<NextMarker>")[1].split("</NextMarker>")[0] \
                if "<NextMarker>" in text else ""
            if not marker:
                return names

    def sas(self, container, permissions="racwdl", ends_in_s=3600):
        """A shared access signature for a container (service SAS, version 2020-12-06)."""
        now = datetime.datetime.now(datetime.timezone.utc)
        end = (now + datetime.timedelta(seconds=ends_in_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
        version = "2020-12-06"
        fields = [permissions, "", end, f"/blob/{self.account}/{container}", "", "", "https,http",
                  version, "c", "", "", "", "", "", "", ""]
        return urllib.parse.urlencode({
            "sv": version, "sr": "c", "sp": permissions, "se": end, "spr": "https,http",
            "sig": self._sign("\n".join(fields))})

    def settings(self, **other):
        """Store settings (docs/operations/store.md) for this account, with its key."""
        fields = {"endpoint": self.endpoint, "account_key": self.key}
        if self.ca:
            fields["ca_file"] = str(self.ca)
        fields.update(other)
        return {name: value for name, value in fields.items() if value is not None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verb", choices=["run"])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("a command to run is missing")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="farshore-azurite-"))
    try:
        with Azurite(directory) as azurite:
            container = azurite.make_container("contract")
            environment = {**os.environ, "FARSHORE_TEST_AZURE_ENDPOINT": azurite.endpoint,
                           "FARSHORE_TEST_AZURE_ACCOUNT": azurite.account,
                           "FARSHORE_TEST_AZURE_KEY": azurite.key,
                           "FARSHORE_TEST_AZURE_CONTAINER": container,
                           "FARSHORE_TEST_AZURE_CA": str(azurite.ca),
                           "FARSHORE_TEST_AZURE_SAS": azurite.sas(container)}
            return subprocess.run(command, env=environment, check=False).returncode
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

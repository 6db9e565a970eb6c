#!/usr/bin/env python3
"""End to end with the object store on S3: a real radosgw (tests/services/radosgw.py)."""
import json
import subprocess
import sys

import support
from farshore import Farshore, free_port
from support import BINARY, ROOT, EndToEnd, Model, seeded

sys.path[:0] = [str(ROOT / "tests/services")]
from radosgw import Radosgw  # noqa: E402
from s3 import S3, S3Error  # noqa: E402

MIB = 1 << 20


class StoreOnS3(EndToEnd):
    @classmethod
    def setUpClass(cls):
        cls.service = Radosgw()
        cls.addClassCleanup(cls.service.stop)
        cls.service.start()
        cls.s3 = S3(cls.service.endpoint, cls.service.key, cls.service.secret, str(cls.service.ca))
        cls.buckets = 0

    def new_bucket(self, object_lock=False):
        type(self).buckets += 1
        name = f"bucket-{self.buckets}"
        self.s3.make_bucket(name, object_lock)
        return name

    def settings(self, mode=0o600, name="store.json", **fields):
        path = self.work / name
        path.write_text(json.dumps({
            "endpoint": self.service.endpoint, "ca_file": str(self.service.ca),
            "access_key_id": self.service.key, "secret_access_key": self.service.secret, **fields}))
        path.chmod(mode)
        return path

    def start_on(self, location, settings):
        self.farshore.start_up("--store", location, "--store-settings", settings)

    def start_fails(self, location, settings, data="refused"):
        """What `farshore up` says, and its exit code."""
        done = subprocess.run(
            [str(BINARY), "up", "--data", str(self.work / data), "--listen", f"127.0.0.1:{free_port()}",
             "--replication-listen", f"127.0.0.1:{free_port()}", "--store", location, "--store-settings",
             str(settings)], capture_output=True, text=True, check=False, timeout=120,
            env=self.farshore.environment)
        self.assertNotEqual(0, done.returncode)
        last = done.stderr.strip().splitlines()[-1]
        self.assertTrue(last.startswith("farshore: "), done.stderr)
        self.assertNotIn(self.service.secret, done.stdout + done.stderr)
        return last, done.returncode

    def protect(self, model):
        paths = model.make_files(self.work)
        arguments = [word for path in paths for word in ("--disk", path)]
        self.farshore.call("protect", "web", *arguments, "--point-interval", 2)
        self.wait_state("web", "protected")
        return self.open_disks("web")

    def write_some(self, model, clients, rng, steps=30):
        for _ in range(steps):
            model.random_step(clients, rng)

    def bookmark(self, model, label):
        self.farshore.call("point", "web", "--bookmark", label)
        return label, model.copy()

    def second_vault(self, location, settings):
        """A recovery site that has nothing but the key file and the store."""
        self.farshore.end()
        other = Farshore(BINARY, self.work / "data2", self.work / "logs2", {"FARSHORE_ACCEL": "tcg"})
        self.addCleanup(other.end)
        (self.work / "data2/vault").mkdir(parents=True)
        key = self.work / "data2/vault/key"
        key.write_bytes((self.work / "data/vault/key").read_bytes())
        key.chmod(0o600)
        self.farshore = other
        other.start_server("vault", "vault", "serve", "--data", other.data, "--listen",
                           f"127.0.0.1:{free_port()}", "--store", location, "--store-settings", settings)
        other.wait_until_serving()

    def test_points_are_right_and_outlive_the_vault(self):
        """Breaks when anything that is stored on S3 comes back wrong, or needs more than the store."""
        rng = seeded()
        bucket, model = self.new_bucket(), Model([3 * MIB + 512, MIB], rng)
        location, settings = f"s3://{bucket}/site/one", self.settings()
        self.start_on(location, settings)
        clients = self.protect(model)
        points = []
        for number in range(3):
            self.write_some(model, clients, rng)
            points.append(self.bookmark(model, f"round-{number}"))
        for label, disks in points:
            self.assert_point("web", label, disks)
        keys = self.s3.keys(bucket)
        self.assertTrue(all(key.startswith("site/one/") for key in keys), keys)
        self.assertIn("site/one/farshore-store", keys)
        self.second_vault(location, settings)
        for label, disks in points:
            self.assert_point("web", label, disks)

    def test_a_copy_on_s3_outlives_everything_else(self):
        """Breaks when a copy in a bucket misses what was written while the service was away, cannot be read
        beside the vault, or needs more than itself."""
        rng = seeded()
        bucket, model = self.new_bucket(), Model([2 * MIB + 512, MIB], rng)
        location, settings = f"s3://{bucket}/copies", self.settings(timeout_s=5)
        self.farshore.start_up()
        clients = self.protect(model)
        self.write_some(model, clients, rng)
        points = [self.bookmark(model, "before")]
        self.farshore.call("store", "add", "far", location, "--store-settings", settings)
        self.farshore.call("copy", "add", "web", "--store", "far", "--window", "1d")
        self.write_some(model, clients, rng)
        self.service.stop_gateway()
        try:
            self.write_some(model, clients, rng)
            points.append(self.bookmark(model, "away"))    # the item's own points do not wait
            self.farshore.kill_servers("up")
            self.farshore.restart_server("up")
            self.farshore.wait_until_serving()
            self.farshore.wait_for(
                "the store is said to be away",
                lambda: any(event["code"] == "store-away" for event in self.farshore.call("events")["events"]), 120)
        finally:
            self.service.start_gateway()
        clients = self.open_disks("web")
        self.write_some(model, clients, rng)
        points.append(self.bookmark(model, "behind"))
        wanted = self.farshore.call("point", "web", "--point", "behind")["sequence"]

        def there():
            copy = self.farshore.call("copy", "list", "web")["copies"][0]
            return copy["state"] == "following" and copy.get("newest", {}).get("sequence", 0) >= wanted
        self.farshore.wait_for("the copy has caught up", there, 180)
        image = self.work / "image.raw"
        job = self.farshore.call("materialise", "web", "--point", "away", "--copy", "far", "--to", f"raw:{image}")
        self.assertEqual("succeeded", job["state"], job)
        self.assertEqual("equal", support.first_difference(image.read_bytes(), points[1][1][0]))
        self.second_vault(location, settings)
        for label, disks in points:
            self.assert_point("web", label, disks)

    def test_an_outage_of_the_store_costs_no_write(self):
        """Breaks when records that were received while the store was away are lost or reordered, or
        when the guest waits for it."""
        rng = seeded()
        bucket, model = self.new_bucket(), Model([2 * MIB], rng)
        self.start_on(f"s3://{bucket}", self.settings(timeout_s=5))
        clients = self.protect(model)
        self.write_some(model, clients, rng)
        first = self.bookmark(model, "before")
        for interrupt, go_on in ((self.service.pause_gateway, self.service.resume_gateway),
                                 (self.service.stop_gateway, self.service.start_gateway)):
            interrupt()
            try:
                self.write_some(model, clients, rng, 60)
            finally:
                go_on()
        last = self.bookmark(model, "behind")
        for label, disks in (first, last):
            self.assert_point("web", label, disks)

    def test_wrong_settings_are_named(self):
        """Breaks when somebody has to guess what is wrong with the store's settings."""
        bucket = self.new_bucket()
        location = f"s3://{bucket}"
        for fields, wanted in (
                ({"secret_access_key": "not-it"}, "SignatureDoesNotMatch"),
                ({"access_key_id": "nobody"}, "InvalidAccessKeyId"),
                ({"ca_file": "/etc/ssl/certs/ca-certificates.crt"}, "unauthenticated"),
                ({"endpoint": "https://127.0.0.1:9"}, "unavailable"),
                ({"region": 5}, "'region'"),
                ({"acess_key_id": "x"}, "acess_key_id")):
            with self.subTest(**fields):
                words, _ = self.start_fails(location, self.settings(**fields))
                self.assertIn(wanted, words)
        words, code = self.start_fails("s3://no-such-bucket", self.settings())
        self.assertIn("there is no bucket s3://no-such-bucket", words)
        self.assertEqual(65, code)
        words, code = self.start_fails(location, self.settings(mode=0o644))
        self.assertIn("chmod 600", words)
        self.assertEqual(77, code)
        words, _ = self.start_fails(location, self.settings(object_lock_days=1))
        self.assertIn("no object lock", words)
        self.assertEqual([], self.s3.keys(bucket), "a start that is refused leaves nothing")
        # A user who may read, and nothing else.
        self.service.add_user("reader", "reader-key", "reader-secret")
        self.s3.allow_reading(bucket, "reader")
        words, code = self.start_fails(
            location, self.settings(access_key_id="reader-key", secret_access_key="reader-secret"))
        self.assertIn("AccessDenied", words)
        self.assertIn("allow the user", words)
        self.assertEqual(77, code)

    def test_an_attacker_with_our_keys_destroys_nothing_inside_the_lock(self):
        """Breaks when overwriting, deleting, or deleting versions of every object, with the vault's own
        keys, takes a point away or changes it."""
        rng = seeded()
        bucket, model = self.new_bucket(object_lock=True), Model([2 * MIB, MIB], rng)
        location, settings = f"s3://{bucket}/vault", self.settings(object_lock_days=1)
        self.start_on(location, settings)
        clients = self.protect(model)
        points = []
        for number in range(2):
            self.write_some(model, clients, rng)
            points.append(self.bookmark(model, f"round-{number}"))
        self.farshore.end()
        before = self.s3.versions(bucket)
        self.assertGreater(len(before), 5)
        refused = self.attack(bucket, before)
        self.assertEqual(len(before), refused, "every version's deletion must be refused")
        self.assertEqual([], [key for key in self.s3.keys(bucket) if key.startswith("vault/items")],
                         "to a plain listing everything is gone")
        self.second_vault(location, settings)
        for label, disks in points:
            self.assert_point("web", label, disks)

    def attack(self, bucket, versions):
        """All ways to destroy that S3 has; how many deletions of versions were refused."""
        lifecycle = (b"<LifecycleConfiguration><Rule><ID>x</ID><Prefix></Prefix><Status>Enabled</Status>"
                     b"<Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>")
        shorter = (b"<Retention><Mode>GOVERNANCE</Mode>"
                   b"<RetainUntilDate>2027-01-01T00:00:00Z</RetainUntilDate></Retention>")
        bypass = {"x-amz-bypass-governance-retention": "true"}
        refused = 0
        for key, version, _ in versions:
            self.s3.put(bucket, key, b"overwritten by somebody with the vault's keys")
            self.s3.delete(bucket, key)
            for method, query, body in (("PUT", {"retention": ""}, shorter), ("DELETE", {}, b"")):
                try:
                    self.s3.call(method, bucket, key, {**query, "versionId": version}, body, bypass)
                except S3Error:
                    refused += method == "DELETE"
        for query, body in (({"lifecycle": ""}, lifecycle),
                            ({"versioning": ""},
                             b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>")):
            try:
                self.s3.call("PUT", bucket, query=query, body=body)
            except S3Error:
                pass
        with self.assertRaises(S3Error):
            self.s3.call("DELETE", bucket)
        return refused


if __name__ == "__main__":
    support.main()

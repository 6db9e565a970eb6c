#!/usr/bin/env python3
"""End to end: disks out of a store in S3 (Ceph's radosgw), by the reader that shares nothing with the
writer. The objects are those of a directory, put there by curl."""
import json
import os
import subprocess
import sys
import unittest

import support
from support import BINARY, ROOT, EndToEnd, Model, first_difference, seeded

sys.path[:0] = [os.environ.get("FARSHORE_SERVICES") or str(ROOT / "tests/services")]

try:
    from radosgw import Radosgw, missing_programs
except ImportError:
    Radosgw = None

MIB = 1 << 20


@unittest.skipIf(Radosgw is None or missing_programs(), "no radosgw here")
class OutOfS3(EndToEnd):
    def put(self, s3, url, path):
        """By curl, which signs by itself; without a body the bucket is made."""
        subprocess.run(["curl", "--silent", "--show-error", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3",
                        "--user", f"{s3.key}:{s3.secret}", "--cacert", s3.ca, "-H",
                        "x-amz-content-sha256: UNSIGNED-PAYLOAD", "-X", "PUT",
                        *(["--data-binary", f"@{path}"] if path else []), s3.endpoint + url],
                       check=True, capture_output=True)

    def test_extract_reads_a_bucket(self):
        """Breaks when the independent reader cannot read a store in S3, reads something else, leaves out what a
        list has on its later pages, or shows a key."""
        rng = seeded()
        self.farshore.start_up()
        model = Model([3 * MIB + 512], rng)
        self.farshore.call("protect", "web", "--disk", model.make_files(self.work)[0])
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        expected = {}
        for label in ("one", "two"):
            for _ in range(30):
                model.random_step(clients, rng)
            self.farshore.call("point", "web", "--bookmark", label)
            expected[label] = model.copy()[0]
        self.farshore.kill_servers("up")
        store = self.farshore.data / "store"
        out = self.work / "out.img"
        with Radosgw(self.work / "s3") as s3:
            self.put(s3, "/bucket", None)
            for path in store.rglob("*"):
                if path.is_file():
                    self.put(s3, f"/bucket/some/where/{path.relative_to(store)}", path)

            def extract(point="two", where="s3://bucket/some/where", **other):
                settings = self.work / "s3.json"
                settings.write_text(json.dumps({"endpoint": s3.endpoint, "ca_file": str(s3.ca),
                                                "access_key_id": s3.key, "secret_access_key": s3.secret, **other}))
                settings.chmod(0o600)
                done = subprocess.run([str(BINARY), "extract", "--store", where, "--store-settings", str(settings),
                                       "--key", str(self.farshore.data / "vault/key"), "--item", "web", "--point",
                                       point, "--disk", "0", "--out", str(out), "--force", "--json"],
                                      capture_output=True, text=True, check=False, timeout=300)
                self.assertNotIn(s3.secret, done.stdout + done.stderr)
                return json.loads(done.stderr)["code"] if done.returncode else "ok"

            for label, content in expected.items():
                self.assertEqual("ok", extract(label))
                self.assertEqual("equal", first_difference(out.read_bytes(), content))
            self.assertEqual("foreign-store", extract(where="s3://bucket/elsewhere"))
            self.assertEqual("forbidden", extract(secret_access_key="wrong"))
            self.assertEqual("invalid-argument", extract(secret_access_key=None))


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""End to end, out of and into Azure Blob storage (Azurite, over HTTPS): images as page blobs, and disks
out of a store there without a vault."""
import json
import subprocess
import sys

import support
from farshore import free_port
from support import BINARY, ROOT, EndToEnd, FarshoreError, Model, first_difference, seeded

sys.path[:0] = [str(ROOT / "tests/services")]

from azurite import Azurite  # noqa: E402

MIB = 1 << 20


class OutOfAzure(EndToEnd):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.service_directory = support.tempfile.mkdtemp(prefix="farshore-azurite-")
        cls.addClassCleanup(support.shutil.rmtree, cls.service_directory, ignore_errors=True)
        cls.azurite = Azurite(cls.service_directory)
        cls.addClassCleanup(cls.azurite.stop)
        cls.azurite.start()
        for container in ("store", "images"):
            cls.azurite.make_container(container)

    def settings(self, name, **other):
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(self.azurite.settings(**other)))
        path.chmod(0o600)
        return path

    def protect(self, sizes, *options):
        self.rng = seeded()
        self.farshore.start_up(*options)
        model = Model(sizes, self.rng)
        for disk in model.disks:
            disk[len(disk) // 4:len(disk) // 2] = bytes(len(disk) // 2 - len(disk) // 4)
        self.farshore.call("protect", "web", *(w for p in model.make_files(self.work) for w in ("--disk", p)))
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        for _ in range(30):
            model.random_step(clients, self.rng)
        self.farshore.call("point", "web", "--bookmark", "here")
        return model.copy()

    def url(self, blob):
        return f"azure-page-blob:{self.azurite.endpoint}/images/{blob}"

    def materialise(self, blob, *options):
        return self.farshore.call("materialise", "web", "--point", "here", "--to", self.url(blob), *options)

    def refused(self, code, *arguments):
        with self.assertRaises(FarshoreError) as failed:
            self.materialise(*arguments)
        self.assertEqual(code, failed.exception.code, failed.exception)

    def assert_blob(self, blob, expected):
        """The blob is the disk, zeroes up to a whole MiB, and the footer of a fixed VHD."""
        _, data = self.azurite.expect(200, "GET", f"images/{blob}")
        whole = -(-len(expected) // MIB) * MIB
        self.assertEqual(whole + 512, len(data))
        self.assertEqual("equal", first_difference(data[:len(expected)], expected))
        self.assertEqual(bytes(whole - len(expected)), data[len(expected):whole])
        footer = data[whole:]
        self.assertEqual((b"conectix", whole.to_bytes(8, "big"), 2),
                         (footer[:8], footer[48:56], int.from_bytes(footer[60:64], "big")))
        image = self.work / "blob.vhd"
        image.write_bytes(data)
        raw = self.work / "expected.img"
        raw.write_bytes(expected)
        subprocess.run(["qemu-img", "compare", "-f", "vpc", "-F", "raw", image, raw], check=True,
                       capture_output=True)

    def test_a_page_blob_is_a_managed_disk_to_be(self):
        """Breaks when Azure could not make the disk of the point from the blob, when a job that was killed
        does not go on, or when a signature shows anywhere."""
        expected = self.protect([12 * MIB + 512])[0]
        key = self.settings("key")
        job = self.materialise("one.vhd", "--settings", key)
        self.assertEqual("succeeded", job["state"], job)
        self.assertLess(job["result"]["written_bytes"], len(expected) * 0.85)
        self.assert_blob("one.vhd", expected)
        self.refused("already-exists", "one.vhd", "--settings", key)
        self.refused("invalid-argument", "two.vhd?sv=x&sig=secret", "--settings", key)
        self.refused("invalid-argument", "two.vhd")
        sas = self.settings("sas", account_key=None, sas=self.azurite.sas("images"))
        self.assertEqual("succeeded", self.materialise("one.vhd", "--force", "--settings", sas)["state"])
        self.assert_blob("one.vhd", expected)

        for stop_at in (0.01, self.rng.uniform(0.02, 0.9)):
            job = self.materialise("two.vhd", "--settings", key, "--no-wait", "--throttle", 8 * MIB)["id"]
            self.farshore.wait_for("progress", lambda at=stop_at: (
                now := self.farshore.call("job", job))["progress"] >= at or now["state"] == "succeeded", 60)
            self.farshore.kill_servers("up")
            self.farshore.start_up()
            self.farshore.call("job", job, "--wait")
            self.assert_blob("two.vhd", expected)
            self.azurite.expect(202, "DELETE", "images/two.vhd")

        job = self.materialise("three.vhd", "--settings", key, "--no-wait", "--throttle", MIB)["id"]
        self.farshore.call("job", job, "--cancel")
        self.farshore.wait_for("its end", lambda: self.farshore.call("job", job)["state"] == "cancelled", 60)
        self.assertNotIn("three.vhd", self.azurite.blob_names("images"))

    def test_a_disk_comes_out_of_the_store_without_a_vault(self):
        """Breaks when the independent reader cannot read a store in Azure, or reads something else."""
        location = f"azure://{self.azurite.account}/store/some/where"
        key = self.settings("key")
        expected = self.protect([3 * MIB + 512, MIB], "--store", location, "--store-settings", key)
        points = self.farshore.call("points", "web")["window"]
        sequence = self.rng.randint(points["oldest"]["sequence"], points["newest"]["sequence"])
        at_sequence = self.read_point("web", sequence, 0)
        self.farshore.kill_servers("up")
        sas = self.settings("sas", account_key=None, sas=self.azurite.sas("store", "rl"))
        out = self.work / "out.img"

        def extract(settings, *options, disk=0, point="here", where=location, key_file="vault/key"):
            done = subprocess.run([str(BINARY), "extract", "--store", where, "--store-settings", str(settings),
                                   "--key", str(self.farshore.data / key_file), "--item", "web", "--point",
                                   str(point), "--disk", str(disk), "--out", str(out), "--force", "--json",
                                   *options], capture_output=True, text=True, check=False, timeout=300)
            self.assertNotIn(self.azurite.key, done.stdout + done.stderr)
            return json.loads(done.stderr)["code"] if done.returncode else "ok"

        for settings in (key, sas):
            for disk, content in enumerate(expected):
                self.assertEqual("ok", extract(settings, disk=disk))
                self.assertEqual("equal", first_difference(out.read_bytes(), content))
        self.assertEqual("ok", extract(sas, point=sequence))
        self.assertEqual("equal", first_difference(out.read_bytes(), at_sequence))
        self.assertEqual("foreign-store", extract(key, where=f"azure://{self.azurite.account}/store/else"))
        wrong = self.settings("wrong", account_key="AAAA" * 20)
        self.assertEqual("forbidden", extract(wrong))
        key.chmod(0o644)
        self.assertEqual("forbidden", extract(key))
        key.chmod(0o600)

        # And the catalog, with nothing of the old one but the key.
        old = self.farshore.data
        self.farshore.data = self.work / "new"
        done = subprocess.run([str(BINARY), "rebuild-catalog", "--data", str(self.farshore.data), "--store", location,
                               "--store-settings", str(key), "--key", str(old / "vault/key"), "--json"],
                              capture_output=True, text=True, check=True)
        report = json.loads(done.stdout)
        self.assertEqual(["web"], [item["name"] for item in report["items"]])
        self.farshore.start_server("vault", "vault", "serve", "--data", self.farshore.data, "--listen",
                                   f"127.0.0.1:{free_port()}", "--store",
                                   location, "--store-settings", key, "--key", old / "vault/key")
        self.farshore.wait_until_serving()
        self.assert_point("web", "here", expected)


if __name__ == "__main__":
    support.main()

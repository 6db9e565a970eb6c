#!/usr/bin/env python3
"""End to end: an item with a copy in a second store; the vault is killed, the first store is lost."""
import shutil
import subprocess

import support
from farshore import Farshore, free_port
from support import BINARY, EndToEnd, FarshoreError, Model, seeded

MIB = 1 << 20


class Copies(EndToEnd):
    def protect(self, sizes):
        model = Model(sizes, self.rng)
        arguments = [word for path in model.make_files(self.work) for word in ("--disk", path)]
        self.farshore.call("protect", "web", *arguments, "--point-interval", 2)
        self.wait_state("web", "protected")
        return model, self.open_disks("web")

    def bookmark(self, model, label):
        self.known[label] = (self.farshore.call("point", "web", "--bookmark", label)["sequence"], model.copy())

    def copy(self):
        return self.farshore.call("copy", "list", "web")["copies"][0]

    def wait_copied(self, sequence):
        """Until the copy has that sequence of the log."""
        def there():
            copy = self.copy()
            return copy["state"] == "following" and copy.get("newest", {}).get("sequence", 0) >= sequence
        self.farshore.wait_for(f"the copy has sequence {sequence}", there, 120)

    def extract(self, store, point, disk):
        out = self.work / f"extracted-{point}-{disk}.img"
        subprocess.run([str(BINARY), "extract", "--store", str(store), "--key",
                        str(self.farshore.data / "vault/key"), "--item", "web", "--point", str(point), "--disk",
                        str(disk), "--out", str(out), "--force"], check=True, capture_output=True)
        return out.read_bytes()

    def test_a_second_store_is_enough(self):
        """Breaks when a copy misses something or holds something else, when the vault's death in the middle of
        it costs anything, or when a lost first store takes the points with it."""
        self.rng = seeded()
        self.known = {}
        second = self.work / "second"
        self.farshore.start_up()
        model, clients = self.protect([3 * MIB + 512, MIB])
        for mark in range(2):
            for _ in range(20):
                model.random_step(clients, self.rng)
            self.bookmark(model, f"early-{mark}")
        second.mkdir()
        self.farshore.call("store", "add", "second", second)
        self.farshore.call("copy", "add", "web", "--store", "second", "--window", "1d", "--keep", "1h:30d")
        for mark in range(4):
            for _ in range(20):
                model.random_step(clients, self.rng)
            self.bookmark(model, f"mark-{mark}")
            self.farshore.kill_servers("up")
            self.farshore.restart_server("up")
            self.farshore.wait_until_serving()
            clients = self.open_disks("web")
        newest = self.known["mark-3"][0]
        self.wait_copied(newest)
        copy = self.copy()
        self.assertEqual((86400, "1h:30d", 0), (copy["window_s"], copy["keep"], copy["damaged"]))
        listed = self.farshore.call("points", "web", "--copy", "second")
        self.assertTrue({"early-0", "mark-3"} <= {point.get("label") for point in listed["points"]})

        # Read beside the running vault: the image, and the disks without the vault.
        images = self.work / "images"
        images.mkdir()
        sequence, disks = self.known["early-1"]
        job = self.farshore.call("materialise", "web", "--point", "early-1", "--copy", "second", "--to",
                                 f"raw:{images}/disk0.raw")
        self.assertEqual("succeeded", job["state"], job)
        self.assertEqual("equal", support.first_difference((images / "disk0.raw").read_bytes(), disks[0]))
        for label, (sequence, disks) in self.known.items():
            for disk, content in enumerate(disks):
                self.assertEqual("equal", support.first_difference(self.extract(second, sequence, disk), content),
                                 f"{label}, disk {disk}")
        with self.assertRaises(FarshoreError) as failed:
            self.farshore.call("store", "remove", "second")
        self.assertEqual("wrong-state", failed.exception.code)

        # The first store and the database are lost. What is left: the second store, and the key.
        self.farshore.end()
        key = (self.farshore.data / "vault/key").read_bytes()
        shutil.rmtree(self.farshore.data / "store")
        other = Farshore(BINARY, self.work / "data2", self.work / "logs2", {"FARSHORE_ACCEL": "tcg"})
        self.addCleanup(other.end)
        (other.data / "vault").mkdir(parents=True)
        (other.data / "vault/key").write_bytes(key)
        (other.data / "vault/key").chmod(0o600)
        self.farshore = other
        other.start_server("vault", "vault", "serve", "--data", other.data, "--listen",
                           f"127.0.0.1:{free_port()}", "--store", second)
        other.wait_until_serving()
        for label, (sequence, disks) in self.known.items():
            self.assert_point("web", label, disks)
            self.assert_point("web", sequence, disks)

    def test_a_machine_starts_from_a_copy(self):
        """Breaks when a failover from a copy reads anything but the copy."""
        self.rng = seeded()
        self.known = {}
        second = self.work / "second"
        self.farshore.start_up()
        model, clients = self.protect([2 * MIB])
        for _ in range(20):
            model.random_step(clients, self.rng)
        self.bookmark(model, "here")
        second.mkdir()
        self.farshore.call("store", "add", "second", second)
        self.farshore.call("copy", "add", "web", "--store", "second")
        self.wait_copied(self.known["here"][0])
        # Nothing of the first store can be read any more.
        log = next((self.farshore.data / "store/items").glob("*/log"))
        hidden = log.rename(log.with_name("log.away"))
        job = self.farshore.call("failover", "test", "web", "--point", "here", "--copy", "second")
        self.assertEqual("succeeded", job["state"], job)
        self.assertEqual("second", job["result"]["copy"])
        self.assertIn("first_read_ms", job["result"]["timings"])
        with self.assertRaises(FarshoreError) as failed:
            self.farshore.call("copy", "remove", "web", "--store", "second", "--delete-points")
        self.assertEqual("wrong-state", failed.exception.code)
        log.mkdir(exist_ok=True)    # what was written meanwhile is there
        for path in hidden.iterdir():
            path.rename(log / path.name)
        self.farshore.call("failover", "cleanup", "web")
        job = self.farshore.call("copy", "remove", "web", "--store", "second", "--delete-points")
        self.assertEqual("succeeded", job["state"], job)
        self.assertEqual([], [path for path in (second / "items").rglob("*") if path.is_file()])
        self.farshore.call("store", "remove", "second")


if __name__ == "__main__":
    support.main()

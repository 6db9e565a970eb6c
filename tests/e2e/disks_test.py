#!/usr/bin/env python3
"""End to end: disks that are added to a protected machine, removed from it, and that grow."""
import os
import subprocess
import threading

import support
from support import BINARY, EndToEnd, FarshoreError, Model, NbdClient, RequestRefused, seeded

MIB = 1 << 20


class ChangingDisks(EndToEnd):
    def protect(self, model, *options):
        self.farshore.start_up()
        paths = model.make_files(self.work)
        arguments = [word for path in paths for word in ("--disk", path)]
        self.farshore.call("protect", "web", *arguments, "--point-interval", 2, *options)
        self.wait_state("web", "protected")
        return paths

    def client(self, disk):
        """An NBD client to one disk's tap, as soon as it answers with the disk."""
        def open_one():
            item = self.farshore.call("item", "web")
            entry = item["disks"][disk]
            if entry["state"] == "removed":
                return None
            path = entry["nbd_uri"].split("socket=", 1)[1]
            try:
                return NbdClient(path, str(disk))
            except OSError:
                return None
        client = self.farshore.wait_for(f"disk {disk} is served", open_one, 60)
        self.addCleanup(client.close)
        return client

    def bookmark(self, label):
        return self.farshore.call("point", "web", "--bookmark", label)["sequence"]

    def disks_of(self, point):
        return self.farshore.call("point", "web", "--point", point)["disks"]

    def gaps(self):
        return self.farshore.call("points", "web")["gaps"]

    def test_an_added_disk_joins_the_points_and_costs_the_others_none(self):
        """Breaks when an added disk is not copied, is offered before it is whole, or opens a gap
        for the disks that were protected already."""
        rng = seeded()
        model = Model([3 * MIB + 512], rng)
        # Slow enough that there are points while a disk is copied.
        self.protect(model, "--throttle", 6 * MIB)
        client = self.client(0)
        for _ in range(30):
            model.random_step([client], rng)
        before = self.bookmark("before")
        alone = model.copy()
        client.close()
        gaps = len(self.gaps())

        second = bytearray(rng.randbytes(40 * MIB))
        path = self.work / "second.img"
        path.write_bytes(second)
        model.disks.append(second)
        self.farshore.call("disk", "add", "web", path, "--no-wait")
        with self.assertRaises(FarshoreError) as twice:
            self.farshore.call("disk", "add", "web", path)
        self.assertEqual("already-exists", twice.exception.code)
        # The new one first: the others' tap is another one by then.
        clients = [self.client(1)]
        clients.insert(0, self.client(0))
        for _ in range(30):
            model.random_step(clients, rng)
        during = self.bookmark("during")
        first_during = model.copy()[0]
        self.assertEqual([0], self.disks_of("during"))
        self.assertEqual("joining", self.farshore.call("disk", "list", "web")[1]["state"])
        with self.assertRaises(FarshoreError) as early:
            self.read_point("web", during, 1)
        self.assertIn("it is not copied yet", str(early.exception))

        self.farshore.wait_for("the disk has joined", lambda: self.farshore.call(
            "disk", "list", "web")[1]["state"] == "protected", 120)
        for _ in range(30):
            model.random_step(clients, rng)
        after = self.bookmark("after")
        self.assertEqual([0, 1], self.disks_of("after"))
        self.assertEqual([0], self.disks_of("before"))
        self.assertEqual(gaps, len(self.gaps()), "the added disk opened a gap")
        both = model.copy()
        self.assert_point("web", after, both)
        self.assert_point("web", before, alone)
        self.assert_point("web", during, [first_during])
        self.extract_agrees("after", both[1], disk=1)
        self.assertNotEqual(0, self.extract("during", 1)[0], "a disk is extracted that is not whole")

        # It belongs to the machine that starts elsewhere.
        job = self.farshore.call("failover", "test", "web", "--point", "before")
        self.assertEqual("succeeded", job["state"], job)
        self.farshore.call("failover", "cleanup", "web")

    def test_no_request_of_the_machine_fails_while_disks_change(self):
        """Breaks when a guest that writes while a disk is added or removed gets an error for it."""
        rng = seeded()
        model = Model([2 * MIB, MIB, MIB], rng)
        paths = self.protect(model)
        item = self.farshore.call("item", "web")
        path = item["disks"][0]["nbd_uri"].split("socket=", 1)[1]
        ended, errors, done = threading.Event(), [], []

        def write():
            """As QEMU does in path: what was not answered is asked again of the next tap."""
            client = None
            while not ended.is_set():
                block, data = rng.randrange(2 * MIB // 4096), bytes([rng.randrange(256)]) * 4096
                while True:
                    try:
                        client = client or NbdClient(path, "0")
                        client.write(block * 4096, data)
                        break
                    except RequestRefused as error:
                        errors.append(error)
                        return
                    except OSError:
                        client = client and client.close()
                        ended.wait(0.01)
                model.disks[0][block * 4096:(block + 1) * 4096] = data
                done.append(block)
            client.close()

        writers = threading.Thread(target=write)
        self.addCleanup(writers.join)
        self.addCleanup(ended.set)
        writers.start()
        for number in range(3):
            added = self.work / f"added{number}.img"
            added.write_bytes(rng.randbytes(MIB))
            self.farshore.call("disk", "add", "web", added)
        before = len(done)
        self.farshore.call("disk", "remove", "web", 1)
        self.farshore.wait_for("the capture goes on without it", lambda: (
            self.bookmark("look") and 1 not in self.disks_of("look")), 60)
        self.farshore.wait_for("the machine goes on", lambda: errors or len(done) > before + 100, 60)
        ended.set()
        writers.join()
        self.assertEqual([], errors)
        self.bookmark("end")
        self.assertEqual([0, 2, 3, 4, 5], self.disks_of("end"))
        self.assertEqual("equal", support.first_difference(
            self.read_point("web", "end", 0), bytes(model.disks[0])))
        self.assertEqual(paths[0].read_bytes(), bytes(model.disks[0]))

    def extract(self, point, disk):
        item = self.farshore.call("item", "web")
        out = self.work / f"extracted-{point}-{disk}"
        done = subprocess.run(
            [str(BINARY), "extract", "--store", self.farshore.data / "store", "--key",
             self.farshore.data / "vault/key", "--item", item["id"], "--point", point, "--disk",
             str(disk), "--out", out], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, out

    def extract_agrees(self, point, expected, disk):
        code, words, out = self.extract(point, disk)
        self.assertEqual(0, code, words)
        self.assertEqual("equal", support.first_difference(out.read_bytes(), expected))

    def test_a_disk_that_grows_is_protected_whole(self):
        """Breaks when what a disk gained is not protected, the rest is copied again, or one that
        shrank is taken for the same disk."""
        rng = seeded()
        model = Model([2 * MIB + 512, MIB], rng)
        paths = self.protect(model)
        before = self.bookmark("before")
        small = model.copy()
        compared = self.farshore.call("item", "web")["compared_bytes"]

        # What it gains is not empty: an old volume's blocks.
        gained = rng.randbytes(5 * MIB)
        with open(paths[0], "ab") as file:
            file.write(gained)
        model.disks[0] += gained
        grown = len(model.disks[0])
        self.farshore.wait_for("the growth is seen", lambda: self.farshore.call(
            "disk", "list", "web")[0]["size_bytes"] == grown, 60)
        self.wait_state("web", "protected")
        clients = [self.client(0), self.client(1)]
        self.assertEqual(grown, clients[0].size)
        for _ in range(30):
            model.random_step(clients, rng)
        after = self.bookmark("after")
        self.assert_point("web", after, model.copy())
        self.assert_point("web", before, small)
        read = self.farshore.call("item", "web")["compared_bytes"] - compared
        self.assertLess(read, len(gained) + 2 * MIB, "more than what it gained was read")

        os.truncate(paths[1], MIB // 2)
        def said():
            return [trouble["code"] for trouble in self.farshore.call("item", "web")["troubles"]]
        self.farshore.wait_for("it is said", lambda: "disk-changed" in said(), 60)
        os.truncate(paths[1], MIB)
        self.farshore.wait_for("it is well again", lambda: not said(), 60)

    def test_a_removed_disk_stays_in_the_older_points_only(self):
        """Breaks when a removed disk is captured further, is lost from older points, or costs the
        others a gap; and when the vault's database is lost: when the disk comes back."""
        rng = seeded()
        model = Model([MIB, 2 * MIB, MIB], rng)
        paths = self.protect(model)
        clients = [self.client(disk) for disk in range(3)]
        for _ in range(30):
            model.random_step(clients, rng)
        before = self.bookmark("before")
        whole = model.copy()
        for client in clients:
            client.close()
        gaps = len(self.gaps())
        self.farshore.call("disk", "remove", "web", 1)
        with self.assertRaises(FarshoreError) as gone:
            self.farshore.call("disk", "remove", "web", 1)
        self.assertEqual("not-found", gone.exception.code)
        self.farshore.wait_for("the capture goes on without it", lambda: (
            self.bookmark("look") and self.disks_of("look") == [0, 2]), 60)
        rest = [self.client(0), self.client(2)]
        left = Model([], rng)
        left.disks = [model.disks[0], model.disks[2]]
        for _ in range(30):
            left.random_step(rest, rng)
        after = self.bookmark("after")
        self.assertEqual(gaps, len(self.gaps()), "the removal opened a gap")
        for disk, expected in ((0, left.copy()[0]), (2, left.copy()[1])):
            self.assertEqual("equal", support.first_difference(
                self.read_point("web", after, disk), expected), f"disk {disk}")
        with self.assertRaises(FarshoreError):
            self.read_point("web", after, 1)
        self.assert_point("web", before, whole)
        with self.assertRaises(FarshoreError) as last:
            self.farshore.call("disk", "remove", "web", 0)
            self.farshore.call("disk", "remove", "web", 2)
        self.assertEqual("invalid-argument", last.exception.code)
        # What was left out may come back, as a disk of its own.
        self.farshore.call("disk", "add", "web", paths[1])
        self.bookmark("again")
        self.assertEqual([2, 3], self.disks_of("again"))
        self.assertEqual("equal", support.first_difference(
            self.read_point("web", "again", 3), paths[1].read_bytes()))


if __name__ == "__main__":
    support.main()

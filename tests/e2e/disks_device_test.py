#!/usr/bin/env python3
"""End to end, inside the machine: disks that are added, removed and grow while its kernel traces them."""
import contextlib
import os
import pathlib
import threading

import support
from devices import MIB, DeviceTest, DirectDisk, run
from support import FarshoreError, seeded


class Writer:
    """Writes to disks and to their models, in order, until it is told to pause or to end."""

    def __init__(self, rng):
        self._rng = rng
        self._disks = []    # [DirectDisk, model]
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.error = None
        self.writes = 0
        self._thread.start()

    def _write(self):
        try:
            while not self._ended.is_set():
                with self._lock:
                    if self._disks:
                        self._step()
                self._ended.wait(0.002)    # the lock is for others too
        except OSError as error:
            self.error = error

    def _step(self):
        disk, model = self._rng.choice(self._disks)
        length = 512 * self._rng.choice([1, 2, 7, 8, 8, 8, 64, 128])
        offset = 512 * self._rng.randrange((len(model) - length) // 512 + 1)
        data = self._rng.randbytes(length)
        disk.write(offset, data)
        model[offset:offset + length] = data
        self.writes += 1

    def add(self, device, model):
        with self._lock:
            self._disks.append([DirectDisk(device), model])

    @contextlib.contextmanager
    def paused(self):
        """Nothing is written inside; the contents of the disks."""
        with self._lock:
            yield [bytes(model) for _, model in self._disks]

    def end(self):
        self._ended.set()
        self._thread.join()
        for disk, _ in self._disks:
            disk.close()
        self._disks = []


class ChangingDevices(DeviceTest):
    def fill(self, device, content):
        disk = DirectDisk(device)
        for offset in range(0, len(content), MIB):
            disk.write(offset, bytes(content[offset:offset + MIB]))
        disk.close()

    def bookmark(self, writer, label):
        """A point, and what the disks have at it."""
        with writer.paused() as content:
            self.farshore.call("point", "inside", "--bookmark", label)
            return content

    def disks_of(self, point):
        return self.farshore.call("point", "inside", "--point", point)["disks"]

    def gaps(self):
        return self.count_gaps("inside")

    def compared(self):
        return self.farshore.call("item", "inside")["compared_bytes"]

    def assert_read(self, found, wanted, words):
        """All of what is new, and of the rest no more than what was being written."""
        self.assertGreaterEqual(found, wanted)
        self.assertLess(found, wanted + 4 * MIB, words)

    def listed(self):
        return self.farshore.call("disk", "list", "inside")

    def assert_traced_on(self, began):
        """The program in the kernel is the one of `began`, and the newest capture process took it over."""
        self.assertEqual(began, self.pinned())
        logs = [path for path in self.farshore.data.rglob("tap.log") if self.items[-1][:12] in str(path)]
        self.assertEqual(1, len(logs), logs)
        self.assertIn("disks are traced, as they were before this process", logs[0].read_text())

    def pinned(self):
        directory = pathlib.Path(f"/sys/fs/bpf/farshore-{self.items[-1][:12]}")
        return {path.name: path.stat().st_ino for path in directory.iterdir()}

    def test_disks_join_grow_and_leave_under_writes(self):
        """Breaks when a change of one disk costs the others a gap or another copy, loses a write that
        is made meanwhile, or takes the program out of the kernel."""
        rng = seeded()
        first, second = bytearray(rng.randbytes(48 * MIB)), bytearray(rng.randbytes(6 * MIB + 1536))
        loops = [self.make_disk(len(first)), self.make_disk(len(second))]
        for loop, content in zip(loops, (first, second)):
            self.fill(loop, content)
        writer = Writer(rng)
        self.addCleanup(writer.end)
        writer.add(loops[0], first)
        self.farshore.start_up()
        self.protect("inside", loops[0])
        self.wait_state("inside", "protected")
        pinned = self.pinned()
        expected = {"alone": self.bookmark(writer, "alone")}
        gaps, compared = self.gaps(), self.compared()

        # Added, while both are written.
        writer.add(loops[1], second)
        self.farshore.call("disk", "add", "inside", loops[1], "--no-wait")
        self.farshore.wait_for("the disk has joined", lambda: [
            disk["state"] for disk in self.listed()] == ["protected", "protected"], 60)
        expected["both"] = self.bookmark(writer, "both")
        self.assertEqual(gaps, self.gaps(), "the added disk opened a gap")
        self.assert_read(self.compared() - compared, len(second), "the first disk was read again")
        self.assertEqual(([0], [0, 1]), (self.disks_of("alone"), self.disks_of("both")))
        self.assert_traced_on(pinned)

        # Grown: what it gains is not empty, as an old volume's blocks are not.
        compared = self.compared()
        gained = rng.randbytes(5 * MIB + 512)
        with writer.paused():
            with open(self.images[loops[0]], "ab") as image:
                image.write(gained)
                os.fsync(image.fileno())
            run("losetup", "-c", loops[0])
            first += gained
        self.farshore.wait_for("the growth is seen", lambda:
                               self.listed()[0]["size_bytes"] == len(first), 60)
        self.wait_state("inside", "protected")
        expected["grown"] = self.bookmark(writer, "grown")
        self.assert_read(self.compared() - compared, len(gained), "more than the growth was read")
        self.assert_traced_on(pinned)

        # Removed: it is written on, and nobody looks.
        gaps = self.gaps()
        self.farshore.call("disk", "remove", "inside", 1)
        self.farshore.wait_for("the capture goes on without it", lambda: (
            self.bookmark(writer, "look") and self.disks_of("look") == [0]), 60)
        expected["left"] = self.bookmark(writer, "left")[:1]
        self.assertEqual([0], self.disks_of("left"))
        self.assertEqual([0, 1], self.disks_of("grown"))
        self.assertEqual(gaps, self.gaps(), "the removal opened a gap")
        with self.assertRaises(FarshoreError):
            self.read_point("inside", "left", 1)

        # None of it is forgotten by the next agent and the next capture process.
        self.farshore.kill_descendants("capture serve")
        self.farshore.kill_servers("up")
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        self.wait_state("inside", "protected")
        expected["again"] = self.bookmark(writer, "again")[:1]
        self.assertEqual([0], self.disks_of("again"))
        self.assert_traced_on(pinned)
        self.assertIsNone(writer.error)
        writer.end()
        for label, content in expected.items():
            self.assert_point("inside", label, content)


if __name__ == "__main__":
    support.main()

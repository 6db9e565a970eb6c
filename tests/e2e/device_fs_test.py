#!/usr/bin/env python3
"""End to end, inside the machine: ext4, XFS and Btrfs under load on disks that are captured together.

Each point must hold what a power cut at that moment would have left: a file system that replays its
journal and is then clean, with every file that was synced before. Where the file systems are frozen
nothing is in flight, so each disk is known byte for byte."""
import concurrent.futures
import errno
import itertools
import json
import os
import pathlib
import subprocess
import time

import support
from devices import MIB, DeviceTest, DirectDisk, run
from support import BINARY, seeded

POINTS = 10
TRIMMED = (4, 7)  # before these points


class FileSystem:
    """One of the three: made, mounted with its discards, and examined in a copy of its disk."""

    def __init__(self, name, size, make, options, check, copy_options=""):
        self.name, self.size, self.options = name, size, options
        self._make, self._check, self._copy_options = make, check, copy_options

    def known(self):
        """Whether this kernel has it; asking for it loads its module."""
        done = subprocess.run(["mount", "-t", self.name, "none", "/mnt"], check=False,
                              capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        return "unknown filesystem type" not in done.stderr

    def make(self, device):
        run(*self._make, device)

    def check(self, copy):
        """Of a disk that is not mounted, changing nothing."""
        run(*self._check, copy)

    def mount(self, source, directory, options=None):
        directory.mkdir(exist_ok=True)
        options = self.options if options is None else f"loop,{self._copy_options}".rstrip(",")
        run("mount", "-t", self.name, "-o", options, source, directory)


FILE_SYSTEMS = [
    FileSystem("ext4", 96 * MIB, ["mkfs.ext4", "-q", "-F"], "discard", ["e2fsck", "-fn"]),
    # The least that mkfs.xfs takes is 300 MiB. A copy has the identity of its source.
    FileSystem("xfs", 320 * MIB, ["mkfs.xfs", "-q", "-f"], "discard", ["xfs_repair", "-n"], "nouuid"),
    FileSystem("btrfs", 160 * MIB, ["mkfs.btrfs", "-q", "-f"], "discard=async",
               ["btrfs", "check", "--readonly"])]

# New bytes in every block: a write that is lost must not look like the one before it. Each of the three
# loads of four makes several times its rate of writes below (journals, small syncs, Btrfs's own trees).
LOAD = ["fio", "--thread", "--time_based", "--runtime=600", "--randrepeat=0", "--refill_buffers",
        "--fallocate=none",
        "--name=direct", "--direct=1", "--ioengine=io_uring", "--iodepth=8", "--rw=randwrite",
        "--bsrange=4k-128k", "--filesize=12m", "--rate=3m",
        "--name=synced", "--ioengine=psync", "--rw=randwrite", "--bsrange=512-32k", "--bs_unaligned",
        "--filesize=6m", "--fsync=8", "--rate=1m",
        "--name=mapped", "--ioengine=mmap", "--rw=randwrite", "--bs=4k", "--filesize=4m", "--rate=1m",
        "--name=deleted", "--ioengine=psync", "--rw=write", "--bsrange=1k-200k", "--nrfiles=16",
        "--filesize=4k-700k", "--openfiles=4", "--create_on_open=1", "--unlink_each_loop=1",
        "--fsync_on_close=1", "--rate=2m"]


def data_ranges(handle):
    """[begin, end) of what is no hole in a file."""
    at, size = 0, os.fstat(handle).st_size
    while at < size:
        try:
            at = os.lseek(handle, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(handle, at, os.SEEK_HOLE)
        yield at, end
        at = end


def difference(path, model):
    """The first byte where two files of one size differ; None: they are equal."""
    with open(path, "rb") as one, open(model, "rb") as other:
        handles = one.fileno(), other.fileno()
        pieces = {at for handle in handles for offset, end in data_ranges(handle)
                  for at in range(offset // MIB, (end + MIB - 1) // MIB)}
        for number in sorted(pieces):
            found, expected = (os.pread(handle, MIB, number * MIB) for handle in handles)
            if found != expected:
                return number * MIB + next(
                    i for i, (a, b) in enumerate(itertools.zip_longest(found, expected)) if a != b)
        return None


class Mounted:
    """A protected disk with its file system, and what was synced there before each point."""

    def __init__(self, system, device, image, directory):
        self.system, self.device, self.image, self.directory = system, device, image, directory
        self.synced = {}

    def sync_a_file(self, name, data):
        """A new file whose bytes and name are on the disk when this returns."""
        with open(self.directory / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self.synced[name] = data

    def forget_a_file(self, name):
        (self.directory / name).unlink()
        del self.synced[name]


class FileSystems(DeviceTest):
    def setUp(self):
        super().setUp()
        self.mounted = []
        self.addCleanup(self.forget_mounts)

    def forget_mounts(self):
        """Thawed first: nothing that writes would end otherwise. Copies may be mounted, too."""
        for one in self.mounted:
            subprocess.run(["fsfreeze", "-u", one.directory], check=False, stderr=subprocess.DEVNULL)
        for process in getattr(self, "loads", []):
            self.end_load(process)
        for line in pathlib.Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{self.work}/"):
                subprocess.run(["umount", line.split()[1]], check=False)

    def keep(self, one, path):
        """The disk as it is now, past every cache, in a file with holes. What is a hole in the loop
        disk's own file needs no reading."""
        disk = DirectDisk(one.device, os.O_RDONLY)
        with open(one.image, "rb") as image, open(path, "wb") as file:
            for offset, end in data_ranges(image.fileno()):
                for at in range(offset, end, MIB):
                    file.seek(at)
                    file.write(disk.read(at, min(MIB, end - at)))
            file.truncate(one.system.size)
        disk.close()
        return path

    def copy_out(self, point, disk, path):
        """A disk at a point, through `farshore export`, into a file with holes."""
        socket = self.work / f"{path.name}.sock"
        process = subprocess.Popen(
            [str(BINARY), "export", "fs", "--point", point, "--disk", str(disk), "--socket",
             str(socket), "--data", str(self.farshore.data), "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.farshore.environment)
        try:
            line = process.stdout.readline()
            self.assertTrue(line, "no export")
            run("nbdcopy", json.loads(line)["uri"], path)
        finally:
            process.terminate()
            process.communicate(timeout=30)

    @staticmethod
    def unmount(directory):
        """A program that another thread starts may hold a file of it for a moment."""
        for _ in range(100):
            if subprocess.run(["umount", directory], check=False, capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        run("umount", directory)

    def check_point(self, point, number, one, model, synced):
        """Raises when the disk at the point is not what it must be."""
        copy = self.work / f"{point}-{one.system.name}.img"
        self.copy_out(point, number, copy)
        if model is not None:
            self.assertEqual(copy.stat().st_size, model.stat().st_size)
            at = difference(copy, model)
            if at is not None:
                raise AssertionError(f"differs at byte {at}")
        # As after a power cut: the kernel replays the journal, then nothing may be left to repair.
        directory = self.work / f"{copy.name}.mnt"
        one.system.mount(copy, directory, "copy")
        try:
            for name, data in synced.items():
                if (directory / name).read_bytes() != data:
                    raise AssertionError(f"{name} was synced before {point} and differs in it")
        finally:
            self.unmount(directory)
        one.system.check(copy)
        copy.unlink()

    def test_every_point_is_the_file_systems_of_that_moment(self):
        """Breaks when a write, a discard or their order is lost between a file system and an export."""
        rng = seeded()
        for system in FILE_SYSTEMS:
            if system.known():
                directory = self.work / f"mnt-{system.name}"
                device = self.make_disk(system.size)
                self.mounted.append(Mounted(system, device, self.images[device], directory))
                continue
            # Said, and seen to be so: an absent one must not look like a tested one.
            print(f"this kernel has no {system.name}", flush=True)
            self.assertNotIn(system.name, pathlib.Path("/proc/filesystems").read_text().split())
        self.assertTrue(self.mounted)

        self.farshore.start_up()
        self.protect("fs", *(one.device for one in self.mounted))
        self.loads = []
        for one in self.mounted:
            one.system.make(one.device)
            one.system.mount(one.device, one.directory)
            self.loads.append(self.start_load([LOAD[0], f"--directory={one.directory}", *LOAD[1:]]))
        self.wait_state("fs", "protected")

        models, synced = {}, {}
        for number in range(POINTS):
            point = f"point-{number}"
            time.sleep(rng.uniform(0.3, 1))
            for one in self.mounted:
                one.sync_a_file(point, rng.randbytes(rng.choice([100, 5000, 70_000, 400_000])))
                if rng.random() < 0.3:
                    one.forget_a_file(rng.choice(sorted(one.synced)))
                if number in TRIMMED:
                    run("fstrim", one.directory)
            synced[point] = [dict(one.synced) for one in self.mounted]
            frozen = number % 2 == 1
            if not frozen:
                self.bookmark(point)
                continue
            for one in self.mounted:
                run("fsfreeze", "-f", one.directory)
            models[point] = [self.keep(one, self.work / f"{point}-{one.system.name}.model")
                             for one in self.mounted]
            self.bookmark(point)
            for one in self.mounted:
                run("fsfreeze", "-u", one.directory)
        for process in self.loads:
            self.assertIsNone(process.poll(), "the load ended by itself")
            self.end_load(process)
        for one in self.mounted:
            run("umount", one.directory)
        self.wait_state("fs", "protected")
        self.bookmark("end")
        synced["end"] = [dict(one.synced) for one in self.mounted]
        models["end"] = [self.keep(one, self.work / f"end-{one.system.name}.model")
                         for one in self.mounted]
        gaps = self.farshore.call("points", "fs", "--limit", 1000)["gaps"]
        print(f"{len(models)} of {len(synced)} points are known whole, {len(gaps)} gaps", flush=True)
        self.check_all(synced, models)

    def bookmark(self, label):
        made = self.farshore.call("point", "fs", "--bookmark", label)
        self.assertTrue(made.get("sequence"), made)

    def check_all(self, synced, models):
        """All that is wrong is told, not only what is found first."""
        wrong = []
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            # One after the other for each file system: Btrfs mounts one copy of a disk at a time.
            def check_disk(number):
                one = self.mounted[number]
                for point, files in synced.items():
                    model = models[point][number] if point in models else None
                    try:
                        self.check_point(point, number, one, model, files[number])
                    except Exception as error:  # pylint: disable=broad-except
                        wrong.append(f"{one.system.name} at {point}: {error}")

            list(pool.map(check_disk, range(len(self.mounted))))
        self.assertEqual([], wrong, "\n".join(wrong))


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""End to end, inside the machine: disks of this machine's own kernel, captured while they are used."""
import mmap
import os
import random
import shutil
import signal
import subprocess
import threading

import support
from devices import MIB, DeviceTest, DirectDisk, run
from support import FarshoreError, first_difference, seeded


class Devices(DeviceTest):
    def test_every_bookmark_is_the_disks_of_that_moment(self):
        """Breaks when order, sizes, zeroes, discards or the first copy are wrong anywhere between the
        kernel's trace and an export."""
        rng = seeded()
        sizes = [24 * MIB, 5 * MIB + 1536]
        devices = [self.make_disk(size) for size in sizes]
        models = [bytearray(rng.randbytes(size)) for size in sizes]
        disks = [DirectDisk(device) for device in devices]
        for disk, model in zip(disks, models):
            for offset in range(0, len(model), MIB):
                disk.write(offset, bytes(model[offset:offset + MIB]))
        self.farshore.start_up()
        self.protect("inside", *devices)

        def step():
            number = rng.randrange(len(disks))
            model = models[number]
            length = 512 * rng.choice([1, 2, 7, 8, 8, 8, 64, 256, 2048, 4000])
            length = min(length, len(model))
            offset = 512 * rng.randrange((len(model) - length) // 512 + 1)
            kind = rng.choice("wwwwwwzd")
            if kind == "w":
                data = rng.randbytes(length)
                disks[number].write(offset, data)
            else:
                length = max(4096, length // 4096 * 4096)
                offset = min(offset // 4096 * 4096, (len(model) - length) // 4096 * 4096)
                run("blkdiscard", *(["-z"] if kind == "z" else []), "-o", offset, "-l", length,
                    devices[number])
                data = bytes(length)
            model[offset:offset + length] = data

        for _ in range(30):
            step()
        self.wait_state("inside", "protected")
        expected = {}
        for round_number in range(5):
            for _ in range(25):
                step()
            label = f"round-{round_number}"
            self.farshore.call("point", "inside", "--bookmark", label)
            expected[label] = [bytes(model) for model in models]
        for label, content in expected.items():
            self.assert_point("inside", label, content)
        for disk in disks:
            disk.close()

    def test_a_tiny_ring_makes_gaps_and_ends_equal(self):
        """Breaks when what the ring could not take is lost, or a point inside a gap is offered."""
        device = self.make_disk(64 * MIB)
        self.farshore.start_up("--trace-ring-kib", 64)
        self.protect("small", device)
        self.wait_state("small", "protected")
        run("fio", "--thread", "--name=load", f"--filename={device}", "--direct=1", "--rw=randwrite", "--bs=64k",
            "--iodepth=32", "--ioengine=io_uring", "--size=64m", "--io_size=256m", "--randrepeat=0")
        self.wait_state("small", "protected")
        gaps = self.farshore.wait_for("a closed gap is known", lambda: [
            gap for gap in self.farshore.call("points", "small", "--limit", 1000)["gaps"]
            if "before" in gap], 60)
        inside = (gaps[-1]["after"]["sequence"] + gaps[-1]["before"]["sequence"]) // 2
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("point", "small", "--point", inside)
        self.assertEqual("point-in-gap", error.exception.code)
        self.wait_state("small", "protected")
        self.farshore.call("point", "small", "--bookmark", "end")
        self.assert_point("small", "end", [self.whole(device)])

    def test_what_cannot_be_captured_is_refused_with_the_alternative(self):
        """Breaks when a disk that would be captured incompletely, or not at all, is taken."""
        self.farshore.start_up()
        image = self.work / "file"
        image.write_bytes(bytes(MIB))
        for number, (path, code) in enumerate((("/dev/does-not-exist", "not-found"),
                                               (image, "invalid-argument"),
                                               ("/dev/zram0", "unsupported"))):
            if str(path) == "/dev/zram0" and not os.path.exists(path):
                continue
            with self.assertRaises(FarshoreError) as error:
                self.farshore.call("protect", f"wrong{number}", "--device", path)
            self.assertEqual(code, error.exception.code, path)
            self.farshore.call("unprotect", f"wrong{number}")

    def test_kills_upgrades_and_an_end_leave_nothing_and_lose_nothing(self):
        """Breaks when writes during the absence of capture process or agent are lost or copied again
        as a whole, or when the program stays in the kernel after the protection's end."""
        rng = seeded()
        device = self.make_disk(32 * MIB)
        # Another program file, as an upgrade brings one; the plugin stands where it stood.
        upgraded = self.work / "upgraded"
        (upgraded / "bin").mkdir(parents=True)
        shutil.copy(support.BINARY, upgraded / "bin/farshore")
        (upgraded / "lib").symlink_to(support.BINARY.parent.parent / "lib")
        programs = [self.farshore.binary, upgraded / "bin/farshore"]
        self.farshore.start_up()
        item = self.protect("inside", device)
        self.wait_state("inside", "protected")
        load = self.start_load(
            ["fio", "--thread", "--name=load", f"--filename={device}", "--direct=1", "--rw=randwrite",
             "--bs=4k", "--iodepth=8", "--ioengine=io_uring", "--size=32m", "--time_based",
             "--runtime=3600", "--rate_iops=800", "--randrepeat=0"])

        def check():
            """The disk as it is while nobody writes, at a point that is stored."""
            load.send_signal(signal.SIGSTOP)
            try:
                self.wait_state("inside", "protected")
                label = f"check-{rng.getrandbits(32):08x}"
                expected = self.whole(device)
                self.farshore.call("point", "inside", "--bookmark", label)
                self.assert_point("inside", label, [expected])
            finally:
                load.send_signal(signal.SIGCONT)

        rounds = int(os.environ.get("FARSHORE_KILLS") or 8)
        for number in range(1, rounds + 1):
            kind = rng.choice(["tap", "tap", "agent", "agent", "both", "upgrade"])
            if kind in ("tap", "both"):
                self.farshore.kill_descendants("capture serve")
            if kind in ("agent", "both"):
                self.farshore.kill_servers("up")
                self.farshore.restart_server("up")
            if kind == "upgrade":
                self.farshore.stop_servers("up")
                programs.reverse()
                self.farshore.binary = programs[0]
                self.farshore.restart_server("up")
            self.farshore.wait_until_serving()
            self.farshore.wait_for("a capture process runs", lambda: any(
                "capture serve" in command for _, command in self.farshore.descendants()), 60)
            if number % 10 == 0:
                check()
                self.assertEqual([], self.whole_copies())
                self.assertEqual("succeeded", self.farshore.call("unprotect", "inside")["state"])
                self.assertNotIn(f"farshore-{item['id'][:12]}", [path.name for path in self.traces()])
                item = self.protect("inside", device)
        check()
        self.assertEqual([], self.whole_copies())
        self.end_load(load)
        self.assertEqual("succeeded", self.farshore.call("unprotect", "inside")["state"])
        self.assertNotIn(f"farshore-{item['id'][:12]}", [path.name for path in self.traces()])
        left = [command for _, command in self.farshore.descendants() if "capture serve" in command]
        self.assertEqual([], left)

    def end_equal(self, name, device):
        self.wait_state(name, "protected")
        self.farshore.call("point", name, "--bookmark", "end")
        disk, replica = self.whole(device), self.read_point(name, "end", 0)
        if disk != replica:
            # Whether it is lost, or late, or the disk's own doing.
            wrong = [at for at in range(0, len(disk), 4096) if disk[at:at + 4096] != replica[at:at + 4096]]
            self.farshore.call("point", name, "--bookmark", "later")
            self.fail(f"{len(wrong)} blocks from {wrong[0]} to {wrong[-1]} differ; the first is "
                      f"{'zero' if not any(disk[wrong[0]:wrong[0] + 4096]) else 'data'} on the disk and "
                      f"{'zero' if not any(replica[wrong[0]:wrong[0] + 4096]) else 'data'} at the point; the disk is "
                      f"{'as it was' if disk == self.whole(device) else 'another meanwhile'}; a later point is "
                      f"{'equal' if self.whole(device) == self.read_point(name, 'later', 0) else 'different'}; gaps: "
                      f"{self.farshore.call('points', name)['gaps']}")

    def test_buffers_that_change_and_writes_that_overlap_end_equal(self):
        """Breaks when what was captured at a write's issue is taken for what the disk has although the
        page was changed on the way, or although another write to the same place was under way."""
        rng = seeded()
        device = self.make_disk(8 * MIB)
        self.farshore.start_up()
        self.protect("wild", device)
        self.wait_state("wild", "protected")
        length = 64 << 10
        buffer = mmap.mmap(-1, length)
        stop = threading.Event()

        def change():
            while not stop.is_set():
                at = random.randrange(length // 8) * 8
                buffer[at:at + 8] = os.urandom(8)

        def write_changing():
            fd = os.open(device, os.O_RDWR | os.O_DIRECT)
            view = memoryview(buffer)
            for offset in range(0, 4 * MIB, length):
                os.pwrite(fd, view, offset)
            view.release()
            os.close(fd)

        def write_overlapping(seed):
            chance = random.Random(seed)
            disk = DirectDisk(device)
            for _ in range(300):
                disk.write(4 * MIB + 512 * chance.randrange(64), chance.randbytes(512 * chance.randrange(1, 65)))
            disk.close()

        threads = [threading.Thread(target=change), threading.Thread(target=change)]
        writers = [threading.Thread(target=write_changing)] + [
            threading.Thread(target=write_overlapping, args=(rng.random(),)) for _ in range(4)]
        for thread in threads + writers:
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        for thread in threads:
            thread.join()
        self.end_equal("wild", device)

    def test_writes_that_fail_end_equal(self):
        """Breaks when a write that the disk refused stays in the replica."""
        rng = seeded()
        mount = self.work / "small"
        mount.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", mount)
        self.addCleanup(subprocess.run, ["umount", "-l", str(mount)], check=False)
        image = mount / "disk.img"
        with open(image, "wb") as file:
            file.truncate(16 * MIB)
        device = run("losetup", "-f", "--show", image).strip()
        self.loops.append(device)
        self.farshore.start_up()
        self.protect("full", device)
        self.wait_state("full", "protected")
        disk = DirectDisk(device)
        refused = 0
        for offset in range(0, 16 * MIB, 128 << 10):
            try:
                disk.write(offset, rng.randbytes(128 << 10))
            except OSError:
                refused += 1
        disk.close()
        self.assertGreater(refused, 0, "the disk had room for everything")
        self.end_equal("full", device)

    def whole_copies(self):
        """Of the item as it is now: a killed or upgraded part must not make everything be copied."""
        return [event["text"] for event in self.farshore.call("events", "--item", "inside")["events"]
                if "protected -> resynchronising" in event.get("text", "")]


if __name__ == "__main__":
    support.main()

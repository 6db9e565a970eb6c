#!/usr/bin/env python3
"""End to end: a disk at a point written out as an image, whatever dies meanwhile."""
import os
import subprocess
import unittest

import support
from support import EndToEnd, FarshoreError, Model, seeded

MIB = 1 << 20


class Images(EndToEnd):
    def protect(self, sizes, steps=60):
        """An item 'web' with some writes; its point 'here' and what the disks held then."""
        self.rng = seeded()
        self.farshore.start_up()
        model = Model(sizes, self.rng)
        # Holes, so that there is something to leave out.
        for disk in model.disks:
            disk[len(disk) // 4:len(disk) // 2] = bytes(len(disk) // 2 - len(disk) // 4)
        arguments = [word for path in model.make_files(self.work) for word in ("--disk", path)]
        self.farshore.call("protect", "web", *arguments)
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        for _ in range(steps):
            model.random_step(clients, self.rng)
        self.farshore.call("point", "web", "--bookmark", "here")
        expected = model.copy()
        for _ in range(steps // 2):
            model.random_step(clients, self.rng)
        self.images = self.work / "images"
        self.images.mkdir()
        return expected

    def materialise(self, to, *options, point="here", disk=0, **how):
        return self.farshore.call("materialise", "web", "--point", point, "--disk", disk, "--to", to,
                                  *options, **how)

    def refused(self, code, *arguments, **how):
        with self.assertRaises(FarshoreError) as failed:
            self.materialise(*arguments, **how)
        self.assertEqual(code, failed.exception.code, failed.exception)
        return failed.exception

    def job_error(self, job):
        return (job.get("error") or {}).get("code")

    def left(self):
        run = self.farshore.data / "vault/run"
        return sorted(p.name for p in self.images.iterdir()) + sorted(
            p.name for p in run.glob("materialise-*")) if run.exists() else sorted(
                p.name for p in self.images.iterdir())

    def assert_image(self, image, kind, expected):
        """qemu-img reads it as that format, and finds the disk in it."""
        raw = self.work / "expected.img"
        raw.write_bytes(expected)
        # Formats of whole sectors are longer by less than one: zeroes, which qemu-img takes as equal.
        done = subprocess.run(["qemu-img", "compare", "-f", kind, "-F", "raw", image, raw],
                              capture_output=True, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def test_every_format_holds_the_point(self):
        """Breaks when an image is not what `farshore export` serves, when zeroes are written, or when
        something is left beside it."""
        expected = self.protect([24 * MIB + 512, 9 * MIB + 1000])
        for disk, content in enumerate(expected):
            for kind, qemu in (("raw", "raw"), ("qcow2", "qcow2"), ("vhd", "vpc"), ("vhd-dynamic", "vpc")):
                image = self.images / f"disk{disk}.{kind}"
                job = self.materialise(f"{kind}:{image}", disk=disk)
                self.assertEqual("succeeded", job["state"], job)
                self.assertEqual(len(content), job["result"]["disk_bytes"])
                self.assert_image(image, qemu, content)
                self.assertLess(job["result"]["written_bytes"], len(content) * 0.85, "holes were written")
                if not kind.endswith("dynamic"):    # its blocks have 2 MiB
                    self.assertLess(image.stat().st_blocks * 512, len(content) * 0.9, "holes are in the file")
        self.assertEqual(self.read_point("web", "here", 0), (self.images / "disk0.raw").read_bytes())
        self.assertEqual(8, len(self.left()), self.left())
        # A fixed VHD is the disk and 512 bytes that say how long it is.
        footer = (self.images / "disk1.vhd").read_bytes()[-512:]
        self.assertEqual((b"conectix", (9 * MIB + 1024).to_bytes(8, "big")), (footer[:8], footer[48:56]))
        self.assertEqual(0xFFFFFFFF & ~sum(footer[:64] + footer[68:]), int.from_bytes(footer[64:68], "big"))

    def test_what_cannot_be_is_told_at_once(self):
        """Breaks when a job begins that cannot end well, or replaces what somebody keeps."""
        expected = self.protect([4 * MIB])
        image = self.images / "disk.raw"
        image.write_bytes(b"somebody's")
        self.refused("already-exists", f"raw:{image}")
        self.assertEqual(b"somebody's", image.read_bytes())
        self.assertEqual("succeeded", self.materialise(f"raw:{image}", "--force")["state"])
        self.assertEqual(expected[0], image.read_bytes())
        self.refused("not-found", f"raw:{self.images}/none/disk.raw")
        self.refused("not-found", f"raw:{self.images}/other.raw", disk=3)
        self.refused("invalid-argument", f"vmdk:{self.images}/disk.vmdk")
        self.refused("invalid-argument", str(image))
        self.refused("point-not-found", f"raw:{self.images}/other.raw", point="nowhere")
        self.refused("point-not-found", f"raw:{self.images}/other.raw", point=10**9)
        self.refused("point-in-gap", f"raw:{self.images}/other.raw", point=1)
        self.refused("point-outside-window", f"raw:{self.images}/other.raw", point="2001-01-01T00:00:00Z")
        with self.assertRaises(FarshoreError) as failed:
            self.farshore.call("materialise", "none", "--to", f"raw:{self.images}/other.raw")
        self.assertEqual("item-not-found", failed.exception.code)
        self.assertEqual(["disk.raw"], self.left())

    @unittest.skipIf(os.geteuid() != 0, "needs loop devices")
    def test_a_block_device_is_written_in_its_place(self):
        """Breaks when what a used device held shows through, or one that is too small is begun."""
        expected = self.protect([4 * MIB])
        used = self.images / "used.img"
        for size, words in ((4 * MIB + 4096, None), (4 * MIB - 4096, "too-large")):
            used.write_bytes(b"\xaa" * size)
            device = subprocess.run(["losetup", "-f", "--show", used], check=True, capture_output=True,
                                    text=True).stdout.strip()
            try:
                self.refused("already-exists", f"raw:{device}")
                if words:
                    self.refused(words, f"raw:{device}", "--force")
                else:
                    self.refused("invalid-argument", f"qcow2:{device}", "--force")
                    self.assertEqual("succeeded", self.materialise(f"raw:{device}", "--force")["state"])
            finally:
                subprocess.run(["losetup", "-d", device], check=True)
            if not words:
                self.assertEqual(expected[0], used.read_bytes()[:4 * MIB])
                self.assertEqual(b"\xaa" * 4096, used.read_bytes()[4 * MIB:])

    @unittest.skipIf(os.geteuid() != 0, "needs mounts")
    def test_a_full_disk_ends_it_and_leaves_nothing(self):
        """Breaks when no space is called anything else, or half an image stays."""
        self.protect([16 * MIB])
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", self.images], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.images], check=False)
        for kind in ("raw", "qcow2", "vhd-dynamic"):
            with self.subTest(kind), self.assertRaises(FarshoreError) as failed:
                job = self.farshore.call("materialise", "web", "--point", "here", "--to",
                                         f"{kind}:{self.images}/disk", "--no-wait")
                ended = self.farshore.wait_for("its end", lambda: (
                    now := self.farshore.call("job", job["id"]))["state"] not in ("queued", "running") and now, 60)
                raise FarshoreError("job", self.job_error(ended), str(ended.get("error")))
            self.assertEqual("no-space", failed.exception.code, failed.exception)
            self.assertEqual([], self.left())

    def start_slowly(self, kind):
        """A job that is under way for a while."""
        job = self.farshore.call("materialise", "web", "--point", "here", "--to",
                                 f"{kind}:{self.images}/disk", "--no-wait", "--throttle", 64 * MIB)
        return job["id"]

    def test_a_cancelled_one_leaves_nothing(self):
        """Breaks when a job cannot be ended, or its half stays."""
        self.protect([128 * MIB], steps=5)
        for kind in ("raw", "qcow2"):
            job = self.start_slowly(kind)
            self.farshore.call("job", job, "--cancel")
            ended = self.farshore.wait_for("its end", lambda: (
                now := self.farshore.call("job", job))["state"] not in ("queued", "running") and now, 60)
            self.assertEqual("cancelled", ended["state"], ended)
            self.assertEqual([], self.left())

    def test_killed_anywhere_it_goes_on(self):
        """Breaks when an image of a job whose vault was killed is wrong, begins anew each time, or is
        never done."""
        expected = self.protect([192 * MIB], steps=20)
        for kind, qemu in (("raw", "raw"), ("qcow2", "qcow2"), ("vhd", "vpc"), ("vhd-dynamic", "vpc")):
            kills = 0
            job = self.start_slowly(kind)
            second = None
            while True:
                # Not the time but how far it is chooses the moment: at the beginning, in the middle of
                # either pass, near the end.
                stop_at = self.rng.random() if kills < 4 else 2
                now = self.farshore.wait_for("progress", lambda: (
                    n := self.farshore.call("job", job)) and (
                        n["progress"] >= stop_at or n["state"] not in ("queued", "running")) and n,
                    120, interval_s=0.02)
                if now["state"] not in ("queued", "running"):
                    break
                if second is None:
                    self.refused("already-exists", f"raw:{self.images}/disk")
                    second = True
                self.farshore.kill_servers("up")
                kills += 1
                self.farshore.start_up()
            self.assertEqual("succeeded", now["state"], now)
            print(f"{kind}: killed {kills} times", flush=True)
            self.assert_image(self.images / "disk", qemu, expected[0])
            self.assertEqual(["disk"], self.left())
            (self.images / "disk").unlink()


if __name__ == "__main__":
    support.main()

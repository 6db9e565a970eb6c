#!/usr/bin/env python3
"""End to end: files of ext4, xfs, ntfs and of a logical volume over two disks, out of a point."""
import concurrent.futures
import subprocess
import time

import guestfs
import support
from support import BINARY, EndToEnd, FarshoreError, seeded

MIB = 1 << 20


class Files(EndToEnd):
    def setUp(self):
        self.variables = guestfs.environment()
        super().setUp()
        self.farshore.environment.update(self.variables)

    def files(self, verb, *arguments, **how):
        return self.farshore.call("files", verb, "web", "--point", "here", *arguments, timeout_s=600, **how)

    def refused(self, code, verb, *arguments):
        with self.assertRaises(FarshoreError) as failed:
            self.files(verb, *arguments)
        self.assertEqual(code, failed.exception.code, failed.exception)
        return str(failed.exception)

    def make_disks(self, rng):
        """Disk 0: an MBR with ext4, xfs and ntfs; disks 1 and 2: one volume group."""
        content = self.work / "content"
        (content / "deep/er").mkdir(parents=True)
        self.expected = {"plain.txt": b"hello\n", "large.bin": rng.randbytes(3 * MIB + 17), "empty": b"",
                         "deep/er/file": rng.randbytes(70_000), "with space & $(reboot);'\"": b"no shell\n",
                         "bad\x1b[31mname\n": b"escaped\n"}
        for name, data in self.expected.items():
            (content / name).write_bytes(data)
        (content / "link").symlink_to("plain.txt")
        (content / "out").symlink_to("/etc/passwd")
        subprocess.run(["tar", "-C", content, "-cf", self.work / "content.tar", "."], check=True)
        tar = self.work / "content.tar"
        # NTFS takes no control characters in names.
        subprocess.run(["tar", "-C", content, "-cf", self.work / "plain.tar", "plain.txt", "large.bin", "deep"],
                       check=True)
        disks = [self.work / f"disk{i}.img" for i in range(3)]
        for disk, size in zip(disks, (620 * MIB, 40 * MIB, 40 * MIB)):
            with open(disk, "wb") as image:
                image.truncate(size)
        sector = MIB // 512
        script = "\n".join([*(f"add-drive {disk} format:raw" for disk in disks), "run",
                            "part-init /dev/sda mbr",
                            f"part-add /dev/sda p {sector} {100 * sector - 1}",
                            f"part-add /dev/sda p {100 * sector} {500 * sector - 1}",
                            f"part-add /dev/sda p {500 * sector} {600 * sector - 1}",
                            "mkfs ext4 /dev/sda1", "mkfs xfs /dev/sda2", "mkfs ntfs /dev/sda3",
                            "pvcreate /dev/sdb", "pvcreate /dev/sdc", "vgcreate vg \"/dev/sdb /dev/sdc\"",
                            "lvcreate data vg 64", "mkfs ext4 /dev/vg/data",
                            *(line for device, what in (("/dev/sda1", tar), ("/dev/sda2", tar),
                                                        ("/dev/sda3", self.work / "plain.tar"),
                                                        ("/dev/vg/data", tar))
                              for line in (f"mount {device} /", f"tar-in {what} /", "umount-all"))]) + "\n"
        guestfs.guestfish(script, self.variables)
        return disks

    def test_files_of_every_kind_of_volume(self):
        """Breaks when a file of a point cannot be had, is another one, or a name does harm."""
        rng = seeded()
        disks = self.make_disks(rng)
        self.farshore.start_up()
        self.farshore.call("protect", "web", *(word for disk in disks for word in ("--disk", disk)))
        self.wait_state("web", "protected", timeout_s=300)
        self.farshore.call("point", "web", "--bookmark", "here")
        # What the disks hold now is not what they held then.
        for client in self.open_disks("web"):
            client.write(0, b"\xff" * 4 * MIB)

        began = time.monotonic()
        volumes = {v["volume"]: v["type"] for v in self.files("volumes")["volumes"]}
        print(f"files volumes: {time.monotonic() - began:.1f} s", flush=True)
        self.assertEqual({"/dev/sda1": "ext4", "/dev/sda2": "xfs", "/dev/sda3": "ntfs", "/dev/vg/data": "ext4"},
                         volumes)

        for where in (("--disk", 0, "--partition", 1), ("--volume", "/dev/sda2"), ("--volume", "/dev/vg/data")):
            to = self.work / f"got-{where[-1]}".replace("/", "_") / "all"
            to.parent.mkdir()
            got = self.files("get", *where, "--to", to, "/")
            self.assertEqual(self.expected, {str(path.relative_to(to)): path.read_bytes()
                                             for path in to.rglob("*")
                                             if path.is_file() and "lost+found" not in str(path)})
            self.assertEqual(len(self.expected), got["files"])
            self.assertEqual({"/link", "/out"}, set(got["skipped"]))
        entries = {e["name"]: e for e in self.files("ls", "--volume", "/dev/vg/data", "/")["entries"]}
        self.assertEqual("link", entries["link"]["kind"])
        self.assertEqual("plain.txt", entries["link"]["target"])
        self.assertEqual(3 * MIB + 17, entries["large.bin"]["size_bytes"])
        self.assertEqual("directory", entries["deep"]["kind"])
        one = self.work / "one"
        self.files("get", "--volume", "/dev/sda3", "--to", one, "/deep/er/file")
        self.assertEqual(self.expected["deep/er/file"], one.read_bytes())

        # For a terminal nothing of a name is a command.
        shown = subprocess.run([BINARY, "files", "ls", "web", "--point", "here", "--data", self.farshore.data,
                                "--disk", "0", "--partition", "1", "/"], capture_output=True, check=True,
                               env=self.farshore.environment, stdin=subprocess.DEVNULL).stdout
        self.assertNotIn(b"\x1b", shown)
        self.assertIn(b"deep", shown)

        left = [command for _, command in self.farshore.descendants() if "nbdkit" in command
                and "/tmp/farshore-" in command and ".sock" in command and "farshore-e2e" not in command]
        self.assertEqual([], left)

    def test_what_cannot_be_had_is_said(self):
        """Breaks when a link leads out of the machine, when a file is replaced or grows without a bound, or when
        an encrypted volume, several of them, or none is called anything else."""
        seeded()
        content = self.work / "content"
        content.mkdir()
        (content / "large.bin").write_bytes(b"x" * 100_000)
        (content / "out").symlink_to("/etc/passwd")
        disk = self.work / "disk.img"
        with open(disk, "wb") as image:
            image.truncate(64 * MIB)
        subprocess.run(["sfdisk", "--quiet", disk], input=b"1MiB,16MiB,L\n17MiB,32MiB,L\n49MiB,14MiB,L\n", check=True)
        for number, (at, mib) in enumerate(((1, 16), (49, 14))):
            part = self.work / f"part{number}.img"
            subprocess.run(["mkfs.ext4", "-q", "-d", content, part, f"{mib}M"], check=True)
            with open(disk, "r+b") as image:
                image.seek(at * MIB)
                image.write(part.read_bytes())
        # An encrypted partition is known by its head.
        made = self.work / "luks.img"
        with open(made, "wb") as image:
            image.truncate(32 * MIB)
        subprocess.run(["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks1", "--iter-time", "10", made,
                        "-"], input=b"secret", check=True)
        with open(disk, "r+b") as image:
            image.seek(17 * MIB)
            image.write(made.read_bytes()[:4 * MIB])
        self.farshore.start_up()
        self.farshore.call("protect", "web", "--disk", disk)
        self.wait_state("web", "protected", timeout_s=300)
        self.farshore.call("point", "web", "--bookmark", "here")
        there = self.work / "there"
        there.write_bytes(b"somebody's")
        first = ("--disk", 0, "--partition", 1)
        cases = [("not-found", "", "get", *first, "--to", self.work / "none", "/out"),
                 ("not-found", "/dev/sdz", "ls", "--volume", "/dev/sdz", "/"),
                 ("already-exists", "", "get", *first, "--to", there, "/large.bin"),
                 ("too-large", "", "get", *first, "--max-bytes", 1000, "--to", self.work / "big", "/large.bin"),
                 ("unsupported", "encrypted", "ls", "--disk", 0, "--partition", 2, "/"),
                 ("invalid-argument", "/dev/sda3", "ls", "/"),
                 ("invalid-argument", "relative", "ls", *first, "relative"),
                 ("not-found", "", "ls", "--disk", 7, "/")]
        with concurrent.futures.ThreadPoolExecutor(3) as several:
            for (_, words, *_), said in zip(cases, several.map(lambda case: self.refused(case[0], *case[2:]), cases)):
                self.assertIn(words, said)
        self.assertEqual(b"somebody's", there.read_bytes())
        self.assertFalse((self.work / "big").exists())


if __name__ == "__main__":
    support.main()

"""A Debian machine with systemd that has what Farshore's packages depend on, and not Farshore: for
package_test.py. Built once and cached beside the demo's guest, under the hash of its recipe:
${FARSHORE_CACHE:-~/.cache/farshore}/guest-package-HASH/{root.img,vmlinuz,initrd.img}"""
import contextlib
import fcntl
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/demo"), str(ROOT / "tests/guest")]

import agent_guest  # noqa: E402
import build_image  # noqa: E402

SIZE = 2560 << 20
# For the failover: the smallest QEMU of Debian that starts a PC.
EXTRA = ["nbdkit", "qemu-system-x86", "qemu-utils", "seabios", "passwd"]
# Recovered machines are emulated inside an emulated machine.
MEMORY_MIB = 3072


def dependencies(packages):
    """Names of what the .deb files depend on, Farshore's own apart."""
    names = set()
    for package in packages:
        depends = subprocess.run(["dpkg-deb", "-f", package, "Depends"], check=True, text=True,
                                 capture_output=True).stdout
        names |= {re.sub(r"\s*\(.*", "", one.split("|")[0]).strip() for one in depends.split(",")}
    return sorted(name for name in names if name and not name.startswith("farshore"))


def ensure(packages):
    """The directory with the image."""
    include = [*build_image.PACKAGES, *EXTRA, *dependencies(packages)]
    digest = hashlib.sha256(pathlib.Path(__file__).read_bytes() + pathlib.Path(build_image.__file__).read_bytes()
                            + " ".join(include).encode()).hexdigest()[:12]
    target = build_image.cache_directory() / f"guest-package-{digest}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "guest-package.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "initrd.img").exists():
            build(target, include)
        for old in target.parent.glob("guest-package-????????????"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target


def build(target, include):
    with contextlib.ExitStack() as stack:
        work = pathlib.Path(tempfile.mkdtemp(prefix="guest-build-", dir=target.parent))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        work.chmod(0o755)
        root, stage, out = work / "root", work / "stage", work / "out"
        out.mkdir()
        for name, text in build_image.FILES.items():
            path = stage / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for unit in build_image.MASKED_UNITS:
            link = stage / "etc/systemd/system" / unit
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/dev/null")
        (stage / "etc/systemd/system/default.target").symlink_to("/lib/systemd/system/multi-user.target")
        for folder in [stage, *(p for p in stage.rglob("*") if p.is_dir() and not p.is_symlink())]:
            folder.chmod(0o755)
        (stage / "root").chmod(0o700)
        build_image.run(
            "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(include)}",
            "--aptopt=Acquire::Languages \"none\"", "--aptopt=Acquire::Retries \"3\"",
            "--aptopt=APT::Install-Recommends \"false\"",
            *(f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("doc", "man", "locale", "info")),
            "--essential-hook=mkdir -p \"$1\"/etc/initramfs-tools && "
            f"cp -a {stage}/etc/initramfs-tools/conf.d \"$1\"/etc/initramfs-tools/",
            f"--customize-hook=cp -a {stage}/. \"$1\"/",
            "--customize-hook=chroot \"$1\" update-initramfs -u",
            "--customize-hook=chroot \"$1\" passwd -d root",
            "--customize-hook=rm -rf \"$1\"/var/cache/*",
            "bookworm", root)
        shutil.copy(next(root.glob("boot/vmlinuz-*")), out / "vmlinuz")
        shutil.copy(next(root.glob("boot/initrd.img-*")), out / "initrd.img.new")
        build_image.make_file_system(out / "root.img", SIZE, build_image.ROOT_LABEL, root, "package")
        # Last: what tells that it is whole.
        (out / "initrd.img.new").rename(out / "initrd.img")
        shutil.rmtree(target, ignore_errors=True)
        out.rename(target)


class PackageGuest(agent_guest.guests.SourceGuest):
    """That machine: the root disk, a disk to protect, and a read-only one with packages and steps."""

    DISKS = ("root", "data")
    NETWORK = "user,id=net0,restrict=on"

    def __init__(self, image, directory, accelerator, steps):
        self.image = image
        self.steps = steps
        super().__init__(image, directory, accelerator, MEMORY_MIB)

    def command(self):
        # The kernel given here starts first.
        return [word.removesuffix(",bootindex=0") for word in super().command()] + [
            "-kernel", str(self.image / "vmlinuz"), "-initrd", str(self.image / "initrd.img"),
            "-append", f"root=LABEL={build_image.ROOT_LABEL} {build_image.KERNEL_OPTIONS}",
            "-drive", f"if=none,id=steps,format=raw,readonly=on,file={self.steps}",
            "-device", "virtio-blk-pci,drive=steps,id=disk-steps,serial=steps"]

    def step(self, name, timeout_s):
        """Runs one of the steps; what it said last is part of the error. The shell must be free."""
        after = len(self.serial.lines)
        self.serial.send(f"mkdir -p /steps; mountpoint -q /steps || mount -r LABEL=steps /steps; "
                         f"sh -eu /steps/{name} >/run/{name}.log 2>&1 && echo STEP-DONE || "
                         f"{{ tail -n 12 /run/{name}.log; journalctl -q --no-pager -o cat -n 40 -u 'farshore-*'; "
                         "echo STEP-FAILED; }")
        _, found = self.serial.wait_for(r"^STEP-(DONE|FAILED)", timeout_s, after)
        said = [text for _, text in self.serial.lines[after:]]
        if found[1] == "FAILED":
            raise agent_guest.guests.GuestError(f"step '{name}' failed in the guest:\n  " + "\n  ".join(said))
        return said

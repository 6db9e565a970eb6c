#!/usr/bin/env python3
"""Builds a Debian guest with cloud-init, the QEMU guest agent and an SSH server, for
tests/e2e/guest_addresses_test.py: one raw disk that boots by itself, made as build_image.py makes the demo's,
and cached beside it: ${FARSHORE_CACHE:-~/.cache/farshore}/guest-cloud-HASH/root.img. Prints that directory.

Its network is systemd-networkd's; nothing but cloud-init says what a card gets. Root is logged in on the serial
console."""
import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import tempfile

import build_image

PACKAGES = [*build_image.PACKAGES, "cloud-init", "qemu-guest-agent", "openssh-server", "iproute2"]
SIZE = 1536 * build_image.MIB


def build(target):
    build_image.log("building a Debian guest with cloud-init (a few minutes, cached afterwards)")
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
            "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}",
            "--aptopt=Acquire::Languages \"none\"", "--aptopt=Acquire::Retries \"3\"",
            "--aptopt=APT::Install-Recommends \"false\"",
            *(f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("doc", "man", "locale", "info")),
            "--essential-hook=mkdir -p \"$1\"/etc/initramfs-tools && "
            f"cp -a {stage}/etc/initramfs-tools/conf.d \"$1\"/etc/initramfs-tools/",
            f"--customize-hook=cp -a {stage}/. \"$1\"/",
            "--customize-hook=chroot \"$1\" systemctl enable systemd-networkd",
            "--customize-hook=chroot \"$1\" update-initramfs -u",
            "--customize-hook=chroot \"$1\" passwd -d root",
            "--customize-hook=rm -rf \"$1\"/var/cache/*",
            "bookworm", root)
        boot, core = build_image.make_grub(work, build_image.ROOT_LABEL, f"LABEL={build_image.ROOT_LABEL}")
        shutil.copy(next(root.glob("boot/vmlinuz-*")), out / "vmlinuz")
        image = out / "root.img.new"
        build_image.make_file_system(image, SIZE, build_image.ROOT_LABEL, root, "cloud", build_image.ROOT_OFFSET)
        table = build_image.partition_entry(build_image.ROOT_OFFSET, SIZE - build_image.ROOT_OFFSET) + bytes(48)
        with open(image, "r+b") as disk:
            disk.write(boot[:440] + build_image.DISK_ID.to_bytes(4, "little") + bytes(2) + table + b"\x55\xaa" + core)
        # Last: what tells that it is whole.
        image.rename(out / "root.img")
        shutil.rmtree(target, ignore_errors=True)
        out.rename(target)


def ensure():
    """The directory with the image, built when this recipe has none yet."""
    digest = hashlib.sha256(pathlib.Path(__file__).read_bytes()
                            + pathlib.Path(build_image.__file__).read_bytes()).hexdigest()[:12]
    target = build_image.cache_directory() / f"guest-cloud-{digest}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "guest-cloud.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "root.img").exists():
            if os.geteuid() != 0:
                raise SystemExit("guest image: building it needs root")
            build(target)
        for old in target.parent.glob("guest-cloud-????????????"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target


if __name__ == "__main__":
    print(ensure())

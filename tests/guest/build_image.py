#!/usr/bin/env python3
"""Builds the demo's guest: a real Debian bookworm that boots from its own disk, and PostgreSQL.

Two raw images, as a machine has that deserves the name: `root.img` (MBR, GRUB, ext4 root) and `db.img`
(ext4, the database with data checksums). On the serial console root is logged in by itself; `demo-load`
and `verify-db` are in /usr/local/bin. Needs root, mmdebstrap, e2fsprogs, grub-pc-bin, grub-common.

The result is cached under the hash of this recipe (this file and the two scripts):
    ${FARSHORE_CACHE:-~/.cache/farshore}/guest-HASH/{root.img,db.img,vmlinuz,guest.json}
Prints that directory.

With `layers` it is another guest (guest-layers-HASH): no database, one disk, what volumes, encryption
and mirrors need, and its root on a volume (LVM) in encryption (LUKS), whose key is in the initramfs. All
of it is made without a device mapper here: qemu-img encrypts, and LVM's tools only write what is where.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MIB = 1 << 20
ROOT_SIZE = 1280 * MIB
BOOT_SIZE, SEALED_SIZE, EXTENT = 96 * MIB, 800 * MIB, 4 * MIB
VOLUME_OFFSET = 1 * MIB    # where LVM's data begins on a disk, by default
BOOT_LABEL = "farshore-boot"
DISK_ID = 0x5ea1ed01
DB_SIZE = 512 * MIB
ROOT_OFFSET = 1 * MIB
ROOT_LABEL = "farshore-root"
DB_LABEL = "farshore-db"
ACCOUNTS = 100
OPENING_BALANCE = 1_000_000

PACKAGES = ["linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "kmod"]
# And what a hypervisor asks of a guest: that it runs a program, that it shuts down.
DATABASE_PACKAGES = ["postgresql-15", "qemu-guest-agent", "acpid"]
# xfsprogs has Python with it.
LAYERS_PACKAGES = ["lvm2", "cryptsetup-initramfs", "mdadm", "xfsprogs", "btrfs-progs", "busybox"]
# What a machine of this size and purpose does not start. Everything else is Debian's default.
MASKED_UNITS = [
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "logrotate.timer", "man-db.timer",
    "postgresql.service", "getty@tty1.service", "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service", "systemd-pstore.service", "systemd-binfmt.service",
    "systemd-tmpfiles-clean.timer", "systemd-network-generator.service",
    "systemd-journal-flush.service", "dev-hugepages.mount", "dev-mqueue.mount",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "modprobe@drm.service",
    "modprobe@efi_pstore.service", "modprobe@fuse.service", "sys-fs-fuse-connections.mount",
    "systemd-logind.service", "user@0.service", "user-runtime-dir@0.service", "ldconfig.service",
    "lvm2-monitor.service", "lvm2-lvmpolld.socket", "dm-event.socket", "mdmonitor.service",
    "mdcheck_start.timer", "mdcheck_continue.timer", "mdmonitor-oneshot.timer",
    "xfs_scrub_all.timer",
]
KERNEL_OPTIONS = ("rw console=ttyS0,115200 quiet mitigations=off "
                  "fsck.mode=skip random.trust_cpu=on tsc=reliable no_timer_check "
                  "systemd.show_status=0 rd.udev.log_level=3")

FILES = {
    "etc/hostname": "harbour\n",
    "etc/hosts": "127.0.0.1 localhost harbour\n",
    "etc/fstab": f"LABEL={ROOT_LABEL} / ext4 rw,relatime 0 0\n",
    "etc/initramfs-tools/conf.d/small": "MODULES=list\nCOMPRESS=lz4\nFSTYPE=ext4\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n",
    "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf":
        "[Unit]\nAfter=\nAfter=dev-ttyS0.device\nBindsTo=\n[Service]\nExecStart=\n"
        "ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %I linux\n",
    "etc/systemd/journald.conf.d/small.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=4M\n",
    "root/.profile":
        "export PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PS1='# '\n"
        "stty -echo\nread -r up _ </proc/uptime\necho \"READY $up\"\n",
}

LAYERS_FILES = {
    "etc/fstab": f"/dev/mapper/base-root / ext4 rw,relatime 0 0\nLABEL={BOOT_LABEL} /boot ext4 rw,relatime 0 0\n",
    "etc/crypttab": f"rootseal PARTUUID={DISK_ID:08x}-02 /etc/keys/root.key luks,initramfs\n",
    "etc/keys/root.key": "of a machine that nobody keeps anything in",
    "etc/cryptsetup-initramfs/conf-hook": "KEYFILE_PATTERN=/etc/keys/*.key\n",
    "etc/initramfs-tools/conf.d/small": FILES["etc/initramfs-tools/conf.d/small"] + "UMASK=0077\n",
    "etc/initramfs-tools/modules": FILES["etc/initramfs-tools/modules"]
                                   + "dm_mod\ndm_crypt\nxts\naesni_intel\nsha256_generic\n",
}

DATABASE_FILES = {
    "etc/fstab": FILES["etc/fstab"] + f"LABEL={DB_LABEL} /srv/db ext4 rw,relatime 0 0\n",
    "etc/systemd/system/database.service":
        "[Unit]\nDescription=PostgreSQL on its own disk\nRequiresMountsFor=/srv/db\n"
        "[Service]\nType=notify\nUser=postgres\nRuntimeDirectory=postgresql\n"
        "ExecStart=/usr/lib/postgresql/15/bin/postgres -D /srv/db/pg\nKillMode=mixed\n"
        "KillSignal=SIGINT\nTimeoutSec=300\n[Install]\nWantedBy=multi-user.target\n",
    "etc/acpi/events/power-button": "event=button/power.*\naction=/usr/sbin/poweroff\n",
    "usr/local/bin/farshore-prepare-db": f"""#!/bin/sh
# Runs once, while the image is built: the cluster and its tables.
set -e
bin=/usr/lib/postgresql/15/bin
mkdir -p /srv/db/pg /run/postgresql /var/lib/demo
: >/var/lib/demo/notes
chown -R postgres:postgres /srv/db/pg /run/postgresql
chmod 700 /srv/db/pg
as() {{ setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }}
as $bin/initdb -D /srv/db/pg --data-checksums --auth=trust --encoding=UTF8 --locale=C.UTF-8 >/dev/null
cat >>/srv/db/pg/postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '/run/postgresql'
dynamic_shared_memory_type = mmap
shared_memory_type = mmap
shared_buffers = 64MB
max_connections = 20
max_wal_size = 96MB
min_wal_size = 32MB
checkpoint_timeout = 60s
synchronous_commit = on
fsync = on
jit = off
autovacuum_naptime = 30s
CONF
as $bin/pg_ctl -D /srv/db/pg -w -s -o '-c fsync=off' start
as $bin/psql -X -q -h /run/postgresql postgres -c 'CREATE DATABASE demo'
as $bin/psql -X -q -h /run/postgresql -v ON_ERROR_STOP=1 demo <<SQL
CREATE EXTENSION amcheck;
CREATE TABLE tx(n bigint PRIMARY KEY, at_ms bigint NOT NULL, body text NOT NULL, body_md5 text NOT NULL);
CREATE TABLE account(id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO account SELECT i, {OPENING_BALANCE} FROM generate_series(0, {ACCOUNTS - 1}) i;
SQL
as $bin/pg_ctl -D /srv/db/pg -w -s -m fast stop
""",
}


# ROOT DEVICE EXTENTS. Without a device mapper: nothing is activated, nothing of the volume is written.
MAKE_VOLUME = """
for name in dev proc sys; do mount --bind "/$name" "$1/$name"; done
lvm() {
    verb=$1
    shift
    chroot "$root" "$verb" -qq --config "global { activation=0 } activation { udev_sync=0 udev_rules=0 }
        devices { use_devicesfile=0 filter=[\\"a|^$device\\$|\\", \\"r|.*|\\"] }" "$@"
}
root=$1 device=$2 extents=$3
lvm pvcreate -f "$device"
lvm vgcreate base "$device"
lvm lvcreate -an -Zn -Wn -n root -l "$extents" base
"""


def log(text):
    print(f"guest image: {text}", file=sys.stderr, flush=True)


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        raise SystemExit(f"guest image: {command[0]} failed with {done.returncode}")
    return done.stdout


def recipe_hash():
    digest = hashlib.sha256()
    for name in ("build_image.py", "demo-load", "verify-db"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:12]


def cache_directory():
    default = pathlib.Path.home() / ".cache" / "farshore"
    return pathlib.Path(os.environ.get("FARSHORE_CACHE") or default)


def install_system(root, stage, layers):
    """A fresh Debian with our files laid over it."""
    for name, text in {**FILES, **(LAYERS_FILES if layers else DATABASE_FILES)}.items():
        path = stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in () if layers else ("demo-load", "verify-db"):
        shutil.copy(HERE / name, stage / "usr/local/bin" / name)
    for path in (stage / "usr/local/bin").glob("*"):
        path.chmod(0o755)
    for unit in MASKED_UNITS:
        link = stage / "etc/systemd/system" / unit
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("/dev/null")
    wants = stage / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    if not layers:
        (wants / "database.service").symlink_to("/etc/systemd/system/database.service")
    (stage / "etc/systemd/system/default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for folder in [stage, *(p for p in stage.rglob("*") if p.is_dir() and not p.is_symlink())]:
        folder.chmod(0o755)
    (stage / "root").chmod(0o700)
    packages = PACKAGES + (LAYERS_PACKAGES if layers else DATABASE_PACKAGES)
    run("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}",
        "--aptopt=Acquire::Languages \"none\"", "--aptopt=Acquire::Retries \"3\"",
        *(f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("doc", "man", "locale", "info")),
        "--essential-hook=mkdir -p \"$1\"/etc/postgresql-common && "
        "echo 'create_main_cluster = false' >\"$1\"/etc/postgresql-common/createcluster.conf",
        # So that the kernel's package makes no large initrd first.
        f"--essential-hook=mkdir -p \"$1\"/etc/initramfs-tools && "
        f"cp -a {stage}/etc/initramfs-tools/conf.d \"$1\"/etc/initramfs-tools/",
        f"--customize-hook=cp -a {stage}/. \"$1\"/",
        "--customize-hook=chroot \"$1\" update-initramfs -u",
        "--customize-hook=chroot \"$1\" passwd -d root",
        "--customize-hook=chroot \"$1\" systemctl set-default multi-user.target",
        *(() if layers else ("--customize-hook=chroot \"$1\" farshore-prepare-db",)),
        # PostgreSQL's JIT compiler is off: 110 MB that nothing loads.
        "--customize-hook=rm -rf \"$1\"/usr/lib/x86_64-linux-gnu/libLLVM* \"$1\"/var/cache/* "
        "\"$1\"/usr/lib/postgresql/15/lib/bitcode",
        "bookworm", root)


def make_grub(work, label, root):
    """boot.img for sector 0, and core.img with what it is to boot written into it."""
    config = work / "embedded.cfg"
    config.write_text(f"search --no-floppy --label {label} --set root\n"
                      f"linux /vmlinuz root={root} {KERNEL_OPTIONS}\ninitrd /initrd.img\nboot\n")
    core = work / "core.img"
    run("grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "/boot/grub", "-c", config,
        "biosdisk", "part_msdos", "ext2", "search", "search_label", "linux", "boot")
    boot = pathlib.Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()
    core = core.read_bytes()
    if len(boot) != 512 or 512 + len(core) > ROOT_OFFSET:
        raise SystemExit("guest image: GRUB does not fit in front of the first partition")
    return boot, core


def partition_entry(first_byte, size_bytes):
    """One bootable Linux partition of an MBR; the CHS fields say 'use LBA'."""
    chs = b"\xfe\xff\xff"
    lba = (first_byte // 512).to_bytes(4, "little") + (size_bytes // 512).to_bytes(4, "little")
    return b"\x80" + chs + b"\x83" + chs + lba


def make_file_system(image, size_bytes, label, tree, uuid_seed, offset=0):
    seed = hashlib.sha256(uuid_seed.encode()).hexdigest()
    uuid = f"{seed[:8]}-{seed[8:12]}-4{seed[13:16]}-8{seed[17:20]}-{seed[20:32]}"
    with open(image, "wb") as file:
        file.truncate(size_bytes)
    run("mkfs.ext4", "-q", "-F", "-L", label, "-U", uuid, "-m", "1", "-b", "4096",
        "-E", f"offset={offset},lazy_itable_init=0,lazy_journal_init=0",
        "-O", "^metadata_csum_seed,^orphan_file",
        "-d", tree, image, f"{(size_bytes - offset) // 1024}k")


def make_sealed_root(work, root):
    """The root as a volume in a volume group in LUKS: that image."""
    key = root / "etc/keys/root.key"
    volume = work / "volume.img"
    # With room for LUKS's header.
    extents = (SEALED_SIZE - VOLUME_OFFSET) // EXTENT - 2
    make_file_system(volume, VOLUME_OFFSET + extents * EXTENT, ROOT_LABEL, root, "root", VOLUME_OFFSET)
    device = run("losetup", "-f", "--show", volume).strip()
    try:
        # In a mount namespace of its own: whatever happens, none of the mounts is left in the tree.
        run("unshare", "--mount", "sh", "-ec", MAKE_VOLUME, "sh", root, device, extents)
    finally:
        run("losetup", "-d", device)
    sealed = work / "sealed.img"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "luks", "--object", f"secret,id=key,file={key}",
               "-o", "key-secret=key,iter-time=20", str(volume), str(sealed)]
    for _ in range(20):
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        # It times its key derivation, and a fast processor takes no tick for that.
        if "accurate CPU usage" not in done.stderr:
            break
    if done.returncode != 0:
        raise SystemExit(f"guest image: {done.stderr}")
    volume.unlink()
    return sealed


def make_layered_disk(work, root, image):
    """A partition for /boot, which GRUB reads, and one with the sealed root."""
    start = ROOT_OFFSET + BOOT_SIZE
    boot_tree = work / "boot"
    (root / "boot").rename(boot_tree)
    (root / "boot").mkdir()
    for name in ("vmlinuz", "initrd.img"):
        (boot_tree / name).symlink_to((root / name).readlink().name)
    sealed = make_sealed_root(work, root)
    if sealed.stat().st_size > SEALED_SIZE:
        raise SystemExit("guest image: the sealed root is larger than its partition")
    make_file_system(image, start, BOOT_LABEL, boot_tree, "boot", ROOT_OFFSET)
    with open(image, "r+b") as disk, open(sealed, "rb") as source:
        disk.truncate(start + SEALED_SIZE)
        disk.seek(start)
        shutil.copyfileobj(source, disk, MIB)
    return partition_entry(ROOT_OFFSET, BOOT_SIZE) + partition_entry(start, SEALED_SIZE) + bytes(32)


def build(target, layers):
    started = time.monotonic()
    log(f"building a Debian guest with {'volumes' if layers else 'PostgreSQL'} "
        "(a few minutes, cached afterwards)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # Beside the cache, so that the finished directory can be renamed into place.
        work = pathlib.Path(tempfile.mkdtemp(prefix="guest-build-", dir=target.parent))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        work.chmod(0o755)
        root, stage, out = work / "root", work / "stage", work / "out"
        stage.mkdir()
        out.mkdir()
        install_system(root, stage, layers)
        log(f"system installed after {time.monotonic() - started:.0f} s")
        for name in ("vmlinuz", "initrd.img"):
            if not (root / name).exists():
                raise SystemExit(f"guest image: the system has no /{name}")
        boot, core = (make_grub(work, BOOT_LABEL, "/dev/mapper/base-root") if layers
                      else make_grub(work, ROOT_LABEL, f"LABEL={ROOT_LABEL}"))
        if not layers:
            database = work / "db"
            (root / "srv/db").rename(database)
            (root / "srv/db").mkdir()
            make_file_system(out / "db.img", DB_SIZE, DB_LABEL, database, "db")
        # Alone too: tests/demo/guest.py tries with it whether KVM works.
        shutil.copy(next(root.glob("boot/vmlinuz-*")), out / "vmlinuz")
        if layers:
            table = make_layered_disk(work, root, out / "root.img")
        else:
            make_file_system(out / "root.img", ROOT_SIZE, ROOT_LABEL, root, "root", ROOT_OFFSET)
            table = partition_entry(ROOT_OFFSET, ROOT_SIZE - ROOT_OFFSET) + bytes(48)
        with open(out / "root.img", "r+b") as image:
            image.write(boot[:440] + DISK_ID.to_bytes(4, "little") + bytes(2) + table + b"\x55\xaa" + core)
        (out / "guest.json").write_text(json.dumps({
            "accounts": ACCOUNTS, "balance": ACCOUNTS * OPENING_BALANCE,
            "root_offset_bytes": ROOT_OFFSET}) + "\n")
        out.rename(target)
    log(f"done after {time.monotonic() - started:.0f} s: {target.name}")


def ensure(layers=False):
    """The directory with the images, built when this recipe has none yet."""
    prefix = "guest-layers-" if layers else "guest-"
    target = cache_directory() / f"{prefix}{recipe_hash()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "guest.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "guest.json").exists():
            if os.geteuid() != 0:
                raise SystemExit("guest image: building it needs root")
            build(target, layers)
        for old in target.parent.glob(f"{prefix}????????????"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target


if __name__ == "__main__":
    print(ensure(layers=sys.argv[1:] == ["layers"]))

#!/usr/bin/env python3
"""Builds the demo's guest: a real Debian bookworm that boots from its own disk, and PostgreSQL.

Two raw images, as a machine has that deserves the name: `root.img` (MBR, GRUB, ext4 root) and `db.img`
(ext4, the database with data checksums). On the serial console root is logged in by itself; `demo-load`
and `verify-db` are in /usr/local/bin. Needs root, mmdebstrap, e2fsprogs, grub-pc-bin, grub-common.

The result is cached under the hash of this recipe (this file and the two scripts):
    ${FARSHORE_CACHE:-~/.cache/farshore}/guest-HASH/{root.img,db.img,vmlinuz,guest.json}
Prints that directory.
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
DB_SIZE = 512 * MIB
ROOT_OFFSET = 1 * MIB
ROOT_LABEL = "farshore-root"
DB_LABEL = "farshore-db"
ACCOUNTS = 100
OPENING_BALANCE = 1_000_000

PACKAGES = [
    "linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "kmod", "postgresql-15",
]
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
]
KERNEL_OPTIONS = (f"root=LABEL={ROOT_LABEL} rw console=ttyS0,115200 quiet mitigations=off "
                  "fsck.mode=skip random.trust_cpu=on tsc=reliable no_timer_check "
                  "systemd.show_status=0 rd.udev.log_level=3")

FILES = {
    "etc/hostname": "harbour\n",
    "etc/hosts": "127.0.0.1 localhost harbour\n",
    "etc/fstab": f"LABEL={ROOT_LABEL} / ext4 rw,relatime 0 0\n"
                 f"LABEL={DB_LABEL} /srv/db ext4 rw,relatime 0 0\n",
    "etc/initramfs-tools/conf.d/small": "MODULES=list\nCOMPRESS=lz4\nFSTYPE=ext4\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n",
    "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf":
        "[Unit]\nAfter=\nAfter=dev-ttyS0.device\nBindsTo=\n[Service]\nExecStart=\n"
        "ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %I linux\n",
    "etc/systemd/system/database.service":
        "[Unit]\nDescription=PostgreSQL on its own disk\nRequiresMountsFor=/srv/db\n"
        "[Service]\nType=notify\nUser=postgres\nRuntimeDirectory=postgresql\n"
        "ExecStart=/usr/lib/postgresql/15/bin/postgres -D /srv/db/pg\nKillMode=mixed\n"
        "KillSignal=SIGINT\nTimeoutSec=300\n[Install]\nWantedBy=multi-user.target\n",
    "etc/systemd/journald.conf.d/small.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=4M\n",
    "root/.profile":
        "export PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PS1='# '\n"
        "stty -echo\nread -r up _ </proc/uptime\necho \"READY $up\"\n",
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


def install_system(root, stage):
    """A fresh Debian with our files laid over it."""
    for name, text in FILES.items():
        path = stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("demo-load", "verify-db"):
        shutil.copy(HERE / name, stage / "usr/local/bin" / name)
    for path in (stage / "usr/local/bin").iterdir():
        path.chmod(0o755)
    for unit in MASKED_UNITS:
        link = stage / "etc/systemd/system" / unit
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("/dev/null")
    wants = stage / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "database.service").symlink_to("/etc/systemd/system/database.service")
    (stage / "etc/systemd/system/default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for folder in [stage, *(p for p in stage.rglob("*") if p.is_dir() and not p.is_symlink())]:
        folder.chmod(0o755)
    (stage / "root").chmod(0o700)
    run("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}",
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
        "--customize-hook=chroot \"$1\" farshore-prepare-db",
        # PostgreSQL's JIT compiler is off: 110 MB that nothing loads.
        "--customize-hook=rm -rf \"$1\"/usr/lib/x86_64-linux-gnu/libLLVM* \"$1\"/var/cache/* "
        "\"$1\"/usr/lib/postgresql/15/lib/bitcode",
        "bookworm", root)


def make_grub(work):
    """boot.img for sector 0, and core.img with what it is to boot written into it."""
    config = work / "embedded.cfg"
    config.write_text(f"search --no-floppy --label {ROOT_LABEL} --set root\n"
                      f"linux /vmlinuz {KERNEL_OPTIONS}\ninitrd /initrd.img\nboot\n")
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


def build(target):
    started = time.monotonic()
    log("building a Debian guest with PostgreSQL (a few minutes, cached afterwards)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # Beside the cache, so that the finished directory can be renamed into place.
        work = pathlib.Path(tempfile.mkdtemp(prefix="guest-build-", dir=target.parent))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        work.chmod(0o755)
        root, stage, out = work / "root", work / "stage", work / "out"
        stage.mkdir()
        out.mkdir()
        install_system(root, stage)
        log(f"system installed after {time.monotonic() - started:.0f} s")
        for name in ("vmlinuz", "initrd.img"):
            if not (root / name).exists():
                raise SystemExit(f"guest image: the system has no /{name}")
        boot, core = make_grub(work)
        database = work / "db"
        (root / "srv/db").rename(database)
        (root / "srv/db").mkdir()
        # Alone too: tests/demo/guest.py tries with it whether KVM works.
        shutil.copy(next(root.glob("boot/vmlinuz-*")), out / "vmlinuz")
        make_file_system(out / "db.img", DB_SIZE, DB_LABEL, database, "db")
        make_file_system(out / "root.img", ROOT_SIZE, ROOT_LABEL, root, "root", ROOT_OFFSET)
        with open(out / "root.img", "r+b") as image:
            table = partition_entry(ROOT_OFFSET, ROOT_SIZE - ROOT_OFFSET) + bytes(48)
            image.write(boot[:446] + table + b"\x55\xaa" + core)
        (out / "guest.json").write_text(json.dumps({
            "accounts": ACCOUNTS, "balance": ACCOUNTS * OPENING_BALANCE,
            "root_offset_bytes": ROOT_OFFSET}) + "\n")
        out.rename(target)
    log(f"done after {time.monotonic() - started:.0f} s: {target.name}")


def ensure():
    """The directory with the images, built when this recipe has none yet."""
    target = cache_directory() / f"guest-{recipe_hash()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "guest.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "guest.json").exists():
            if os.geteuid() != 0:
                raise SystemExit("guest image: building it needs root")
            build(target)
        for old in target.parent.glob("guest-????????????"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target


if __name__ == "__main__":
    print(ensure())

"""The shop of the demo's circle: a machine with a database and a machine with the application that uses it.

Both are copies of the demo's image. What makes them what they are is laid into their root disks: names,
static addresses, and who may reach the database. Their network is a segment that leads nowhere else."""
import pathlib
import subprocess
import tempfile

import guest as guests

READY_S, REPORT_S = 1200, 900    # emulated, beside other machines
SEGMENT_GROUP = "239.77.83.1"
WANTS = "/etc/systemd/system/multi-user.target.wants"

WAIT_FOR_DB = """#!/bin/sh
# wait-for-db HOST: until the database there takes questions.
until /usr/lib/postgresql/15/bin/pg_isready -h "$1"; do sleep 1; done
"""


def lay(disk, offset_bytes, files, links, gone=()):
    """Puts files (path -> text) and links (path -> target) into an ext4 on a disk, and removes others.
    Nothing is mounted."""
    where = f"{disk}?offset={offset_bytes}"

    def ask(question):
        return subprocess.run(["debugfs", "-R", question, where], check=True, capture_output=True, text=True).stdout

    def is_there(path):
        return "Inode:" in ask(f"stat {path}")

    with tempfile.TemporaryDirectory(prefix="farshore-lay-") as directory:
        # debugfs makes a directory that is there a second time, and loses it.
        parents = {str(parent): None for path in [*files, *links]
                   for parent in reversed(pathlib.PurePosixPath(path).parents)}
        script = [f"mkdir {parent}" for parent in parents if not is_there(parent)]
        script += [f"rm {path}" for path in [*files, *gone] if is_there(path)]
        for number, (path, text) in enumerate(files.items()):
            source = pathlib.Path(directory) / str(number)
            source.write_text(text)
            source.chmod(0o755 if text.startswith("#!") else 0o644)
            script.append(f"write {source} {path}")
        script += [f"symlink {path} {target}" for path, target in links.items()]
        commands = pathlib.Path(directory) / "commands"
        commands.write_text("\n".join(script) + "\n")
        subprocess.run(["debugfs", "-w", "-f", str(commands), where], check=True, capture_output=True)
    # It goes on after what failed, so look.
    wrong = [path for path, text in files.items() if ask(f"cat {path}") != text]
    checked = subprocess.run(["e2fsck", "-fn", where], check=False, capture_output=True, text=True)
    if wrong or checked.returncode != 0:
        raise guests.GuestError(f"files could not be laid into {disk}: {wrong} {checked.stdout[-500:]}")


class ShopGuest(guests.SourceGuest):
    """One of the two at its home."""

    CPUS = 1
    ADDRESS = ""
    FILES, GONE = {}, ()

    def __init__(self, image_directory, directory, accelerator, segment_port, root_offset_bytes):
        self._root_offset_bytes = root_offset_bytes
        self.NETWORK = f"socket,id=net0,mcast={SEGMENT_GROUP}:{segment_port},localaddr=127.0.0.1"
        super().__init__(image_directory, directory, accelerator, memory_mib=448)

    def lay_out(self, disk):
        if disk.stem != "root":
            return
        lay(disk, self._root_offset_bytes, {
            "/etc/hostname": f"{self.NAME}\n",
            "/etc/hosts": f"127.0.0.1 localhost\n{Database.ADDRESS} db\n{Application.ADDRESS} app\n",
            "/etc/systemd/network/10-shop.network":
                f"[Match]\nMACAddress={self.MAC}\n[Network]\nAddress={self.ADDRESS}/24\n"
                "LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
            # On a busy host an emulated machine takes minutes until its disks are there.
            "/etc/systemd/system.conf.d/patient.conf":
                "[Manager]\nDefaultDeviceTimeoutSec=1200\nDefaultTimeoutStartSec=1200\nDefaultTimeoutStopSec=600\n",
            "/usr/local/bin/wait-for-db": WAIT_FOR_DB,
            **self.FILES,
        }, {f"{WANTS}/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service"}, self.GONE)


class Database(ShopGuest):
    NAME, MAC, ADDRESS = "db", "52:54:00:fa:55:11", "10.77.0.10"
    FILES = {
        "/etc/shop/pg_hba.conf": "local all all trust\nhost all all 10.77.0.0/24 trust\n",
        "/etc/systemd/system/database.service.d/shop.conf":
            "[Service]\nExecStart=\nExecStart=/usr/lib/postgresql/15/bin/postgres -D /srv/db/pg "
            "-c listen_addresses=* -c hba_file=/etc/shop/pg_hba.conf\n",
    }


class Application(ShopGuest):
    NAME, MAC, ADDRESS = "app", "52:54:00:fa:55:12", "10.77.0.20"
    DISKS = ("root",)
    FILES = {"/etc/fstab": "LABEL=farshore-root / ext4 rw,relatime 0 0\n"}
    GONE = (f"{WANTS}/database.service",)


class Shop:
    """The two machines at one place, by their serial lines."""

    def __init__(self, database, application):
        self.db, self.app = database, application

    def wait_ready(self):
        for line in (self.db, self.app):
            line.wait_for(r"^READY ", READY_S)

    def open(self, per_second):
        """The application commits transactions, over the network, until close(); returns the number
        of the newest that it found in the database."""
        after = len(self.app.lines)
        self.app.send(f"demo-load {per_second} {Database.ADDRESS}")
        _, found = self.app.wait_for(r"^LOAD-STARTED (\d+)", REPORT_S, after)
        return int(found[1])

    def close(self):
        self.app.stop_load(300)

    def broken(self):
        return any(text.startswith("LOAD-FAILED") for _, text in self.app.lines)

    def let_go(self):
        """Hears and says nothing more."""
        for line in (self.db, self.app):
            line.close()

    def examine(self, facts):
        """(number of transactions, what is wrong in words): both machines, each by itself and together.
        The application is closed."""
        database = guests.verify(self.db, REPORT_S)
        wrong = [f"db: {text}" for text in guests.integrity_errors(database, facts, notes=False)]
        application = guests.verify(self.app, REPORT_S, Database.ADDRESS)
        wrong += [f"app: {text}" for text in guests.integrity_errors(application, facts, mounts=1)]
        if not wrong:
            count, done = database["max"], application["done_last"]
            if application["max"] != count:
                wrong.append(f"the application sees {application['max']} transactions, the database has {count}")
            if not count - 1 <= done <= count:
                wrong.append(f"the application was told of {done} transactions, the database has {count}")
        return database.get("max", 0), wrong

#!/usr/bin/env python3
"""End to end: an application-consistent point of a PostgreSQL under load, on a disk that is captured from
inside, with a script of its owner; and that point, started elsewhere."""
import re
import subprocess
import sys
import threading

from devices import MIB, DeviceTest, run
from support import ROOT, FarshoreError

import support

sys.path.append(str(ROOT / "tests/services"))

from postgres import DATABASE, Postgres  # noqa: E402

PRE = """#!/bin/sh
set -e
psql="psql -XqAt -v ON_ERROR_STOP=1 -h {socket} -U {user} -d {database}"
$psql -c CHECKPOINT
$psql -c 'SELECT redo_lsn FROM pg_control_checkpoint()' > {checkpoint}
$psql -c 'SELECT count(*) FROM done' > {rows}
"""


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


class ConsistentDatabase(DeviceTest):
    def setUp(self):
        super().setUp()
        self.mount = self.work / "mount"
        self.mount.mkdir()
        self.device = self.make_disk(512 * MIB)
        run("mkfs.ext4", "-q", self.device)
        run("mount", self.device, self.mount)
        self.addCleanup(subprocess.run, ["fsfreeze", "--unfreeze", self.mount], check=False,
                        stderr=subprocess.DEVNULL)
        self.work.chmod(0o755)    # the server's user goes through it
        self.ended = threading.Event()
        self.error = None

    def write(self, server):
        try:
            while not self.ended.is_set():
                server.psql("INSERT INTO done SELECT n, repeat('x', 200) FROM generate_series(1, 50) AS n",
                            DATABASE)
        except RuntimeError as error:
            self.error = error

    def start_elsewhere(self, label):
        """The database on a copy of the disk at the point; what its log says."""
        image = self.work / "point.img"
        image.write_bytes(self.read_point("inside", label, 0))
        self.assertNotIn("needs_recovery", run("dumpe2fs", "-h", image))
        place = self.work / "recovered"
        place.mkdir(exist_ok=True)
        device = run("losetup", "-f", "--show", image).strip()
        self.loops.append(device)
        run("mount", device, place)
        try:
            server = Postgres(place / "pg", durable=True)
            (server.directory / "log").unlink(missing_ok=True)
            # They name the process of the server that runs beside this one.
            for lock in (server.data / "postmaster.pid", server.directory / ".s.PGSQL.5432.lock"):
                lock.unlink(missing_ok=True)
            server.start()
            try:
                return (server.directory / "log").read_text(), int(server.psql("SELECT count(*) FROM done"))
            finally:
                server.stop()
        finally:
            run("umount", place)
            run("losetup", "-d", device)

    def test_a_database_starts_behind_the_checkpoint_of_the_script(self):
        """Breaks when the script does not run before the point, the point is not the database's state
        behind it, or what was committed before is missing; or when a script that hangs stops the database."""
        server = Postgres(self.mount / "pg", durable=True)
        self.addCleanup(server.stop)
        server.start()
        server.psql("CREATE TABLE done (n bigint, filler text)")
        self.farshore.start_up()
        self.protect("inside", self.device)
        self.wait_state("inside", "protected")
        load = threading.Thread(target=self.write, args=(server,))
        load.start()
        self.addCleanup(load.join)
        self.addCleanup(self.ended.set)
        scripts = self.farshore.data / "agent/scripts/inside"
        scripts.mkdir(parents=True)
        pre = scripts / "pre"
        checkpoint, rows = self.work / "checkpoint", self.work / "rows"
        pre.write_text(PRE.format(socket=server.directory, user=server.user, database=DATABASE,
                                  checkpoint=checkpoint, rows=rows))
        pre.chmod(0o700)
        for number in range(2):
            self.farshore.call("point", "inside", "--bookmark", f"rest-{number}", "--consistent")
            log, found = self.start_elsewhere(f"rest-{number}")
            begins = re.search(r"redo starts at ([0-9A-F]+/[0-9A-F]+)", log)
            if begins:    # else nothing was written behind the checkpoint
                self.assertGreaterEqual(lsn(begins[1]), lsn(checkpoint.read_text().strip()), log)
            self.assertGreaterEqual(found, int(rows.read_text()), log)
            self.assertNotRegex(log, "PANIC|invalid page|could not read block")
        pre.write_text("#!/bin/sh\nexec sleep 1000\n")
        before = int(server.psql("SELECT count(*) FROM done"))
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("point", "inside", "--bookmark", "never", "--consistent", "--timeout", 60)
        self.assertEqual("timeout", error.exception.code)
        self.assertGreater(int(server.psql("SELECT count(*) FROM done")), before)
        self.assertIsNone(self.error)


if __name__ == "__main__":
    support.main()

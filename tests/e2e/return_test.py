#!/usr/bin/env python3
"""End to end, the way home: failed over, changed there, reprotected, failed back, protected again."""
import contextlib
import pathlib
import sqlite3

import support
from farshore import in_document
from support import BOOT_SECTOR, EndToEnd, FarshoreError, Model, NbdClient, first_difference, seeded

MIB = 1 << 20
WRITTEN_SECTOR = 9


class RunsElsewhere(EndToEnd):
    """Machines that boot at the recovery site, and what they are there."""

    def boot_model(self, rng, sizes=(16 * MIB, 4 * MIB + 512)):
        """Disks of a machine that boots, fills one sector with W, says DONE, and halts."""
        model = Model(sizes, rng)
        boot = bytearray(BOOT_SECTOR.read_bytes())
        boot[0x1c4:0x1c8] = WRITTEN_SECTOR.to_bytes(4, "little")
        model.disks[0][:512] = boot
        return model

    def protect(self, model, name="web"):
        paths = model.make_files(self.work)
        arguments = [word for path in paths for word in ("--disk", path)]
        self.farshore.call("protect", name, *arguments, "--point-interval", 2)
        self.wait_state(name, "protected")
        return paths

    def fail_over(self, *options, name="web"):
        """Its machine has booted and written; the NBD clients that see its disks."""
        job = self.farshore.call("failover", "start", name, *options)
        self.assertEqual("succeeded", job["state"], job)
        log = pathlib.Path(in_document([job], "serial_log"))
        self.farshore.wait_for("the machine has booted", lambda: b"DONE" in log.read_bytes(), 60)
        return in_document([job], "nbd_socket")

    def machine_wrote(self, model):
        model.disks[0][WRITTEN_SECTOR * 512:(WRITTEN_SECTOR + 1) * 512] = b"W" * 512

    def clients_at(self, socket, count):
        clients = [NbdClient(socket, str(disk)) for disk in range(count)]
        for client in clients:
            self.addCleanup(client.close)
        return clients

    def steps(self, model, clients, rng, count):
        for _ in range(count):
            # What boots, and what it wrote, stay.
            before = bytes(model.disks[0][:(WRITTEN_SECTOR + 1) * 512])
            model.random_step(clients, rng)
            if bytes(model.disks[0][:len(before)]) != before:
                clients[0].write(0, before)
                model.disks[0][:len(before)] = before

    def assert_home(self, paths, model):
        for path, disk in zip(paths, model.disks):
            self.assertEqual("equal", first_difference(path.read_bytes(), bytes(disk)), path)

    def succeed(self, *words):
        job = self.farshore.call(*words)
        self.assertEqual("succeeded", job["state"], job)
        return job


class Return(RunsElsewhere):
    def test_the_whole_circle_twice(self):
        """Breaks when anything that the machine wrote at either site is lost, mixed with what the
        other site wrote after it was left, or when a way home is no way back."""
        rng = seeded()
        self.farshore.start_up()
        model = self.boot_model(rng)
        paths = self.protect(model)
        for _ in range(2):
            home = self.open_disks("web")
            self.steps(model, home, rng, 20)
            self.farshore.call("point", "web", "--bookmark", "left-home")
            socket = self.fail_over()
            self.machine_wrote(model)
            # The site was not dead after all: what it still writes must not come back.
            for client in home:
                client.write(64 << 10, rng.randbytes(200_000))
                client.close()
            self.farshore.wait_for("it is told", lambda: "split-brain" in self.troubles(), 60)
            self.succeed("failover", "commit", "web")
            self.succeed("reprotect", "web")
            item = self.wait_state("web", "reverse-protected")
            away = self.clients_at(socket, 2)
            self.steps(model, away, rng, 30)
            point = self.farshore.call("point", "web", "--bookmark", "away")["sequence"]
            self.assert_point("web", point, model.copy())
            self.steps(model, away, rng, 10)
            for client in away:
                client.close()
            self.succeed("failback", "start", "web", "--power-off", "--shut-down-timeout", "1")
            self.assert_home(paths, model)
            item = self.farshore.call("item", "web")
            self.assertEqual("failed-back", item["state"])
            # It runs at home before that is committed.
            home = self.open_disks("web")
            self.steps(model, home, rng, 10)
            self.succeed("failback", "commit", "web")
            item = self.wait_state("web", "protected")
            self.assertEqual("in-path", item["mode"])
            self.assertNotIn("way_home", item)
            self.assertEqual([], self.farshore.call("failover", "list", "web")["failovers"])
            self.steps(model, home, rng, 10)
            point = self.farshore.call("point", "web", "--bookmark", "home")["sequence"]
            self.assert_point("web", point, model.copy())
            for client in home:
                client.close()
        # Every point of every leg is still there.
        self.assertGreaterEqual(len(self.farshore.call("points", "web", "--kind", "bookmark")["points"]), 6)


    def home_of(self, name="web"):
        return self.farshore.call("item", name).get("way_home", {}).get("home", {})

    def troubles(self, name="web"):
        return [trouble["code"] for trouble in self.farshore.call("item", name)["troubles"]]

    def refused(self, code, *words):
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call(*words)
        self.assertEqual(code, refused.exception.code, words)

    def test_planned_and_every_step_back(self):
        """Breaks when a planned failover loses a write, when a step that is taken back leaves anything
        of it behind, or when what is known of the home's disks is read all the same."""
        rng = seeded()
        self.farshore.start_up()
        model = self.boot_model(rng)
        paths = self.protect(model)
        home = self.open_disks("web")
        self.steps(model, home, rng, 30)
        self.refused("invalid-argument", "failover", "start", "web", "--planned", "--point", "latest-processed")
        self.fail_over("--planned")
        self.machine_wrote(model)
        with self.assertRaises((OSError, ConnectionError)):
            home[0].read(0, 512)
            home[0].read(0, 512)
        self.refused("wrong-state", "reprotect", "web")
        # Given up: the source has its disks again, without what the other machine wrote.
        self.succeed("failover", "cancel", "web")
        self.wait_state("web", "protected")
        self.assertEqual([], self.farshore.call("failover", "list", "web")["failovers"])
        home = self.open_disks("web")
        sector = home[0].read(WRITTEN_SECTOR * 512, 512)
        model.disks[0][WRITTEN_SECTOR * 512:(WRITTEN_SECTOR + 1) * 512] = sector
        self.assertNotEqual(b"W" * 512, sector)
        self.steps(model, home, rng, 10)
        point = self.farshore.call("point", "web", "--bookmark", "back")["sequence"]
        self.assert_point("web", point, model.copy())

        # For good. All that the source wrote is there, and the home's disks are known to be that.
        socket = self.fail_over("--planned")
        self.machine_wrote(model)
        self.refused("wrong-state", "failback", "start", "web")
        self.succeed("failover", "commit", "web")
        self.refused("wrong-state", "failover", "cancel", "web")
        self.succeed("reprotect", "web")
        self.assertEqual(0, self.home_of()["total_bytes"], "the home was compared")
        self.assertLessEqual(self.home_of()["written_bytes"], 2 * (64 << 10))
        self.succeed("reprotect", "web", "--cancel")
        self.assertEqual("committed", self.farshore.call("item", "web")["state"])
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 10)
        for client in away:
            client.close()

        # To another place: first to disks of something else, then to none.
        elsewhere = self.work / "elsewhere"
        elsewhere.mkdir()
        others = [elsewhere / f"disk{number}.img" for number in range(2)]
        for path, disk in zip(others, model.disks):
            path.write_bytes(rng.randbytes(len(disk)))
        words = [word for path in others for word in ("--disk", path)]
        self.farshore.call("reprotect", "web", *words, "--no-wait")
        self.farshore.wait_for("it is held", lambda: "return-held" in self.troubles(), 60)
        self.assertNotEqual(bytes(model.disks[1]), others[1].read_bytes())
        self.succeed("reprotect", "web", "--cancel")
        for path in others:
            path.unlink()
        others[1].write_bytes(bytes(512))
        self.farshore.call("reprotect", "web", *words, "--no-wait")
        self.farshore.wait_for("it is told", lambda: "disk-changed" in self.troubles(), 60)
        others[1].unlink()
        self.wait_state("web", "reverse-protected")
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 10)

        # A machine that ignores its power button runs on.
        with self.assertRaises(FarshoreError) as late:
            self.farshore.call("failback", "start", "web", "--shut-down-timeout", "1")
        self.assertIn('"code":"timeout"', str(late.exception))
        self.assertEqual("reverse-protected", self.farshore.call("item", "web")["state"])
        self.steps(model, away, rng, 10)
        for client in away:
            client.close()
        at_shutdown = model.copy()
        self.succeed("failback", "start", "web", "--power-off", "--shut-down-timeout", "1")
        self.assert_home(others, model)
        home = self.open_disks("web")
        home[1].write(0, b"only at home")
        home[1].close()
        # And not home after all: as it was shut down.
        self.succeed("failback", "cancel", "web")
        self.wait_state("web", "reverse-protected")
        point = self.farshore.call("point", "web", "--bookmark", "away-again")["sequence"]
        self.assert_point("web", point, at_shutdown)
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 10)
        for client in away:
            client.close()
        self.succeed("failback", "start", "web", "--power-off", "--shut-down-timeout", "1")
        self.assert_home(others, model)
        self.succeed("failback", "commit", "web")
        item = self.wait_state("web", "protected")
        self.assertEqual([str(path) for path in others], [disk["path"] for disk in item["disks"]])

    def test_killed_on_the_way(self):
        """Breaks when a vault, an agent or an appliance that is killed in the middle of a way home
        forgets it, repeats it wrongly, or starts a machine twice."""
        rng = seeded()
        self.farshore.start_up()
        model = self.boot_model(rng)
        paths = self.protect(model)
        socket = self.fail_over()
        self.machine_wrote(model)
        self.succeed("failover", "commit", "web")

        def killed(done, *words):
            self.farshore.call(*words, "--no-wait")
            for _ in range(3):
                self.farshore.kill_servers("up")
                self.farshore.start_up()
            self.wait_state("web", done)

        killed("reverse-protected", "reprotect", "web")
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 20)
        for client in away:
            client.close()
        self.assertEqual(1, len(self.farshore.call("failover", "list", "web")["failovers"]))
        killed("failed-back", "failback", "start", "web", "--power-off", "--shut-down-timeout", "1")
        self.assert_home(paths, model)
        killed("protected", "failback", "commit", "web")
        self.assertEqual([], self.farshore.call("failover", "list", "web")["failovers"])
        home = self.open_disks("web")
        self.steps(model, home, rng, 10)
        point = self.farshore.call("point", "web", "--bookmark", "home")["sequence"]
        self.assert_point("web", point, model.copy())

    def add_job(self, kind, node=""):
        """An open job, as a vault that died would have left it: of the newest reprotection's input."""
        with contextlib.closing(sqlite3.connect(self.farshore.data / "vault/farshore.db")) as database:
            columns = [row[1] for row in database.execute("PRAGMA table_info(jobs)") if row[1] != "id"]
            values = {"kind": "?", "state": "'queued'", "node": "?", "result": "''", "error_code": "''",
                      "started_us": "0", "ended_us": "0"}
            row = database.execute(
                f"INSERT INTO jobs ({', '.join(columns)}) SELECT "
                f"{', '.join(values.get(column, column) for column in columns)} FROM jobs "
                "WHERE kind = 'reprotect' ORDER BY id DESC LIMIT 1",
                [{"kind": kind, "node": node}[column] for column in columns if column in ("kind", "node")])
            database.commit()
            return row.lastrowid

    def ended(self, job):
        return self.farshore.wait_for(
            f"job {job} has ended",
            lambda: (seen := self.farshore.call("job", job))["state"] not in ("queued", "running") and seen, 60)

    def test_jobs_that_come_too_late(self):
        """Breaks when a step that an earlier vault left open takes the disks of a way home that began
        behind it, or removes the machine that counts; or when another node's job is done here."""
        rng = seeded()
        self.farshore.start_up()
        model = self.boot_model(rng)
        self.protect(model)
        socket = self.fail_over()
        self.machine_wrote(model)
        self.succeed("failover", "commit", "web")
        self.succeed("reprotect", "web")
        self.wait_state("web", "reverse-protected")
        self.farshore.kill_servers("up")
        late = self.add_job("commit-failback")
        elsewhere = self.add_job("cancel-reprotect", "another-node")
        self.farshore.start_up()
        job = self.ended(late)
        self.assertEqual(("failed", "wrong-state"), (job["state"], job["error"]["code"]), job)
        self.assertEqual("queued", self.farshore.call("job", elsewhere)["state"])
        self.assertEqual("reverse-protected", self.farshore.call("item", "web")["state"])
        self.assertEqual(1, len(self.farshore.call("failover", "list", "web")["failovers"]))
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 10)
        for client in away:
            client.close()
        self.succeed("reprotect", "web", "--cancel")
        self.refused("wrong-state", "reprotect", "web")
        self.farshore.call("job", elsewhere, "--cancel")
        self.succeed("reprotect", "web")
        self.wait_state("web", "reverse-protected")


if __name__ == "__main__":
    support.main()

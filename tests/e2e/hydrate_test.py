#!/usr/bin/env python3
"""End to end: a failed-over machine's disks become its own behind it."""
import pathlib
import subprocess

from return_test import MIB, RunsElsewhere
from support import FarshoreError, NbdClient, first_difference, main, seeded

# Slow enough that a vault can be killed meanwhile, on any machine.
SLOW = 4_000_000


class Hydration(RunsElsewhere):
    def refused(self, code, *words):
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call(*words)
        self.assertEqual(code, refused.exception.code, words)

    def job_of(self, job_id):
        return self.farshore.call("job", job_id)

    def under_way(self, job_id):
        job = self.job_of(job_id)
        self.assertEqual("running", job["state"], job)
        return 0.05 < job["progress"]

    def assert_disks(self, clients, model):
        for client, disk in zip(clients, model.disks):
            found = b"".join(client.read(at, min(MIB, len(disk) - at)) for at in range(0, len(disk), MIB))
            self.assertEqual("equal", first_difference(found, bytes(disk)))

    def test_it_needs_neither_store_nor_vault_and_comes_home(self):
        """Breaks when what the machine writes meanwhile is lost, when a hydration that is killed or
        cancelled begins anew or ends early, or when its disks read from the store after it."""
        rng = seeded()
        self.farshore.start_up()
        model = self.boot_model(rng, (48 * MIB, 2 * MIB + 512))
        # All of it is data.
        for disk in model.disks:
            disk[64 << 10:] = rng.randbytes(len(disk) - (64 << 10))
        paths = self.protect(model)
        home = self.open_disks("web")
        self.steps(model, home, rng, 20)
        self.farshore.call("point", "web", "--bookmark", "left-home")
        for client in home:
            client.close()
        socket = self.fail_over()
        self.machine_wrote(model)
        self.refused("wrong-state", "failover", "hydrate", "web")
        self.succeed("failover", "commit", "web")
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 10)

        job = self.farshore.call("failover", "hydrate", "web", "--throttle", SLOW, "--no-wait")["id"]
        self.refused("wrong-state", "failover", "hydrate", "web")
        self.farshore.wait_for("it is under way", lambda: self.under_way(job), 60)
        self.steps(model, away, rng, 10)
        self.farshore.kill_servers("up")
        self.steps(model, away, rng, 10)
        self.farshore.restart_server("up")
        self.farshore.wait_for("it goes on", lambda: self.under_way(job), 60)
        self.farshore.call("job", job, "--cancel")
        self.farshore.wait_for("it has ended", lambda: self.job_of(job)["state"] == "cancelled", 60)
        self.assertFalse(self.farshore.call("failover", "list", "web")["failovers"][0]["hydrated"])
        self.steps(model, away, rng, 10)

        again = self.farshore.call("failover", "hydrate", "web", "--no-wait")["id"]
        self.steps(model, away, rng, 40)
        self.farshore.wait_for("it is done", lambda: self.job_of(again)["state"] == "succeeded", 120)
        done = self.job_of(again)["result"]
        self.assertEqual(sum(len(disk) for disk in model.disks), done["disk_bytes"])
        self.assertLess(done["copied_bytes"], done["disk_bytes"], "what was copied before was copied again")
        self.assertTrue(self.farshore.call("failover", "list", "web")["failovers"][0]["hydrated"])
        self.refused("wrong-state", "failover", "hydrate", "web")

        # Neither vault nor store.
        self.farshore.kill_servers("up")
        store = self.farshore.data / "store"
        store.rename(self.work / "away")
        self.steps(model, away, rng, 20)
        self.assert_disks(away, model)
        (self.work / "away").rename(store)
        self.farshore.restart_server("up")
        self.assert_disks(away, model)

        # The way home is as it is for any other.
        self.farshore.wait_for("the vault is back", lambda: self.farshore.call("item", "web"), 60)
        self.succeed("reprotect", "web")
        self.wait_state("web", "reverse-protected")
        for client in away:
            client.close()
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 10)
        point = self.farshore.call("point", "web", "--bookmark", "away")["sequence"]
        self.assert_point("web", point, model.copy())
        for client in away:
            client.close()
        self.succeed("failback", "start", "web", "--power-off", "--shut-down-timeout", "1")
        self.assert_home(paths, model)
        self.succeed("failback", "commit", "web")
        self.wait_state("web", "protected")

    def test_while_it_is_captured(self):
        """Breaks when a tap that is started after it wants the store still, or serves something else."""
        rng = seeded()
        self.farshore.start_up()
        model = self.boot_model(rng, (8 * MIB,))
        model.disks[0][64 << 10:] = rng.randbytes(len(model.disks[0]) - (64 << 10))
        paths = self.protect(model)
        socket = self.fail_over()
        self.machine_wrote(model)
        self.succeed("failover", "commit", "web")
        self.succeed("reprotect", "web")
        self.wait_state("web", "reverse-protected")
        away = self.clients_at(socket, 1)
        self.steps(model, away, rng, 10)
        self.succeed("failover", "hydrate", "web")
        self.steps(model, away, rng, 10)
        store = self.farshore.data / "store"
        store.rename(self.work / "away")
        self.farshore.kill_descendants("nbdkit")
        self.farshore.wait_for("another tap serves", lambda: self.serves(socket), 60)
        away = self.clients_at(socket, 1)
        self.assert_disks(away, model)
        self.steps(model, away, rng, 10)
        (self.work / "away").rename(store)
        point = self.farshore.call("point", "web", "--bookmark", "away")["sequence"]
        self.assert_point("web", point, model.copy())
        for client in away:
            client.close()
        self.succeed("failback", "start", "web", "--power-off", "--shut-down-timeout", "1")
        self.assert_home(paths, model)

    def image_of(self, file):
        raw = self.work / "as-raw"
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", "-f", file["format"], file["path"], raw], check=True)
        return raw.read_bytes()

    def assert_files(self, model):
        """The disks' files hold what the model has; of the disk that ends off a whole sector, with zeroes behind."""
        files = self.farshore.call("failover", "list", "web")["failovers"][0]["files"]
        self.assertEqual(list(range(len(model.disks))), [file["disk"] for file in files])
        for file, disk in zip(files, model.disks):
            self.assertTrue(file["in_use"])
            self.assertEqual(0o600, pathlib.Path(file["path"]).stat().st_mode & 0o777)
            self.assertEqual("equal", first_difference(self.image_of(file)[:len(disk)], bytes(disk)))
        return files

    def test_files_of_its_own(self):
        """Breaks when a disk's file is not what the disk was, when the machine needs anything of ours for them, or
        goes with its item."""
        rng = seeded()
        self.farshore.start_up()
        model = self.boot_model(rng, (24 * MIB, 2 * MIB + 512))
        self.protect(model)
        socket = self.fail_over()
        self.machine_wrote(model)
        own = self.work / "own"
        own.mkdir()
        self.refused("wrong-state", "failover", "hydrate", "web", "--into", own)
        self.succeed("failover", "commit", "web")
        self.refused("wrong-state", "unprotect", "web")
        self.refused("invalid-argument", "failover", "hydrate", "web", "--into", own, "--format", "vmdk")
        nowhere = self.farshore.call("failover", "hydrate", "web", "--into", self.work / "nowhere", "--no-wait")["id"]
        self.farshore.wait_for("it has failed", lambda: self.job_of(nowhere)["state"] == "failed", 60)
        self.assertEqual("not-found", self.job_of(nowhere)["error"]["code"])
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 20)
        for client in away:
            client.flush()
            client.close()

        # One that is given up leaves nothing, one of a vault that is killed goes on.
        slow = ("failover", "hydrate", "web", "--into", own, "--throttle", MIB, "--no-wait")
        job = self.farshore.call(*slow)["id"]
        self.farshore.wait_for("it is under way", lambda: self.under_way(job), 60)
        self.refused("wrong-state", "reprotect", "web")
        self.farshore.call("job", job, "--cancel")
        self.farshore.wait_for("it has ended", lambda: self.job_of(job)["state"] == "cancelled", 60)
        self.assertEqual([], list(own.iterdir()))
        job = self.farshore.call(*slow)["id"]
        self.farshore.wait_for("it is under way", lambda: self.under_way(job), 60)
        self.farshore.kill_servers("up")
        self.farshore.restart_server("up")
        self.farshore.wait_for("it is done", lambda: self.job_of(job)["state"] == "succeeded", 120)
        result = self.job_of(job)["result"]
        self.assertGreater(result["longest_hold_ms"], 0)
        listed = self.farshore.call("failover", "list", "web")["failovers"][0]
        self.assertTrue(listed["stands_alone"], listed)
        self.assertFalse(pathlib.Path(socket).exists(), "somebody serves its disks still")
        self.assertEqual([], list(self.farshore.data.glob("vault/recoveries/*/disk-*")))
        files = self.assert_files(model)
        self.refused("wrong-state", "reprotect", "web")
        self.refused("wrong-state", "failover", "hydrate", "web", "--into", own)
        self.refused("wrong-state", "failover", "hydrate", "web")

        # Its item goes, it stays; whoever owns it starts it.
        pid_file = next(self.farshore.data.glob("vault/run/*/qemu.pid"))
        pid = int(pid_file.read_text().split()[1])
        self.succeed("unprotect", "web")
        self.farshore.wait_for("it is let go", lambda: any(event["code"] == "machine-let-go" for event in
                                                           self.farshore.call("events")["events"]), 60)
        self.assertTrue(pathlib.Path(f"/proc/{pid}").exists(), "it was ended with its item")
        self.assertEqual([], list(self.farshore.data.glob("vault/recoveries/*/recovery.json")))
        self.farshore.kill_servers("up")
        subprocess.run(["kill", "-9", str(pid)], check=True)
        self.farshore.wait_for("it has ended", lambda: not pathlib.Path(f"/proc/{pid}").exists(), 60)
        log = pid_file.with_name("serial.log")
        log.unlink()
        [script] = own.glob("*.start")
        subprocess.run(["sh", script], check=True)
        self.addCleanup(subprocess.run, ["pkill", "-f", str(files[0]["path"])], check=False)
        self.farshore.wait_for("it has booted", lambda: log.exists() and b"DONE" in log.read_bytes(), 90)
        self.assertNotIn(b"ERROR", log.read_bytes())

    @staticmethod
    def serves(socket):
        try:
            NbdClient(socket, "0").close()
        except (OSError, ConnectionError):
            return False
        return True


if __name__ == "__main__":
    main()

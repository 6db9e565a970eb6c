#!/usr/bin/env python3
"""End to end: drills. A machine that boots and one that does not are told apart; nothing is left."""
import json
import pathlib
import subprocess

import support
from support import BINARY, BOOT_SECTOR, EndToEnd, FarshoreError

MIB = 1 << 20


class Drills(EndToEnd):
    def setUp(self):
        super().setUp()
        self.farshore.start_up()

    def protect(self, name, boots):
        disk = self.work / f"{name}.img"
        # The broken one is like the good one, but for two bytes: no firmware boots it.
        sector = bytearray(BOOT_SECTOR.read_bytes())
        if not boots:
            sector[510:512] = b"\0\0"
        disk.write_bytes(bytes(sector) + bytes(MIB - 512))
        self.farshore.call("protect", name, "--disk", disk)
        self.wait_state(name, "protected")

    def drill(self, name):
        """One now; (exit code, its document)."""
        done = subprocess.run([str(BINARY), "drill", "run", name, "--data", str(self.farshore.data), "--json"],
                              capture_output=True, text=True, check=False, env=self.farshore.environment, timeout=300)
        self.assertTrue(done.stdout, done.stderr)
        return done.returncode, json.loads(done.stdout)

    def nothing_is_left(self):
        self.assertEqual([], [line for _, line in self.farshore.descendants() if "drill-" in line])
        run = self.farshore.data / "vault/run"
        self.assertEqual([], list(run.iterdir()) if run.exists() else [])
        self.assertEqual([], [p for p in (self.farshore.data / "vault/recoveries").iterdir() if p.is_dir()])

    def test_good_and_bad_are_told_apart(self):
        """Breaks when a machine that does not boot passes, one that boots does not, or what was seen is not kept."""
        scripts = self.farshore.data / "vault/scripts"
        scripts.mkdir()
        (scripts / "look.sh").write_text("#!/bin/sh\ngrep -c FARSHORE-BOOT \"$FARSHORE_SERIAL_LOG\"\n"
                                         "test -S \"$FARSHORE_NBD_SOCKET\" && echo $FARSHORE_ITEM $1\n")
        (scripts / "look.sh").chmod(0o755)
        shown = []
        for name, boots, limit in (("good", True, "2min"), ("broken", False, "8s")):
            self.protect(name, boots)
            self.farshore.call("drill", "set", name, "--serial", "DONE", "--limit", limit, "--script", "look.sh x")
            self.assertEqual({}, self.farshore.call("item", name)["drill"], "none yet")
            code, drill = self.drill(name)
            self.nothing_is_left()
            pictures = self.work / name
            self.farshore.call("drill", "show", drill["id"], "--screenshot", f"{pictures}.png",
                               "--serial", f"{pictures}.log")
            picture = pathlib.Path(f"{pictures}.png").read_bytes()
            self.assertEqual(b"\x89PNG\r\n\x1a\n", picture[:8])
            said = pathlib.Path(f"{pictures}.log").read_bytes()
            item = self.farshore.call("item", name)
            shown.append((name, drill["verdict"], drill["why"] or "-", f"{len(picture)} bytes PNG"))
            if boots:
                self.assertEqual((0, "good"), (code, drill["verdict"]), drill)
                self.assertEqual([("look.sh", True, "1\ngood x\n")],
                                 [(c["program"], c["good"], c["output"]) for c in drill["checks"]])
                self.assertIn(b"FARSHORE-BOOT", said)
                self.assertEqual("good", item["drill"]["verdict"])
                self.assertEqual(drill["id"], item["drill"]["last_good_drill"])
                self.assertLess(item["drill"]["last_good_age_s"], 600)
            else:
                self.assertNotEqual(0, code)
                self.assertEqual("bad", drill["verdict"], drill)
                self.assertIn("'DONE' was not said", drill["why"])
                self.assertNotIn(b"FARSHORE-BOOT", said)
                self.assertEqual("bad", item["drill"]["verdict"])
                self.assertNotIn("last_good", item["drill"])
                self.assertTrue([e for e in self.farshore.call("events", "--item", name)["events"]
                                 if e["code"] == "drill-bad"])
            tried = [p for p in self.farshore.call("points", name)["points"] if "drill" in p]
            for point in tried:
                self.assertEqual(drill["verdict"], point["drill"])
        print("\n" + "\n".join("  " + "  ".join(row) for row in shown), flush=True)

    def test_a_check_that_fails_is_a_bad_machine(self):
        """Breaks when what the user's own checks say does not count, or one that hangs holds the drill."""
        self.protect("web", True)
        scripts = self.farshore.data / "vault/scripts"
        scripts.mkdir()
        (scripts / "no.sh").write_text("#!/bin/sh\necho it is not; exit 3\n")
        (scripts / "no.sh").chmod(0o755)
        self.farshore.call("drill", "set", "web", "--serial", "DONE", "--script", "no.sh")
        _, drill = self.drill("web")
        self.assertEqual("bad", drill["verdict"], drill)
        self.assertIn("it exited with 3", drill["why"])
        self.assertEqual("it is not\n", drill["checks"][0]["output"])
        self.nothing_is_left()
        # Nobody's machine of his own is taken away with it.
        test = self.farshore.call("failover", "test", "web", "--note", "for the auditors")
        self.drill("web")
        [mine] = self.farshore.call("failover", "list", "web")["failovers"]
        self.assertEqual(("running", "for the auditors"), (mine["state"], mine["note"]))
        self.farshore.call("failover", "test", "web")
        self.farshore.call("failover", "cleanup", "web", "--id", mine["id"])
        self.assertEqual(1, len(self.farshore.call("failover", "list", "web")["failovers"]), test)
        self.farshore.call("failover", "cleanup", "web", "--all")
        self.nothing_is_left()

    def test_a_vault_that_is_killed_leaves_no_machine(self):
        """Breaks when the machine of a drill outlives a vault that was killed, or the drill is forgotten."""
        self.protect("web", True)
        self.farshore.call("drill", "set", "web", "--serial", "what it never says", "--limit", "1h")
        job = self.farshore.call("drill", "run", "web", "--no-wait")["id"]

        def machines():
            return [pid for pid, line in self.farshore.descendants() if "qemu-system" in line]

        self.farshore.wait_for("the machine runs", lambda: len(machines()) == 1, 60)
        before = machines()
        self.farshore.kill_servers("up")
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        self.farshore.wait_for("the machine is another one", lambda: machines() and machines() != before, 60)
        self.assertEqual(1, len(machines()))
        self.assertEqual("open", self.farshore.call("drill", "list")["drills"][0]["verdict"])
        self.farshore.call("job", job, "--cancel")
        self.farshore.wait_for("the drill is over",
                               lambda: self.farshore.call("drill", "list")["drills"][0]["verdict"] == "none", 60)
        self.farshore.wait_for("the job is over", lambda: self.farshore.call("job", job)["state"] == "cancelled", 60)
        self.nothing_is_left()

    def test_they_wait_for_their_turn(self):
        """Breaks when drills together take more than their budget, or one that cannot fit waits for ever."""
        for name in ("one", "two"):
            self.protect(name, True)
            self.farshore.call("drill", "set", name, "--serial", "what it never says", "--limit", "1h")
        self.farshore.call("drill", "budget", "--cpus", 2, "--memory", "3GiB")
        jobs = [self.farshore.call("drill", "run", name, "--no-wait")["id"] for name in ("one", "two")]
        self.farshore.wait_for("the second waits",
                               lambda: "waits for its turn" in self.farshore.call("job", jobs[1])["message"], 60)
        self.farshore.wait_for("the first runs", lambda: "up" in self.farshore.call("job", jobs[0])["message"], 60)
        self.assertEqual(1, len([1 for _, line in self.farshore.descendants() if "qemu-system" in line]))
        self.farshore.call("job", jobs[0], "--cancel")
        self.farshore.wait_for("the second runs", lambda: "up" in self.farshore.call("job", jobs[1])["message"], 60)
        self.farshore.call("job", jobs[1], "--cancel")
        self.farshore.wait_for("both are over", lambda: all(d["verdict"] == "none" for d in
                                                            self.farshore.call("drill", "list")["drills"]), 60)
        self.farshore.call("drill", "budget", "--cpus", 1)
        with self.assertRaises(FarshoreError):
            self.farshore.call("drill", "run", "one")
        self.assertIn("all drills together may have 1", self.farshore.call("drill", "list")["drills"][0]["why"])
        self.nothing_is_left()


if __name__ == "__main__":
    support.main()

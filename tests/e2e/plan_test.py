#!/usr/bin/env python3
"""End to end: recovery plans. A vault that is killed in every step of one, and a large group."""
import datetime
import json
import os
import pathlib
import subprocess

import support
from support import BINARY, BOOT_SECTOR, EndToEnd, FarshoreError

MIB = 1 << 20
MACHINES = int(os.environ.get("FARSHORE_PLAN_MACHINES") or 4)
# How far apart the first reads of one group may be; by default only shown, since other tests run beside.
SPREAD_S = float(os.environ.get("FARSHORE_PLAN_SPREAD_S") or 0)


class Plans(EndToEnd):
    def protect(self, name, boots=True):
        disk = self.work / f"{name}.img"
        disk.write_bytes((BOOT_SECTOR.read_bytes() if boots else b"") + bytes(MIB))
        disk.write_bytes(disk.read_bytes()[:MIB])
        self.farshore.call("protect", name, "--disk", disk)

    def script(self, name, body, whose="vault"):
        directory = self.farshore.data / whose / "scripts"
        directory.mkdir(exist_ok=True)
        path = directory / name
        path.write_text("#!/bin/sh\n" + body)
        path.chmod(0o755)

    def import_plan(self, text):
        path = self.work / "plan.yaml"
        path.write_text(text)
        return self.farshore.call("recovery-plan", "import", path, "--replace")

    def run_of(self, run):
        return self.farshore.call("recovery-plan", "run", "show", run)

    def step(self, run, name):
        return next(s for s in self.run_of(run)["steps"] if s["id"] == name)

    def machines(self):
        return [line for _, line in self.farshore.descendants() if "qemu-system" in line]

    def test_killed_in_every_step(self):
        """Breaks when a vault that is killed with SIGKILL in the middle of any step of a plan is followed by one that
        forgets the run, does a step twice, or starts a machine twice."""
        self.farshore.start_up()
        for name in ("db", "web"):
            self.protect(name)
        for name in ("db", "web"):
            self.wait_state(name, "protected")
        for name in ("first", "there", "last"):
            self.script(f"{name}.sh", f"echo $FARSHORE_RUN >> {self.work}/{name}.count\n"
                                      f"read line < {self.work}/{name}.fifo\necho heard $line\n",
                        "appliance" if name == "there" else "vault")
            os.mkfifo(self.work / f"{name}.fifo")
        self.import_plan("""
name: shop
groups:
  - name: databases
    before:
      - {name: the first, kind: script, program: first.sh, for: [test]}
    items: [{name: db}]
  - name: shop
    before:
      - {name: ask, kind: manual, instructions: "Is it up?", for: [test]}
      - {name: over there, kind: appliance-script, appliance: appliance-local, program: there.sh, for: [test]}
    items: [{name: web}]
    after:
      - {name: the last, kind: script, program: last.sh, for: [test]}
""")
        table = []
        for victim in ("g1-before-1", "g1-item-1", "g2-before-1", "g2-before-2", "g2-item-1", "g2-after-1"):
            with self.subTest(step=victim):
                table.append(self.one_run(victim))
        print("\n  killed in     outcome\n" + "\n".join(f"  {step:12}  {outcome}" for step, outcome in table), flush=True)

    def one_run(self, victim):
        for name in ("first", "there", "last"):
            (self.work / f"{name}.count").unlink(missing_ok=True)
        run = self.farshore.call("recovery-plan", "start", "shop", "--mode", "test", "--no-wait",
                                 "--unchecked", "--note", f"killed in {victim}")["id"]

        def reached(step, *states):
            self.farshore.wait_for(f"step {step} is {states}", lambda: self.step(run, step)["state"] in states, 120,
                                   interval_s=0.02)

        def strike(step):
            if step == victim:
                self.farshore.kill_servers("up")
                self.farshore.restart_server("up")
                self.farshore.wait_until_serving()

        def speak(name):
            """To the script, which waits for it."""
            with open(self.work / f"{name}.fifo", "w", encoding="utf-8") as fifo:
                fifo.write("a word\n")

        reached("g1-before-1", "running")
        self.farshore.wait_for("the script has begun", lambda: (self.work / "first.count").exists(), 60)
        strike("g1-before-1")
        speak("first")
        reached("g1-item-1", "running", "succeeded")
        strike("g1-item-1")
        reached("g2-before-1", "running")
        strike("g2-before-1")
        self.farshore.call("recovery-plan", "run", "answer", run, "g2-before-1", "--done", "--note", "it is")
        reached("g2-before-2", "running")
        self.farshore.wait_for("the appliance's script has begun", lambda: (self.work / "there.count").exists(), 60)
        strike("g2-before-2")
        speak("there")
        reached("g2-item-1", "running", "succeeded")
        strike("g2-item-1")
        reached("g2-after-1", "running")
        self.farshore.wait_for("the script has begun", lambda: (self.work / "last.count").exists(), 60)
        strike("g2-after-1")
        speak("last")
        self.farshore.wait_for("the run is over", lambda: self.run_of(run)["state"] == "succeeded", 120)
        ended = self.run_of(run)
        self.assertEqual(["succeeded"] * 6, [s["state"] for s in ended["steps"]], ended)
        self.assertEqual([1] * 6, [s["attempts"] for s in ended["steps"]])
        self.assertEqual("heard a word\n", ended["steps"][0]["output"])
        for name in ("first", "there", "last"):
            self.assertEqual(f"{run}\n", (self.work / f"{name}.count").read_text(), "the script ran once")
        self.assertEqual(2, len(self.machines()), "each machine was started once")
        for name in ("db", "web"):
            tests = self.farshore.call("failover", "list", name)["failovers"]
            self.assertEqual(["running"], [t["state"] for t in tests])
            self.assertIn(f"run {run} of plan shop", tests[0]["note"])
        page = subprocess.run([str(BINARY), "recovery-plan", "run", "report", str(run), "--data", str(self.farshore.data)],
                              capture_output=True, text=True, check=True, env=self.farshore.environment).stdout
        self.assertIn("g2-after-1", page)
        self.farshore.call("recovery-plan", "run", "cleanup", run)
        self.assertEqual([], self.machines(), "the clean-up leaves nothing")
        return victim, "every step once, both machines once, cleaned up"

    def test_a_group_starts_together(self):
        """Breaks when machines of one group wait for each other, or one of them is not started. FARSHORE_PLAN_MACHINES
        says how many; FARSHORE_PLAN_SPREAD_S how far apart their first reads may be."""
        self.farshore.start_up()
        names = [f"vm{number:02}" for number in range(MACHINES)]
        for name in names:
            self.protect(name)
        for name in names:
            self.wait_state(name, "protected", timeout_s=300)
        self.import_plan("name: many\ngroups:\n  - name: all\n    items:\n" +
                         "".join(f"      - {{name: {name}}}\n" for name in names))
        run = self.farshore.call("recovery-plan", "start", "many", "--mode", "test", "--unchecked", timeout_s=600)
        self.assertEqual("succeeded", run["state"], run)
        reads = []
        for name in names:
            [test] = self.farshore.call("failover", "list", name)["failovers"]
            timings = test["timings"]
            self.assertIn("first_read_ms", timings, f"{name} has read nothing")
            requested = datetime.datetime.fromisoformat(timings["requested"].replace("Z", "+00:00"))
            reads.append(requested.timestamp() + timings["first_read_ms"] / 1000)
        spread = max(reads) - min(reads)
        print(f"\n  {len(names)} machines: first reads within {spread:.2f} s; run of {run['duration_ms'] / 1000:.1f} s",
              flush=True)
        if SPREAD_S:
            self.assertLessEqual(spread, SPREAD_S)
        self.farshore.call("recovery-plan", "run", "cleanup", run["id"])
        self.assertEqual([], self.machines())

    def test_what_would_fail_is_found_before(self):
        """Breaks when a run begins that is bound to fail, or when an export and an import change a plan."""
        self.farshore.start_up()
        self.protect("db")
        self.wait_state("db", "protected")
        self.import_plan("""
name: shop
groups:
  - name: all
    before: [{name: none, kind: script, program: none.sh, for: [failover]}]
    items: [{name: db}, {name: web}]
""")
        for point, wrong in (("latest", {"g1-before-1", "g1-item-2"}),
                             ("no-such-label", {"g1-before-1", "g1-item-1", "g1-item-2"})):
            done = subprocess.run([str(BINARY), "recovery-plan", "check", "shop", "--mode", "failover", "--point", point,
                                   "--data", str(self.farshore.data), "--json"],
                                  capture_output=True, text=True, check=False, env=self.farshore.environment)
            self.assertNotEqual(0, done.returncode)
            found = json.loads(done.stdout)
            self.assertFalse(found["would_run"])
            self.assertEqual(wrong, {f["step"] for f in found["findings"] if f.get("step")})
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("recovery-plan", "start", "shop", "--mode", "failover")
        self.assertEqual("wrong-state", refused.exception.code)
        self.assertEqual("protected", self.farshore.call("item", "db")["state"], "nothing was changed")
        before = self.farshore.call("recovery-plan", "show", "shop")
        self.farshore.call("recovery-plan", "export", "shop", "--to", self.work / "out.yaml")
        self.farshore.call("recovery-plan", "import", self.work / "out.yaml", "--replace")
        after = self.farshore.call("recovery-plan", "show", "shop")
        self.assertEqual(before["plan"], after["plan"])


if __name__ == "__main__":
    support.main()

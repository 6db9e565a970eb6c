#!/usr/bin/env python3
"""End to end: the planner. A machine that is measured before it is protected, and one that has just been."""
import json
import subprocess

import support
from devices import MIB, DeviceTest, DirectDisk
from support import BINARY, FarshoreError, Model, seeded


class Planner(DeviceTest):
    def plan(self, *words):
        done = subprocess.run([str(BINARY), "plan", *map(str, words), "--json"], capture_output=True, text=True, check=False,
                              env=self.farshore.environment)
        return json.loads(done.stdout) if done.returncode == 0 else done.stdout + done.stderr

    def measure(self, device, seconds):
        """What it says was written, and what was, in order, while it measured."""
        file = self.work / "measured.json"
        running = subprocess.Popen([str(BINARY), "plan", "measure", "--disk", device, "--for", f"{seconds}s",
                                    "--interval", "1s", "--output", str(file)],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   env=self.farshore.environment)
        self.addCleanup(running.stdout.close)
        self.addCleanup(running.kill)
        disk = DirectDisk(device)
        written = 0
        while running.poll() is None:
            disk.write(written % (32 * MIB), bytes([7]) * (MIB // 4))
            written += MIB // 4
        disk.close()
        self.assertEqual(0, running.returncode, running.stdout.read())
        return file, sum(json.loads(file.read_text())["written_bytes"]), written

    def test_a_machine_is_measured_before_it_is_protected(self):
        """Breaks when what a disk is written is counted twice or not at all, or a plan forgets some of it."""
        device = self.make_disk(32 * MIB)
        file, seen, written = self.measure(device, 5)
        # It begins to count a moment after it is started, and ends a moment before the writer knows.
        self.assertLessEqual(seen, written)
        self.assertGreater(seen, written // 4)
        plan = self.plan("--measured", file, "--rpo", "60s", "--outage", "1h")
        self.assertAlmostEqual(seen / plan["seen_s"], plan["written_per_s"]["mean"], delta=1)
        self.assertEqual(32 * MIB, plan["storage"]["newest_bytes"])
        self.assertGreaterEqual(plan["spool"]["peak"], plan["written_per_s"]["mean"] * 3599)
        # In a year with twice as much each year, half of which compresses away.
        later = self.plan("--measured", file, "--rpo", "60s", "--outage", "1h", "--growth", "100", "--months", "12",
                          "--stored", "0.5")
        self.assertAlmostEqual(2, later["written_per_s"]["mean"] / plan["written_per_s"]["mean"], places=3)
        self.assertAlmostEqual(2, later["spool"]["peak"] / plan["spool"]["peak"], places=3)
        self.assertAlmostEqual(1, later["bandwidth"]["peak"] / plan["bandwidth"]["peak"], delta=0.01)

    def test_a_protected_machine_is_planned_by_what_it_writes(self):
        """Breaks when the plan of an item misses what it writes, or counts its first copy as written."""
        rng = seeded()
        model = Model([MIB], rng)
        self.farshore.start_up()
        self.farshore.call("protect", "web", "--disk", model.make_files(self.work)[0])
        self.wait_state("web", "protected")
        before = self.farshore.call("plan", "web", "--rpo", "30s")
        self.assertEqual(0, before["written_per_s"]["mean"])
        clients = self.open_disks("web")
        for _ in range(60):
            model.random_step(clients, rng)
        for client in clients:
            client.close()
        self.farshore.call("point", "web", "--bookmark", "here")
        self.farshore.wait_for("what is written is in the plan", lambda: self.farshore.call(
            "plan", "web", "--rpo", "30s")["written_per_s"]["mean"] > 0, 60)
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("plan", "nobody", "--rpo", "30s")
        self.assertEqual("item-not-found", refused.exception.code)

    def test_what_cannot_be_planned_is_said(self):
        """Breaks when a plan is made of a measurement that is damaged, or is none."""
        bad = self.work / "bad.json"
        for text, words in (('{"slots": "many"}', "'format' must be a text"), ("[]", "measured file"),
                            ('{"format": "farshore-measured-9"}', "newer")):
            bad.write_text(text)
            self.assertIn(words, self.plan("--measured", bad, "--rpo", "60s"))


if __name__ == "__main__":
    support.main()

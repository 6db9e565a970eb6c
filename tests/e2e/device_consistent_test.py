#!/usr/bin/env python3
"""End to end, inside the machine: points that its file systems agree with, and nothing left frozen."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import support
from devices import MIB, DeviceTest, run
from support import FarshoreError


class ConsistentPoints(DeviceTest):
    def setUp(self):
        super().setUp()
        self.mount = self.work / "mount"
        self.mount.mkdir()
        self.device = self.make_disk(96 * MIB)
        run("mkfs.ext4", "-q", self.device)
        run("mount", self.device, self.mount)
        # Cleanups run backwards: thawed before anything waits for the disk.
        self.addCleanup(subprocess.run, ["fsfreeze", "--unfreeze", self.mount], check=False,
                        stderr=subprocess.DEVNULL)

    def begin(self):
        """Protects the disk, and writes files on it."""
        self.protect("inside", self.device)
        self.wait_state("inside", "protected")
        self.load = self.start_load(
            ["fio", "--thread", "--name=load", f"--directory={self.mount}", "--rw=randwrite", "--bs=4k",
             "--ioengine=psync", "--size=16m", "--nrfiles=8", "--fsync=16", "--time_based", "--runtime=600",
             "--rate_iops=600", "--randrepeat=0"])

    def start_agent_on_the_disk(self):
        """As on a machine with one disk; the appliance and the vault are elsewhere."""
        self.farshore.start_vault()
        self.farshore.start_site(self.work / "site", ("appliance",))
        token = self.work / "agent.token"
        token.write_text(self.farshore.new_token("agent"))
        self.farshore.start_server(
            "agent", "agent", "serve", "--data", self.mount / "agent", "--ca", self.farshore.authority,
            "--enrol-token-file", token, "--name", "inside", "--appliance", self.farshore.replication_listen)
        self.farshore.wait_for("the agent is enrolled", lambda: any(
            one["kind"] == "agent" and one.get("connected")
            for one in self.farshore.call("agents")["agents"]), 60)

    def frozen(self):
        """A write that hangs means frozen; it ends when that ends."""
        probe = subprocess.Popen(["touch", self.mount / "probe"], stderr=subprocess.DEVNULL)
        self.addCleanup(self.end_probe, probe)
        try:
            probe.wait(timeout=0.5)
            return False
        except subprocess.TimeoutExpired:
            return True

    def end_probe(self, probe):
        subprocess.run(["fsfreeze", "--unfreeze", self.mount], check=False, stderr=subprocess.DEVNULL)
        probe.wait()

    def wait_thawed(self, within_s):
        start = time.monotonic()
        subprocess.run(["touch", self.mount / "thawed"], check=True, timeout=within_s)
        return time.monotonic() - start

    def helpers(self):
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if b"freeze" in words and str(self.mount).encode() in words:
                found.append(int(entry.name))
        return found

    def stop_capture(self):
        """The capture process sleeps: no point is made, and the file systems stay frozen for a while."""
        stopped = [pid for pid, command in self.farshore.descendants() if "capture serve" in command]
        self.assertTrue(stopped, "no capture process runs")
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(self.go_on, pid)

    @staticmethod
    def go_on(pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def ask(self, label):
        """`point --consistent` in the background; what became of it is in the list."""
        outcome = []

        def call():
            try:
                outcome.append(self.farshore.call("point", "inside", "--bookmark", label, "--consistent",
                                                  "--timeout", 60))
            except FarshoreError as error:
                outcome.append(error)
        thread = threading.Thread(target=call)
        thread.start()
        self.addCleanup(thread.join)
        return thread, outcome

    def wait_frozen(self):
        self.farshore.wait_for("the file system is frozen", lambda: self.helpers() and self.frozen(), 20, 0.05)

    def test_a_consistent_point_needs_no_repair(self):
        """Breaks when the file system was not at rest at the point, or is not written again behind it."""
        self.farshore.start_up()
        self.begin()
        self.farshore.wait_for("the load writes", lambda: any(self.mount.glob("load*")), 30)
        for number in range(3):
            label = f"rest-{number}"
            point = self.farshore.call("point", "inside", "--bookmark", label, "--consistent")
            self.assertEqual("application", point["kind"])
            self.wait_thawed(5)
            image = self.work / "point.img"
            image.write_bytes(self.read_point("inside", label, 0))
            features = run("dumpe2fs", "-h", image)
            self.assertIn("has_journal", features)
            self.assertNotIn("needs_recovery", features)
            self.assertRegex(features, r"Filesystem state:\s+clean\n")
            run("e2fsck", "-fn", image)
        listed = self.farshore.call("points", "inside", "--kind", "application")["points"]
        self.assertEqual({"rest-0", "rest-1", "rest-2"}, {point["label"] for point in listed})
        # The test itself would be blind if any point were like that.
        image.write_bytes(self.read_point("inside", "latest", 0))
        self.assertIn("needs_recovery", run("dumpe2fs", "-h", image))
        self.assertIsNone(self.load.poll(), "the load ended")
        self.assertEqual([], self.helpers())

    def test_points_by_policy(self):
        """Breaks when the points that a policy asks for are not made, or promised where they cannot be."""
        self.farshore.start_up()
        self.protect("inside", self.device, options=("--consistent-interval", "5min"))
        shown = self.farshore.wait_for(
            "a point of the policy is stored",
            lambda: (item := self.farshore.call("item", "inside")["consistent_points"]).get("last_time") and item,
            60)
        self.assertEqual(300, shown["interval_s"])
        self.assertNotIn("error", shown)
        points = self.farshore.call("points", "inside", "--kind", "application")["points"]
        self.assertEqual([("consistent", shown["last_time"])],
                         [(point["label"], point["time"]) for point in points])
        image = self.work / "point.img"
        image.write_bytes(self.read_point("inside", "consistent", 0))
        self.assertNotIn("needs_recovery", run("dumpe2fs", "-h", image))
        self.wait_thawed(5)

    def test_a_point_that_cannot_be_made_in_time_is_refused(self):
        """Breaks when a point that is only crash-consistent passes for a consistent one, or a capture
        process that hangs keeps the machine frozen."""
        self.farshore.start_up()
        self.begin()
        self.stop_capture()
        start = time.monotonic()
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("point", "inside", "--bookmark", "late", "--consistent", "--timeout", 60)
        self.assertEqual("timeout", error.exception.code)
        self.assertLess(time.monotonic() - start, 15)
        self.wait_thawed(5)
        for pid, command in self.farshore.descendants():
            if "capture serve" in command:
                self.go_on(pid)
        self.farshore.call("point", "inside", "--bookmark", "after", "--consistent")
        labels = [point.get("label") for point in self.farshore.call("points", "inside", "--limit", 1000)["points"]]
        self.assertIn("after", labels)
        self.assertNotIn("late", labels)
        events = [event for event in self.farshore.call("events", "--item", "inside")["events"]
                  if "late" in str(event)]
        self.assertTrue(events, "nobody is told")

    def test_nothing_stays_frozen_when_agent_or_helper_are_killed(self):
        """Breaks when a machine's disks hang because whoever froze them is gone."""
        self.farshore.start_up()
        self.begin()
        self.stop_capture()
        thread, _ = self.ask("killed")
        self.wait_frozen()
        self.farshore.kill_servers("up")
        self.wait_thawed(5)
        thread.join()
        # The helper alone; the next agent tries the first point once more, meanwhile.
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        thread, outcome = self.ask("killed again")
        self.wait_frozen()
        for pid in self.helpers():
            os.kill(pid, signal.SIGKILL)
        self.wait_thawed(8)
        thread.join()
        self.assertIsInstance(outcome[0], FarshoreError)
        self.assertFalse(self.frozen())

    def test_an_agent_on_the_frozen_disk_neither_hangs_nor_leaves_it_frozen(self):
        """Breaks when the agent waits for the disk that it has frozen itself, or when a disk stays frozen
        because both that could thaw it were killed."""
        self.start_agent_on_the_disk()
        self.begin()
        for number in range(3):
            self.farshore.call("point", "inside", "--bookmark", f"rest-{number}", "--consistent")
            self.wait_thawed(5)
        self.stop_capture()
        thread, _ = self.ask("both")
        self.wait_frozen()
        helpers = self.helpers()
        for pid in helpers:
            os.kill(pid, signal.SIGSTOP)
        self.farshore.kill_servers("agent")
        for pid in helpers:
            os.kill(pid, signal.SIGKILL)
        self.assertTrue(self.frozen(), "the test froze nothing")
        self.farshore.restart_server("agent")
        self.wait_thawed(15)
        self.farshore.wait_for("the agent is back", lambda: any(
            one["kind"] == "agent" and one.get("connected")
            for one in self.farshore.call("agents")["agents"]), 60)
        thread.join()

    def test_up_on_a_disk_that_was_left_frozen(self):
        """Breaks when `up` waits for its own data directory, which an agent before it left frozen."""
        shared = pathlib.Path(tempfile.mkdtemp(prefix="farshore-e2e-", dir="/dev/shm"))
        self.addCleanup(shutil.rmtree, shared, ignore_errors=True)
        (shared / f"{'0' * 32}.frozen").write_bytes(bytes(self.mount) + b"\0")
        self.farshore.data = self.mount / "data"
        self.farshore.data.mkdir()
        run("fsfreeze", "--freeze", self.mount)
        self.assertTrue(self.frozen(), "the test froze nothing")
        self.farshore.start_up("--shared-dir", shared)
        self.wait_thawed(5)
        self.assertEqual([], list(shared.glob("*.frozen")))

    def test_nothing_stays_frozen_when_the_agent_hangs(self):
        """Breaks when only a healthy agent can end a freeze."""
        self.farshore.start_up()
        self.begin()
        self.stop_capture()
        thread, outcome = self.ask("hung")
        self.wait_frozen()
        servers = [pid for pid, command in self.farshore.descendants() if " up " in command]
        self.assertTrue(servers)
        for pid in servers:
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(self.go_on, pid)
        self.wait_thawed(15)
        for pid in servers:
            self.go_on(pid)
        thread.join()
        self.assertIsInstance(outcome[0], FarshoreError)


if __name__ == "__main__":
    support.main()

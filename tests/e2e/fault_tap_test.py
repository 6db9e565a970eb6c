#!/usr/bin/env python3
"""A tap that hangs, an agent killed at any instant, and verbs that are killed in their middle."""
import os
import signal
import subprocess
import time

import support
from faults import MIB, FaultTest
from mirror_test import RunningMachine
from support import BINARY, BOOT_SECTOR, FarshoreError, Model, seeded


class HungTap(FaultTest):
    def taps(self):
        return [pid for pid, command in self.farshore.descendants() if "nbdkit" in command]

    def test_a_mirror_whose_tap_hangs(self):
        """Breaks when a stopped tap stops the guest for longer than the watchdog's patience, or what
        the guest wrote meanwhile is forgotten."""
        rng = seeded()
        model = Model([4 * MIB], rng)
        model.disks[0][:512] = BOOT_SECTOR.read_bytes()
        machine = RunningMachine(self.work, model.make_files(self.work))
        self.addCleanup(machine.end)
        machine.start()
        self.start_up()
        self.farshore.call("protect", "vm", "--qmp", machine.socket, "--point-interval", 2)
        self.wait_state("vm", "protected")
        for number in range(2):
            for _ in range(20):
                machine.step(model, rng)
            stopped = self.taps()
            self.assertEqual(1, len(stopped))
            os.kill(stopped[0], signal.SIGSTOP)
            begin = time.monotonic()
            if number == 0:
                # As a guest writes: QEMU goes on meanwhile.
                for slot in rng.sample(range(1, 64), 20):
                    machine.control.qemu_io("disk0", f"aio_write -P 7 {slot * 65536} 30000")
                    model.disks[0][slot * 65536:slot * 65536 + 30000] = b"\7" * 30000
                self.assertLess(time.monotonic() - begin, 1)
                self.wait_replaced(stopped[0])
                machine.control.qemu_io("disk0", "aio_flush")
            else:
                # Worse: QEMU itself stands still, so that nobody can ask it anything.
                for _ in range(20):
                    machine.step(model, rng)
                self.wait_replaced(stopped[0])
            self.assertLess(time.monotonic() - begin, 15, "the guest waited for a hung tap")
            self.wait_state("vm", "protected")
            for _ in range(20):
                machine.step(model, rng)
            self.bookmark(f"after-{number}", "vm")
            self.assert_point("vm", f"after-{number}", model.copy())
        self.assertGreaterEqual(self.farshore.call("item", "vm")["tap_restarts"], 1)
        self.assertIn("it is replaced", self.log_of("up"))
        self.wait_healthy("vm")

    def wait_replaced(self, old):
        self.farshore.wait_for("another tap", lambda: self.taps() and old not in self.taps(), 20)

    def test_an_in_path_tap_that_hangs_is_left_alone(self):
        """Breaks when a slow disk is taken for a hung tap: killing it would take the disk away."""
        rng = seeded()
        model = Model([MIB], rng)
        self.start_up()
        self.protect(model)
        clients = self.open_disks("web")
        for _ in range(10):
            model.random_step(clients, rng)
        tap = self.taps()[0]
        os.kill(tap, signal.SIGSTOP)
        time.sleep(1.5)    # three times the watchdog's patience
        os.kill(tap, signal.SIGCONT)
        for _ in range(10):
            model.random_step(clients, rng)
        self.assertEqual([tap], self.taps())
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())


class KilledVerbs(FaultTest):
    def start_verb(self, *words):
        return subprocess.Popen(
            [str(BINARY), *map(str, words), "--data", str(self.farshore.data), "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.farshore.environment)

    def kill_during(self, rng, most_s, *words):
        """The verb runs, and both it and the server are killed within `most_s`."""
        verb = self.start_verb(*words)
        time.sleep(rng.random() * most_s)
        self.farshore.kill_servers("up")
        verb.kill()
        verb.wait()
        self.restart_up()

    def test_protect(self):
        """Breaks when a half made item cannot be finished, or blocks its name."""
        rng = seeded()
        model = Model([2 * MIB], rng)
        path = model.make_files(self.work)[0]
        self.start_up()
        for number in range(4):
            name = f"web{number}"
            self.kill_during(rng, 0.5, "protect", name, "--disk", path)
            try:
                self.farshore.call("protect", name, "--disk", path)
            except FarshoreError as error:
                self.assertEqual("already-exists", error.code)    # it had got that far
            self.wait_state(name, "protected")
            clients = self.open_disks(name)
            for _ in range(10):
                model.random_step(clients, rng)
            self.bookmark("here", name)
            self.assert_point(name, "here", model.copy())
            for client in clients:
                client.close()
            self.farshore.call("unprotect", name)

    def test_bookmark(self):
        """Breaks when a bookmark that was acknowledged is lost, or one that was not blocks its
        repetition."""
        rng = seeded()
        model = Model([MIB], rng)
        self.start_up()
        self.protect(model)
        expected = {}
        for number in range(4):
            clients = self.open_disks("web")
            for _ in range(10):
                model.random_step(clients, rng)
            label = f"label-{number}"
            self.kill_during(rng, 0.4, "point", "web", "--bookmark", label)
            self.bookmark(label)
            expected[label] = model.copy()
            for client in clients:
                client.close()
        for label, disks in expected.items():
            self.assert_point("web", label, disks)

    def succeeded_tests(self):
        return [job for job in self.farshore.call("jobs")["jobs"]
                if job["kind"] == "test-failover" and job["state"] == "succeeded"]

    def test_failover_test(self):
        """Breaks when a killed test failover leaves a machine, a lease or a state behind that cannot
        be cleaned up, or disturbs the protection."""
        rng = seeded()
        model = Model([MIB], rng)
        model.disks[0][:512] = BOOT_SECTOR.read_bytes()
        self.start_up()
        self.protect(model)
        self.bookmark("good")
        for most_s in (0.2, 0.6, 1.5):
            done = len(self.succeeded_tests())
            self.kill_during(rng, most_s, "failover", "test", "web", "--point", "good")
            # What was begun ends by itself, as done or as failed; then it can be done again.
            self.farshore.wait_for("no job is open", lambda: all(
                job["state"] in ("succeeded", "failed", "cancelled")
                for job in self.farshore.call("jobs")["jobs"]), 60)
            # A kill may come before anything was begun: then there is nothing to clean up, and it
            # says so. What succeeded must be there.
            begun = len(self.succeeded_tests()) > done
            try:
                self.farshore.call("failover", "cleanup", "web")
            except FarshoreError as error:
                self.assertFalse(begun, error)
                self.assertEqual("not-found", error.code)
            job = self.farshore.call("failover", "test", "web", "--point", "good")
            self.assertEqual("succeeded", job["state"])
            self.farshore.call("failover", "cleanup", "web")
            self.assertEqual([], [c for _, c in self.farshore.descendants() if "qemu-system" in c])
        self.wait_healthy()
        self.assert_point("web", "good", model.copy())
        self.farshore.call("unprotect", "web")    # no lease is left
        self.assertEqual([], self.farshore.call("items")["items"])


if __name__ == "__main__":
    support.main()

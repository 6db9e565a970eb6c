#!/usr/bin/env python3
"""End to end, inside a real machine: a Debian guest under load, its root disk included, is captured by
the agent that was installed in it. The steps are the demo's; what differs stands here."""
import pathlib
import shutil
import sys
import tempfile
import unittest

import support
from support import BINARY, ROOT, EndToEnd

sys.path[:0] = [str(ROOT / "tests/demo")]

import agent_guest  # noqa: E402
import demo  # noqa: E402

# How much of the disks may be read to find out what a clean restart has changed.
MOST_COMPARED = 0.1


class Guest(agent_guest.AgentGuest):
    # Without it a guest that reboots ends QEMU.
    REBOOTS = True


class Machine(demo.Demo):
    """The demo with an agent that stays over a restart."""

    def start_agent(self):
        # gzip at its quickest: an emulated CPU takes minutes for the initramfs otherwise.
        self.source.run("printf 'COMPRESS=gzip\\nCOMPRESSLEVEL=1\\n' >/etc/initramfs-tools/conf.d/quick")
        agent_guest.install_agent(self.source)
        self.agent_name = agent_guest.wait_for_agent(self.source, self.farshore)

    def make_source(self, accelerator):
        return Guest(self.image, self.work / "source", accelerator)


class AgentInTheMachine(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="farshore-e2e-"))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        self.demo = Machine(demo.parse(["--agent", "--seconds", "21", "--point-interval", "2",
                                        "--work", str(self.work), "--binary", str(BINARY)]))
        self.addCleanup(EndToEnd.show_logs_of_failure, self)
        self.addCleanup(self.demo.clean_up)
        accelerator = self.demo.prepare()
        self.demo.start_farshore(accelerator)
        self.demo.start_source(accelerator)
        self.sampler = self.demo.protect()
        self.guest, self.farshore = self.demo.source, self.demo.farshore

    def lose_and_recover(self):
        """The power fails in the middle of the load; the machine comes back from the replica, whole."""
        killed_ms = self.demo.lose_site()
        self.demo.fail_over(killed_ms)
        wrong = [text for ok, text in self.demo.checks if not ok]
        self.assertEqual([], wrong)
        self.assertGreater(self.demo.result["recovered"], 0)

    def test_after_a_power_cut_the_machine_runs_elsewhere(self):
        """Breaks when a write of the root disk or the order between the disks is lost inside."""
        self.demo.run_load(self.sampler)
        self.lose_and_recover()

    def test_over_a_clean_restart_replication_goes_on(self):
        """Breaks when what is written while the machine goes down or comes up is missed, or when all of
        the disks is read to find it."""
        self.demo.run_load(self.sampler)
        self.guest.stop_load()
        # Which disks are captured is in the initramfs by now, or is about to be.
        self.guest.run("while [ \"$(systemctl is-active farshore-early)\" = activating ]; do sleep 1; done", 400)
        boot = self.guest.serial.reported()
        self.guest.restart()
        self.guest.set_clock()
        self.farshore.wait_for("the machine is protected again", lambda: (
            item := self.farshore.call("item", demo.NAME))["state"] == "protected" and "rpo_s" in item
            and item["rpo_s"] < 30, 900)
        after = self.farshore.call("item", demo.NAME)
        # Counted anew from each start of the machine on.
        compared = after["compared_bytes"]
        print(f"read again after the restart: {compared} bytes", flush=True)
        self.assertLess(compared, MOST_COMPARED * sum(disk["size_bytes"] for disk in after["disks"]))
        # What was reported before was dated by another clock.
        self.guest.serial.transactions.clear()
        self.guest.start_load_again()
        self.guest.serial.wait_for_transactions(20, 60)
        self.assertGreater(self.guest.serial.reported(), boot)
        self.demo.run_load(self.sampler)
        self.lose_and_recover()


if __name__ == "__main__":
    support.main()

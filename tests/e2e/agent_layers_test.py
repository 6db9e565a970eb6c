#!/usr/bin/env python3
"""End to end, inside a real machine whose root and data lie on what Linux stacks on disks: volumes over
two disks, volumes in encryption, a mirror; ext4, XFS and Btrfs on them. What the guest does is in
tests/guest/layers; the steps are the demo's."""
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

import support
from support import BINARY, ROOT, EndToEnd, FarshoreError

sys.path[:0] = [str(ROOT / "tests/demo"), str(ROOT / "tests/guest")]

import agent_guest  # noqa: E402
import build_image  # noqa: E402
import demo  # noqa: E402

MIB = 1 << 20
LAYERS = ROOT / "tests/guest/layers"
# Of lvm1: a volume group has the first, encryption the second.
PARTITIONS = [(1 * MIB, 256 * MIB), (257 * MIB, 208 * MIB)]
SIZES = {"lvm0": 256 * MIB, "lvm1": 465 * MIB, "md0": 96 * MIB, "md1": 96 * MIB}
# What is stacked, and the disks that it lies on, through all layers.
STACKED = {
    "/dev/mapper/base-root": ("root",),     # a volume in encryption on a partition
    "/dev/site/plain": ("lvm0", "lvm1"),    # a volume over a whole disk and a partition
    "/dev/site/wide": ("lvm0", "lvm1"),
    "/dev/mapper/seal": ("lvm1",),          # encryption on a partition
    "/dev/inner/sealed": ("lvm1",),
    "/dev/md0": ("md0", "md1"),
}


class Guest(agent_guest.AgentGuest):
    DISKS = ("root", *SIZES)
    # Without it a guest that reboots ends QEMU.
    REBOOTS = True

    def __init__(self, image_directory, directory, accelerator):
        directory.mkdir(parents=True, exist_ok=True)
        for name, size in SIZES.items():
            with open(directory / f"{name}.img", "wb") as file:
                file.truncate(size)
                if name == "lvm1":
                    table = b"".join(build_image.partition_entry(*part) for part in PARTITIONS)
                    file.write(bytes(446) + table + bytes(32) + b"\x55\xaa")
        super().__init__(image_directory, directory, accelerator)

    def start_load(self, per_second=0):
        after = len(self.serial.lines)
        self.serial.send("layers load")
        self.serial.wait_for("^LOAD-STARTED", 60, after)

    def check(self, *devices):
        """What `farshore agent check` says of devices; the shell on the serial line must be free."""
        command = "farshore agent check --json " + " ".join(f"--device {device}" for device in devices)
        for _ in range(3):    # an emulated serial line loses a character now and then
            after = len(self.serial.lines)
            self.serial.send(f"{command}; true")
            try:
                return json.loads(self.serial.wait_for(r"^(\{.*)$", 60, after)[1][1])
            except ValueError:
                continue
        raise RuntimeError(f"no answer to '{command}'")


class Machine(demo.Demo):
    """The demo with that guest, and an agent that is installed for good on a volume."""

    def make_image(self):
        return build_image.ensure(layers=True)

    def make_source(self, accelerator):
        return Guest(self.image, self.work / "source", accelerator)

    def agent_files(self):
        return {"layers": LAYERS.read_text()}

    def start_source(self, accelerator):
        self.source.start()
        self.source.wait_ready(300)
        self.start_agent()

    def start_agent(self):
        self.source.run(f"mkdir -p {agent_guest.MOUNTED} && mount -r LABEL={agent_guest.LABEL} {agent_guest.MOUNTED} && "
                        f"cp {agent_guest.MOUNTED}/layers /usr/local/bin && layers make", 240)
        agent_guest.install_agent(self.source)
        self.agent_name = agent_guest.wait_for_agent(self.source, self.farshore)

    @staticmethod
    def report_of(machine):
        for _ in range(3):    # an emulated serial line loses a character now and then
            after = len(machine.lines)
            machine.send("layers verify")
            _, found = machine.wait_for(r"^VERIFY (\{.*)$", 300, after)
            try:
                return json.loads(found[1])
            except ValueError:
                continue
        raise RuntimeError(f"the guest's report arrived damaged three times: {found[1]}")


class AgentUnderLayers(unittest.TestCase):
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
        self.guest, self.farshore = self.demo.source, self.demo.farshore

    def recovered(self, *verb):
        """What the machine of a point says of itself, and the point."""
        machine, job, _, _ = self.demo.recover(*verb)
        self.addCleanup(machine.close)
        report = self.demo.report_of(machine)
        print(f"recovered: {report}", flush=True)
        self.assertEqual([], report["wrong"])
        return report, self.demo.failover_of(job, verb[0])["point"]

    def lose_and_recover(self):
        """The power fails in the middle of the load; the machine comes back from the replica, whole."""
        self.demo.lose_site()
        report, point = self.recovered("start", demo.NAME, "--point", "latest")
        least, most = self.demo.expected_at(demo.ms_of(point["time"]))
        self.assertLessEqual(least, report["newest"])
        self.assertLessEqual(report["newest"], most)
        self.assertGreater(report["newest"], 0)

    def test_what_is_stacked_is_refused_and_its_disks_are_named(self):
        """Breaks when protecting a volume is refused without saying what to protect instead."""
        remedies = {device: "protect the disks that it lies on: " + ", ".join(
            sorted(self.guest.devices[name] for name in names)) for device, names in STACKED.items()}
        checked = self.guest.check(*STACKED)
        self.assertFalse(checked["works"])
        said = {one["subject"]: (one["result"], one.get("remedy")) for one in checked["checks"]}
        for device, remedy in remedies.items():
            self.assertEqual(("refused", remedy), said[device])
        self.assertEqual("warning", said["clean restart"][0])
        for device, remedy in remedies.items():
            with self.assertRaises(FarshoreError) as refused:
                self.farshore.call("protect", "wrong", "--device", device, "--agent", self.demo.agent_name)
            self.assertIn(f"{device} is a stacked device", str(refused.exception))
            self.assertEqual(remedy, refused.exception.remedy)
            self.farshore.call("unprotect", "wrong")
            self.farshore.wait_for("the item is gone", lambda: not self.farshore.call("items")["items"], 60)

    def test_points_of_all_layers_start_elsewhere(self):
        """Breaks when a write under a volume, under encryption or of half a mirror is lost or comes out
        of order, or when a consistent point leaves one of the file systems out."""
        sampler = self.demo.protect()
        self.guest.start_load()
        self.guest.serial.wait_for_transactions(20, 60)
        self.demo.run_load(sampler)
        before = self.guest.serial.reported()
        self.farshore.call("point", demo.NAME, "--bookmark", "resting", "--consistent")
        after = self.guest.serial.reported()
        self.guest.serial.wait_for_transactions(after + 20, 60)
        self.lose_and_recover()
        report, _ = self.recovered("change-point", demo.NAME, "--point", "resting")
        self.assertLessEqual(before, report["newest"])
        self.assertLessEqual(report["newest"], after + 1)
        # XFS leaves a record in its log for as long as it is frozen.
        self.assertLessEqual(set(report["replays"]), {"wide"})

    def test_over_a_clean_restart_all_is_read_again(self):
        """Breaks when an agent on a volume trusts what it cannot know after a restart, when it does not say
        that it reads everything, or when something is lost thereby."""
        sampler = self.demo.protect()
        self.guest.start_load()
        self.demo.run_load(sampler)
        self.guest.stop_load()
        self.guest.run("journalctl -u farshore-agent | grep 'after each restart the disks are read again'")
        # A spill on what is captured would feed the capture; blocks are set aside where they can be used.
        self.guest.run(f"! ls /etc/farshore/early.json && ! ls {agent_guest.DATA}/items/* | grep -e spill -e clean-stop")
        before = self.guest.serial.reported()
        self.guest.restart()
        self.guest.set_clock()
        states = set()

        def read_again():
            item = self.farshore.call("item", demo.NAME)
            states.add(item["state"])
            return item if (item["state"] == "protected" and item.get("rpo_s", 60) < 30
                            and item["compared_bytes"] > 0) else None

        after = self.farshore.wait_for("the machine is protected again", read_again, 600, 2)
        print(f"read again after the restart: {after['compared_bytes']} bytes", flush=True)
        self.assertIn("resynchronising", states)
        self.assertGreaterEqual(after["compared_bytes"], sum(disk["size_bytes"] for disk in after["disks"]))
        self.guest.run(f"grep 'everything is read' {agent_guest.DATA}/taps/*/tap.log")
        self.guest.run("layers open", 120)
        # What was reported before was dated by another clock.
        self.guest.serial.transactions.clear()
        self.guest.start_load()
        self.guest.serial.wait_for_transactions(20, 60)
        self.assertGreater(self.guest.serial.reported(), before)
        self.demo.run_load(sampler)
        self.lose_and_recover()


if __name__ == "__main__":
    support.main()

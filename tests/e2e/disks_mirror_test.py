#!/usr/bin/env python3
"""End to end, mirror: disks that are plugged into a running QEMU, and disks that are left out."""
import support
from mirror_test import RunningMachine
from support import BOOT_SECTOR, EndToEnd, FarshoreError, Model, first_difference, seeded

MIB = 1 << 20


class MirroredMachine(EndToEnd):
    def setUp(self):
        super().setUp()
        self.rng = seeded()
        self.model = Model([24 * MIB, 2 * MIB + 512], self.rng)
        self.model.disks[0][:512] = BOOT_SECTOR.read_bytes()
        self.machine = RunningMachine(self.work, self.model.make_files(self.work))
        self.addCleanup(self.machine.end)
        self.machine.start()
        self.expected = {}
        self.start()
        self.farshore.call("protect", "vm", "--qmp", self.machine.socket, "--point-interval", 2)
        self.wait_state("vm", "protected")

    def start(self):
        self.farshore.start_up()

    def steps(self, count=30):
        for _ in range(count):
            self.machine.step(self.model, self.rng)

    def wait_under_writes(self, what, condition):
        """The guest writes all the while, and waits for none of it."""
        def write():
            for _ in range(5):
                self.machine.begin_write(self.model, self.rng)
        self.farshore.wait_for(what, condition, 60, 0.02, write)
        self.machine.settle()

    def bookmark(self, label, disks):
        self.farshore.wait_for(
            "bookmark", lambda: self.farshore.call("point", "vm", "--bookmark", label), 60)
        self.assertEqual(disks, self.disks_of(label))
        content = self.model.copy()
        self.expected[label] = {disk: content[disk] for disk in disks}

    def disks_of(self, point):
        return self.farshore.call("point", "vm", "--point", point)["disks"]

    def states(self):
        return [disk["state"] for disk in self.farshore.call("disk", "list", "vm")]

    def gaps(self):
        return self.count_gaps("vm")

    def compared(self):
        return self.farshore.call("item", "vm")["compared_bytes"]

    def restart_agent(self):
        self.farshore.kill_servers("up")
        self.steps()
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        self.wait_state("vm", "protected")

    def assert_mirrored(self, *disks):
        self.assertEqual([f"farshore-mirror-{disk}" for disk in disks], self.machine.mirrors())
        exports = self.machine.control.execute("query-block-exports")
        self.assertEqual([f"farshore-source-{disk}" for disk in disks],
                         sorted(export["id"] for export in exports))

    def check_all(self):
        for label, disks in self.expected.items():
            for disk, content in disks.items():
                self.assertEqual("equal", first_difference(self.read_point("vm", label, disk), content),
                                 f"disk {disk} at {label}")

    def plug(self, size):
        content = bytearray(self.rng.randbytes(size))
        path = self.work / f"disk{len(self.model.disks)}.img"
        path.write_bytes(content)
        self.machine.plug(path)
        self.model.disks.append(content)


class ChangingMirrors(MirroredMachine):
    def test_disks_are_plugged_in_and_left_out_under_writes(self):
        """Breaks when a change of one disk costs the others a gap or another copy, loses a write that
        is made meanwhile, leaves a mirror in QEMU, or is forgotten by the next agent."""
        self.steps()
        self.bookmark("alone", [0, 1])
        gaps, compared = self.gaps(), self.compared()

        # Plugged in, and written before it is protected.
        self.plug(6 * MIB + 512)
        self.steps()
        self.farshore.call("disk", "add", "vm", "disk2", "--no-wait")
        self.wait_under_writes("the disk has joined", lambda: self.states() == ["protected"] * 3)
        self.bookmark("joined", [0, 1, 2])
        self.assertEqual(gaps, self.gaps(), "the added disk opened a gap")
        read = self.compared() - compared
        self.assertGreaterEqual(read, 6 * MIB + 512)
        self.assertLess(read, 10 * MIB, "the others were read again")
        self.assert_mirrored(0, 1, 2)
        self.restart_agent()
        self.steps()
        self.bookmark("after the first restart", [0, 1, 2])
        self.assert_mirrored(0, 1, 2)

        # Left out: the machine has it still, and writes it.
        self.farshore.call("disk", "remove", "vm", 0)
        self.wait_under_writes("the mirror is gone", lambda:
                               self.machine.mirrors() == ["farshore-mirror-1", "farshore-mirror-2"])
        self.wait_under_writes("the capture goes on", lambda: (
            self.farshore.call("point", "vm", "--bookmark", "look") and self.disks_of("look") == [1, 2]))
        self.bookmark("left", [1, 2])
        self.assert_mirrored(1, 2)
        with self.assertRaises(FarshoreError):
            self.read_point("vm", "left", 0)
        self.restart_agent()
        self.steps()
        self.bookmark("after the second restart", [1, 2])
        self.assert_mirrored(1, 2)
        self.assertEqual(gaps, self.gaps(), "removal or restart opened a gap")
        self.assertLess(self.compared() - compared, 10 * MIB, "something was read again")

        # Another QEMU of the same machine has them all.
        self.machine.end()
        self.machine.start()
        self.farshore.wait_for("the mirrors are attached again", lambda: self.machine.mirrors(), 60)
        self.wait_state("vm", "protected")
        self.steps()
        self.bookmark("another machine", [1, 2])
        self.assert_mirrored(1, 2)
        self.check_all()

    def test_a_disk_that_is_not_there_and_one_that_grew_while_the_machine_was_off(self):
        """Breaks when a disk that cannot be found costs the others their protection, what a disk gained
        is not protected, or an unprotected machine keeps something of ours."""
        def said():
            return [trouble["code"] for trouble in self.farshore.call("item", "vm")["troubles"]]
        self.farshore.call("disk", "add", "vm", "nosuch", "--no-wait")
        self.farshore.wait_for("it is said", lambda: "not-found" in said(), 60)
        self.steps()
        self.bookmark("without", [0, 1])
        self.assert_mirrored(0, 1)
        self.farshore.call("disk", "remove", "vm", 2)
        self.farshore.wait_for("it is well again", lambda: not said(), 60)
        self.steps()
        self.bookmark("still without", [0, 1])

        self.machine.end()
        gained = self.rng.randbytes(3 * MIB)
        with open(self.work / "disk1.img", "ab") as file:
            file.write(gained)
        self.model.disks[1] += gained
        self.machine.start()
        self.farshore.wait_for("the growth is seen", lambda: self.farshore.call(
            "disk", "list", "vm")[1]["size_bytes"] == len(self.model.disks[1]), 60)
        self.farshore.wait_for("the mirrors are attached again", lambda: len(self.machine.mirrors()) == 2, 60)
        self.wait_state("vm", "protected")
        self.steps()
        self.bookmark("grown", [0, 1])
        self.check_all()
        self.farshore.call("unprotect", "vm")
        self.assert_mirrored()
        self.steps()


class AgentAway(MirroredMachine):
    def start(self):
        self.farshore.start_split(self.work / "site")

    def test_a_disk_that_is_added_while_the_agent_is_away(self):
        """Breaks when an agent that finds a further disk at its start has everything compared."""
        self.steps()
        gaps, compared = self.gaps(), self.compared()
        self.plug(3 * MIB + 512)
        self.farshore.kill_servers("agent")
        self.farshore.call("disk", "add", "vm", "disk2", "--no-wait")
        self.steps()
        self.farshore.restart_server("agent")
        self.wait_under_writes("the disk has joined", lambda: self.states() == ["protected"] * 3)
        self.bookmark("joined", [0, 1, 2])
        self.assertEqual(gaps, self.gaps(), "the added disk opened a gap")
        self.assertLess(self.compared() - compared, 7 * MIB, "the others were read again")
        self.assert_mirrored(0, 1, 2)
        self.check_all()


if __name__ == "__main__":
    support.main()

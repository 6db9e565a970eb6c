#!/usr/bin/env python3
"""End to end: points that two mirrored QEMUs share, and what a mirror that ends costs."""
import threading

import support
from farshore import FarshoreError
from mirror_test import RunningMachine
from support import BOOT_SECTOR, EndToEnd, Model, seeded

MIB = 1 << 20
PLACE, PLACES = 1 * MIB, 700    # of what the test writes, in blocks
ROUNDS, EACH = 14, 50


class MirroredGroup(EndToEnd):
    NAMES = ("left", "right")

    def begin(self, rng):
        self.models, self.machines = {}, {}
        self.farshore.start_up()
        for name in self.NAMES:
            directory = self.work / name
            directory.mkdir()
            model = Model([4 * MIB], rng)
            model.disks[0][:512] = BOOT_SECTOR.read_bytes()
            machine = RunningMachine(directory, model.make_files(directory))
            self.addCleanup(machine.end)
            machine.start()
            self.models[name], self.machines[name] = model, machine
            self.farshore.call("protect", name, "--qmp", machine.socket, "--point-interval", 5)
        for name in self.NAMES:
            self.wait_state(name, "protected")
        self.farshore.call("group", "create", "shop", *self.NAMES, "--crash-interval", 0)

    def write(self, name, place, number):
        """Block `place` has `number` everywhere; acknowledged."""
        self.machines[name].control.qemu_io("disk0", f"write -P {number} {PLACE + 4096 * place} 4096")

    def point(self, label):
        """Its shared point, or None: it was not made."""
        try:
            made = self.farshore.call("group", "point", "shop", "--label", label)
        except FarshoreError:
            return None
        return made if made["state"] == "stored" else None

    def places(self, point, name, number):
        """The blocks that have `number` in a machine's part of the point."""
        disk = self.read_point(name, f"shared:{point['id']}", 0)
        return {place for place in range(PLACES)
                if disk[PLACE + 4096 * place:][:4096] == bytes([number]) * 4096}

    def test_points_of_running_machines(self):
        """Breaks when a mirrored machine's writes cannot be held, or wait for longer than a moment."""
        rng = seeded()
        self.begin(rng)
        for number in range(1, 5):
            for name in self.NAMES:
                for _ in range(20):
                    self.machines[name].step(self.models[name], rng)
            expected = {name: self.models[name].copy() for name in self.NAMES}
            self.farshore.wait_for("a shared point", lambda n=number: self.point(f"round-{n}"), 60)
            for name in self.NAMES:
                self.assert_point(name, f"round-{number}", expected[name])

    def test_a_mirror_that_ends_costs_the_point(self):
        """Breaks when a write that went past the tap is missing in a point that has what came after it
        on another machine."""
        rng = seeded()
        self.begin(rng)
        self.assertTrue(self.farshore.wait_for("a shared point", lambda: self.point("first"), 60))
        for number in range(1, ROUNDS + 1):
            asked = []
            asking = threading.Thread(target=lambda n=number, to=asked: to.append(self.point(f"broken-{n}")))
            asking.start()
            # First at the left, then at the right, in turn; again and again somebody ends the left one's mirror:
            # QEMU goes on, and tells nobody.
            end_at, written = rng.randrange(EACH), 0
            while not asked and written < PLACES:
                if written % EACH == end_at:
                    for job in self.machines["left"].mirrors():
                        self.machines["left"].control.execute("block-job-cancel", device=job, force=True)
                self.write("left", written, number)
                self.write("right", written, number)
                written += 1
            asking.join()
            if asked[0]:
                without_cause = self.places(asked[0], "right", number) - self.places(asked[0], "left", number)
                self.assertEqual(set(), without_cause, f"round {number}: an effect without its cause")
            # In time it is attached again, and there are points again.
            self.farshore.wait_for("the mirror", lambda: self.machines["left"].mirrors(), 60)
            self.wait_state("left", "protected")
            whole = self.farshore.wait_for("a point again", lambda n=number: self.point(f"whole-{n}"), 90, 1)
            for name in self.NAMES:
                self.assertEqual(set(range(written)), self.places(whole, name, number), name)


if __name__ == "__main__":
    support.main()

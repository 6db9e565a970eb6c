#!/usr/bin/env python3
"""Machines under load on real processes, struck at random again and again, and an oracle.

FARSHORE_SOAK_S says for how long (60). Each machine has somebody who writes to it all the time and
knows what its disks must hold. After each strike (kills, freezes, full disks, a cut line) all that
was struck is mended; then each machine must be protected again, its disks must hold what was
written, and a point that is made now must too; now and then older points and moments are compared."""
import datetime
import os
import random
import signal
import threading
import time

import support
from faults import MIB, FaultTest
from line import CutLine
from support import FarshoreError, Model, seeded

SOAK_S = float(os.environ.get("FARSHORE_SOAK_S") or 60)
PROTECTED_AGAIN_S = 180
STEP_S = 0.03           # from one request to the next, on average
MOMENT_EACH = 60        # requests
COMPARED_EACH = 4       # strikes
PLACE_MIB = 64          # of the small file systems


class Machine:
    """A protected machine, the one who writes to it, and what was promised about it."""

    def __init__(self, test, name, sizes, rng):
        self.test, self.name, self.rng = test, name, rng
        self.model = Model(sizes, rng)
        self.clients = []
        self.promised = []      # (point, disks, whether a gap may have taken it)
        self.doubt = None       # (disk, from, to) of a request that was not answered
        self.error = None
        self.requests = 0
        self.thread = None

    def protect(self):
        directory = self.test.work / f"disks-{self.name}"
        directory.mkdir()
        words = [word for path in self.model.make_files(directory) for word in ("--disk", path)]
        self.test.farshore.call("protect", self.name, *words)
        self.test.wait_state(self.name, "protected")
        self.clients = self.test.open_disks(self.name)

    def step(self):
        disks, rng = self.model.disks, self.rng
        number = rng.randrange(len(disks))
        disk, client = disks[number], self.clients[number]
        length = min(rng.choice([512, 1000, 4096, 5000, 65536, 200_000]), len(disk))
        offset = rng.randrange(len(disk) - length + 1)
        self.doubt = (number, offset, offset + length)
        kind = rng.choice("wwwwwztf")
        if kind == "w":
            data = rng.randbytes(length) if rng.random() < 0.5 else bytes([rng.randrange(256)]) * length
            client.write(offset, data, fua=rng.random() < 0.1)
            disk[offset:offset + length] = data
        elif kind == "z":
            client.zero(offset, length)
            disk[offset:offset + length] = bytes(length)
        elif kind == "t":    # what a trimmed range holds is the disk's choice
            client.trim(offset, length)
            disk[offset:offset + length] = client.read(offset, length)
        else:
            client.flush()
        self.doubt = None
        self.requests += 1

    def write(self, stop):
        try:
            while not stop.is_set():
                self.step()
                stop.wait(self.rng.random() * 2 * STEP_S)
                if self.requests % MOMENT_EACH == 0:
                    stop.wait(0.01)
                    self.promised.append((time.time(), self.model.copy(), True))
                    time.sleep(0.01)
        except (OSError, ConnectionError) as error:
            self.error = error

    def start(self, stop):
        self.error = None
        self.thread = threading.Thread(target=self.write, args=(stop,), daemon=True)
        self.thread.start()

    def settle(self, number):
        """Everything is mended: the disks hold what was written, and a point says so."""
        test = self.test
        for client in self.clients:
            client.close()
        self.clients = test.open_disks(self.name, PROTECTED_AGAIN_S)
        for disk, (expected, client) in enumerate(zip(self.model.disks, self.clients)):
            found = b"".join(client.read(at, min(MIB, client.size - at)) for at in range(0, client.size, MIB))
            if self.doubt is not None and self.doubt[0] == disk:
                _, begin, end = self.doubt
                expected[begin:end] = found[begin:end]
            test.assertEqual("equal", support.first_difference(found, bytes(expected)),
                             f"disk {disk} of '{self.name}' itself")
        self.doubt = None
        label = f"after-{number}"
        test.bookmark(label, self.name, PROTECTED_AGAIN_S)
        test.wait_state(self.name, "protected", timeout_s=PROTECTED_AGAIN_S)
        self.promised.append((label, self.model.copy(), False))

    def compare(self, chosen):
        """How many of the promises could be compared; a moment may lie in a gap."""
        compared = 0
        for point, disks, may_be_in_gap in chosen:
            if may_be_in_gap:
                point = datetime.datetime.fromtimestamp(point, datetime.timezone.utc).isoformat()
            try:
                self.test.assert_point(self.name, point, disks)
                compared += 1
            except FarshoreError as error:
                if not (may_be_in_gap and "gap" in str(error)):
                    raise
        return compared

    def forget_some(self):
        """Memory is bounded: the newest are kept, and a sample of the others."""
        while len(self.promised) > 60:
            del self.promised[self.rng.randrange(len(self.promised) - 20)]


class Soak(CutLine, FaultTest):
    def small_places(self, *directories):
        self.places = [self.small_file_system(directory, PLACE_MIB) for directory in directories]

    def run_strikes(self, strikes, servers):
        rng = self.rng
        machines = [Machine(self, "web", [2 * MIB, MIB + 512], random.Random(rng.getrandbits(64))),
                    Machine(self, "db", [3 * MIB], random.Random(rng.getrandbits(64)))]
        for machine in machines:
            machine.protect()
        deadline, number, compared, done = time.monotonic() + SOAK_S, 0, 0, {}
        while time.monotonic() < deadline:
            stop = threading.Event()
            for machine in machines:
                machine.start(stop)
            strike = rng.choice(strikes)
            time.sleep(rng.uniform(0.2, 3.0))
            may_interrupt = strike(servers)
            time.sleep(rng.uniform(0.0, 1.0))
            stop.set()
            for machine in machines:
                machine.thread.join(60)
                self.assertFalse(machine.thread.is_alive(), f"a request to '{machine.name}' hangs")
                if machine.error is not None and not may_interrupt:
                    raise AssertionError(f"{strike.__name__} was felt by '{machine.name}'") from machine.error
            self.farshore.check_servers()
            for machine in machines:
                machine.settle(number)
            done[strike.__name__] = done.get(strike.__name__, 0) + 1
            number += 1
            if number % COMPARED_EACH == 0:
                for machine in machines:
                    compared += machine.compare(machine.rng.sample(machine.promised, 2))
                    machine.forget_some()
        for machine in machines:
            compared += machine.compare(machine.promised[-4:])
            found = self.farshore.call("resync", machine.name)
            self.assertEqual(("done", 0), (found["state"], found["differing_bytes"]), found)
        print(f"soak: {number} strikes {done}, {sum(m.requests for m in machines)} requests, "
              f"{compared} points compared", flush=True)

    # ---- strikes: each undoes what it did, and says whether a machine may have felt it

    def kill_taps(self, _):
        self.farshore.kill_descendants("nbdkit")
        return True

    def kill_one(self, servers):
        name = self.rng.choice(servers)
        self.farshore.kill_servers(name)
        time.sleep(self.rng.choice([0, 0.3, 2]))
        self.farshore.restart_server(name)
        return False

    def kill_all(self, servers):
        """As when the machines lose power, but that their disks forget nothing."""
        self.farshore.kill_servers(*servers)
        if self.rng.random() < 0.5:
            self.kill_taps(servers)
        for name in servers:
            self.farshore.restart_server(name)
        return True

    def freeze(self, servers):
        """A server sleeps for a while, and goes on as if nothing had been."""
        process = self.farshore.servers[self.rng.choice(servers)]
        process.send_signal(signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.5, 6))
        process.send_signal(signal.SIGCONT)
        return False

    def fill_a_disk(self, _):
        hog = self.fill(self.rng.choice(self.places))
        time.sleep(self.rng.uniform(1, 5))
        hog.unlink()
        return False

    def cut(self, _):
        self.cut_line()
        time.sleep(self.rng.uniform(0.5, 12))
        self.mend_line()
        return False

    def test_one_process(self):
        """Breaks when any strike costs a machine what it wrote, or its protection: all in one process."""
        self.rng = seeded()
        data = self.farshore.data
        self.small_places(data / "agent", data / "appliance", data / "vault")
        self.start_up()
        self.run_strikes([self.kill_taps, self.kill_one, self.kill_all, self.freeze, self.fill_a_disk],
                         ["up"])

    def test_three_programs(self):
        """The same with the three programs apart, and a line between them."""
        self.rng = seeded()
        host = self.make_line()
        site = self.work / "site"
        self.small_places(site / "agent", site / "appliance", self.farshore.data / "vault")
        self.farshore.start_vault()
        self.farshore.start_site(site, ("appliance", "agent"), host)
        self.run_strikes([self.kill_taps, self.kill_one, self.kill_one, self.kill_all, self.freeze,
                          self.fill_a_disk, self.cut, self.cut], ["agent", "appliance", "vault"])


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""The local sockets of a protected machine: the tap's nbd.sock, source.sock that QEMU serves its disks
to the tap on, and the monitor. Clients there speak garbage, say half of it, drip, or come in crowds:
the machine's writes and the log go on, and the point equals the model."""
import contextlib
import resource
import socket
import struct
import time

import support
from faults import MIB, FaultTest, descriptors, settle
from mirror_test import RunningMachine
from support import BOOT_SECTOR, Model, NbdClient, seeded

CROWD = 300        # connections that stay; a tap has one thread or more for each
DESCRIPTORS = 512  # what the tap is given, so that
FLOOD = 1000       # are more than it can have
REQUEST = 0x25609513
WRITE_PATIENCE_S = 5


@contextlib.contextmanager
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(path, timeout_s=2.0):
    """A connection, or nothing when the server takes none just now."""
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    wire.settimeout(timeout_s)
    try:
        wire.connect(str(path))
    except OSError:
        wire.close()
        return None
    return wire


def talk(path, data):
    """Says it, ends the sending, and reads until the server closes or is silent."""
    wire = connected(path)
    if wire is None:
        return
    with wire:
        wire.settimeout(0.2)
        try:
            wire.sendall(data)
            wire.shutdown(socket.SHUT_WR)
            while wire.recv(1 << 16):
                pass
        except OSError:
            pass


def option(number, body, length=None):
    return struct.pack(">8sII", b"IHAVEOPT", number, len(body) if length is None else length) + body


def request(kind, offset, length, flags=0):
    return struct.pack(">IHHQQI", REQUEST, flags, kind, 7, offset, length)


class Sockets(FaultTest):
    def negotiated(self, path, export):
        """The socket of a client that came as far as requests."""
        client = NbdClient(path, export)
        self.addCleanup(client._socket.close)
        client._socket.settimeout(0.2)
        return client._socket

    def say(self, path, export, data):
        """`data` where requests are expected. None of it may be a write that is complete."""
        wire = self.negotiated(path, export)
        try:
            wire.sendall(data)
            while wire.recv(1 << 16):
                pass
        except OSError:
            pass
        wire.close()

    def greetings(self):
        """What comes before the first request."""
        rng = self.rng
        start = struct.pack(">I", 3)
        yield b""
        yield b"\0"
        yield rng.randbytes(rng.randrange(1, 4000))
        yield b"{\"execute\":\"quit\"}\n" * 50
        yield struct.pack(">I", 0xffffffff)
        yield start + rng.randbytes(500)
        yield start + option(1, b"", 0xffffffff)                       # EXPORT_NAME of 4 GiB
        yield start + option(7, b"\xff\xff\xff\xff" + bytes(6))        # GO with a name of 4 GiB
        yield start + option(7, struct.pack(">I", 1) + b"0" + struct.pack(">H", 65535))
        yield start + option(7, struct.pack(">I", 4) + b"9999" + struct.pack(">H", 0))
        yield start + option(7, struct.pack(">I", 1) + b"0")           # cut
        yield start + option(0x7fffffff, b"x" * 100)
        yield start + option(3, b"", 70_000) + bytes(70_000)           # LIST with a body
        yield start + option(5, b"") + rng.randbytes(300)              # STARTTLS
        yield start + option(3, b"") * 200                             # LIST again and again

    def requests(self, size):
        """What comes instead of requests; nothing in it changes the disk."""
        rng = self.rng
        yield b"\0" * 28
        yield rng.randbytes(28)
        yield request(0, 0, 0xffffffff)                                # read 4 GiB
        yield request(0, size, 512)                                    # beyond the end
        yield request(0, (1 << 64) - 1, 512)
        yield request(1, size - 10, 512) + b"\xee" * 512               # a write across the end
        yield request(1, 1 << 63, 512) + b"\xee" * 512
        yield request(1, 0, 0xffffffff) + b"\xee" * 70_000             # a write of 4 GiB, begun
        yield request(1, 0, 4096, flags=0xffff) + b"\xee" * 4000
        yield request(1, 0, 65536) + b"\xee" * 65535                   # all but a byte
        yield request(4, size, 0xffffffff)
        yield request(6, size - 1, 512)
        yield request(77, 0, 0)
        yield request(5, 0, 0) * 100
        yield request(0, 0, 512) * 300                                 # and nobody reads the answers

    def attack(self, path, sizes):
        """`sizes`: of the disks, by export."""
        for number, data in enumerate(self.greetings()):
            talk(path, data)
            if number % 5 == 0:
                self.step()
        for export, size in sizes.items():
            for number, data in enumerate(self.requests(size)):
                self.say(path, export, data)
                if number % 5 == 0:
                    self.step()

    def taps(self):
        return [pid for pid, command in self.farshore.descendants() if "nbdkit" in command]

    def wait_descriptors(self, pid, limit):
        # nbdkit 1.32 loses a descriptor each time it has none left for a connection's pipe.
        logs = "".join(log.read_text(errors="replace") for log in self.farshore.data.rglob("nbd.log"))
        limit += logs.count("pipe2: Too many open files")
        self.farshore.wait_for("the tap has closed what is gone",
                               lambda: descriptors(pid) <= limit, 30)

    # --- in path ---------------------------------------------------------------------------

    def begin(self):
        self.rng = seeded()
        self.model = Model([MIB, MIB // 2 + 512], self.rng)
        self.start_up()
        self.protect(self.model, "web", "--point-interval", 1)
        self.clients = self.open_disks("web")
        self.where = self.nbd_sockets(self.farshore.call("item", "web"))
        self.path = self.where[0][0]
        self.tap = self.taps()[0]
        self.before = settle(lambda: descriptors(self.tap))

    def step(self, count=3):
        """The machine writes: with an answer in time, through the connections that it has."""
        for _ in range(count):
            begin = time.monotonic()
            self.model.random_step(self.clients, self.rng)
            self.assertLess(time.monotonic() - begin, WRITE_PATIENCE_S, "the machine waited")

    def assert_unharmed(self):
        self.step(10)
        self.bookmark("after")
        self.assert_point("web", "after", self.model.copy())
        for number, disk in enumerate(self.model.disks):
            on_disk = (self.work / f"disk{number}.img").read_bytes()
            self.assertEqual("equal", support.first_difference(on_disk, disk), f"disk {number}")
        self.assertEqual([self.tap], self.taps(), "the tap did not live through it")
        self.wait_descriptors(self.tap, self.before + 2)
        self.wait_healthy()
        for client in self.open_disks("web"):    # and new ones are let in
            client.read(0, 512)

    def test_garbage_at_a_tap(self):
        """Breaks when what is no NBD, or too large, or cut anywhere, ends the tap (it is the machine's
        disk), reaches the disk, or keeps a descriptor."""
        self.begin()
        self.attack(self.path, {export: len(disk) for (_, export), disk in
                                zip(self.where, self.model.disks)})
        self.assert_unharmed()

    def test_clients_that_drip(self):
        """Breaks when a client that is in the middle of a request holds a lock or a thread that the
        machine's own requests need: the range is the one that the machine writes."""
        self.begin()
        drips = []
        for number in range(40):
            wire = self.negotiated(self.path, self.where[0][1])
            wire.sendall(request(1, 0, 65536))
            drips.append(wire)
        for number in range(40):
            wire = connected(self.path)
            wire.sendall(struct.pack(">I", 3) + option(7, b"", 1 << 15))
            drips.append(wire)
        for turn in range(30):
            for wire in drips:
                try:
                    wire.sendall(b"\xee")
                except OSError:
                    pass
            data = bytes([turn]) * 65536
            self.clients[0].write(0, data)
            self.model.disks[0][:65536] = data
            self.step(1)
        self.bookmark("among-the-drips")
        self.assert_point("web", "among-the-drips", self.model.copy())
        for wire in drips:
            wire.close()
        self.assert_unharmed()

    def test_a_crowd_at_a_tap(self):
        """Breaks when connections that stay, or more of them than there are descriptors, end the tap,
        or stop the connections that the machine has."""
        self.begin()
        resource.prlimit(self.tap, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        with many_descriptors():
            crowd = []
            for number in range(CROWD):
                crowd.append(connected(self.path))
                if crowd[-1] is not None and number % 2 == 0:
                    crowd[-1].sendall(struct.pack(">I", 3))
            self.step(10)
            self.bookmark("among-the-crowd")
            self.assert_point("web", "among-the-crowd", self.model.copy())
            # Past what the tap can take: it may refuse, not more.
            refused = 0
            while len(crowd) < FLOOD and refused < 20:
                crowd.append(connected(self.path, 0.05))
                refused += crowd[-1] is None
            print(f"{sum(wire is not None for wire in crowd)} connections at once", flush=True)
            self.step(10)
            self.assertEqual([self.tap], self.taps(), "the crowd ended the tap")
            for wire in crowd:
                if wire is not None:
                    wire.close()
        self.assert_unharmed()

    # --- a mirror --------------------------------------------------------------------------

    def test_a_mirror(self):
        """Breaks when garbage at either end of a mirror, the tap's socket or QEMU's, stops the guest,
        the first copy or the log, or has the tap replaced."""
        self.rng = seeded()
        self.model = Model([4 * MIB, 2 * MIB], self.rng)
        self.model.disks[0][:512] = BOOT_SECTOR.read_bytes()
        machine = RunningMachine(self.work, self.model.make_files(self.work))
        self.addCleanup(machine.end)
        machine.start()
        self.step = lambda count=3: [machine.step(self.model, self.rng) for _ in range(count)]
        self.start_up()
        # Slow enough that the first copy reads through source.sock while that is attacked.
        self.farshore.call("protect", "vm", "--qmp", machine.socket, "--point-interval", 1,
                           "--throttle", MIB)
        source = self.farshore.wait_for("QEMU serves its disks", lambda: next(
            self.farshore.data.glob("agent/taps/*/source.sock"), None), 20)
        self.farshore.wait_for("the tap serves", lambda: (source.parent / "nbd.sock").exists(), 20)
        taps = self.taps()
        # A client of source.sock reads the machine's disks and can do no more.
        for data in self.greetings():
            talk(source, data)
        self.step()
        self.wait_state("vm", "protected")
        stay = []
        for path in (source, source.parent / "nbd.sock"):
            for data in self.greetings():
                talk(path, data)
            for _ in range(60):
                stay.append(connected(path))
                if stay[-1] is not None:
                    stay[-1].sendall(struct.pack(">I", 3) + b"IHAVE")
            self.step()
        for data in self.requests(2 * MIB):
            self.say(source.parent / "nbd.sock", "1", data)
        self.step(20)
        self.bookmark("among-them", "vm")
        self.assert_point("vm", "among-them", self.model.copy())
        self.assertEqual(taps, self.taps(), "the tap did not live through it")
        self.assertEqual(0, self.farshore.call("item", "vm")["tap_restarts"])
        for wire in stay:
            if wire is not None:
                wire.close()
        self.wait_healthy("vm")

    def test_an_occupied_monitor(self):
        """Breaks when a stranger who holds the machine's monitor stops more than the control: the log
        goes on, health says it, and the agent is back when the stranger leaves."""
        self.rng = seeded()
        self.model = Model([2 * MIB], self.rng)
        self.model.disks[0][:512] = BOOT_SECTOR.read_bytes()
        machine = RunningMachine(self.work, self.model.make_files(self.work))
        self.addCleanup(machine.end)
        machine.start()
        self.start_up()
        self.farshore.call("protect", "vm", "--qmp", machine.socket, "--point-interval", 1)
        self.wait_state("vm", "protected")
        # In the queue of the monitor, which serves one at a time: they are next.
        strangers = [wire for wire in [connected(machine.socket, 0.2) for _ in range(3)] if wire]
        self.assertTrue(strangers)
        for wire in strangers:
            self.addCleanup(wire.close)
            wire.sendall(self.rng.choice([b"", b"\0" * 100, b"{" * 5000]) + self.rng.randbytes(200))
        self.farshore.kill_servers("up")
        self.restart_up()
        trouble = self.farshore.wait_for("health tells of the monitor", lambda: next(iter(
            trouble for trouble in self.farshore.call("item", "vm")["troubles"]
            if "machine can't be reached" in trouble["cause"]), None), 40)
        self.assertIn(trouble["code"], ("timeout", "unavailable", "connection-lost", "malformed"))
        for _ in range(20):
            machine.step(self.model, self.rng)
        for wire in strangers:
            wire.close()
        self.wait_healthy("vm")
        for _ in range(20):
            machine.step(self.model, self.rng)
        self.bookmark("after", "vm")
        self.assert_point("vm", "after", self.model.copy())


if __name__ == "__main__":
    support.main()

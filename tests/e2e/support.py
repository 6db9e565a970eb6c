"""What the end-to-end tests share: servers on a directory of their own, disks with a model, NBD.

Each test uses the real programs as a user would. A test that draws anything prints its seed, and
FARSHORE_SEED repeats it."""
import json
import os
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/demo")]

from farshore import Farshore, FarshoreError  # noqa: E402

BINARY = pathlib.Path(os.environ.get("FARSHORE_BINARY") or ROOT / "build/release/bin/farshore")
BOOT_SECTOR = ROOT / "tests/e2e/bootsector/bootsector.bin"


def seeded():
    seed = int(os.environ.get("FARSHORE_SEED") or random.SystemRandom().getrandbits(32))
    print(f"seed {seed} (repeat with FARSHORE_SEED={seed})", flush=True)
    return random.Random(seed)


class RequestRefused(OSError):
    """An NBD server's answer to a request, and so the error that a machine sees."""


class NbdClient:
    """A small NBD client (https://github.com/NetworkBlockDevice/nbd, doc/proto.md): fixed newstyle,
    simple replies. One request at a time, so that a test knows the order of its writes."""

    READ, WRITE, DISCONNECT, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6

    def __init__(self, path, export, timeout_s=30):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._start(path, export)
        except BaseException:
            self._socket.close()
            raise

    def _start(self, path, export):
        self._socket.connect(str(path))
        magic, options_magic, _ = struct.unpack(">8s8sH", self._receive(18))
        if (magic, options_magic) != (b"NBDMAGIC", b"IHAVEOPT"):
            raise ConnectionError("not an NBD server")
        name = str(export).encode()
        self._socket.sendall(struct.pack(">I", 3))    # fixed newstyle, no zeroes
        body = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
        self._socket.sendall(struct.pack(">8sII", b"IHAVEOPT", 7, len(body)) + body)   # GO
        while True:
            _, _, kind, length = struct.unpack(">QIII", self._receive(20))
            data = self._receive(length)
            if kind == 3 and struct.unpack(">H", data[:2])[0] == 0:
                self.size, self.flags = struct.unpack(">QH", data[2:12])
            elif kind == 1:
                break
            elif kind & 0x80000000:
                raise ConnectionError(f"the export '{export}' is refused: {data.decode(errors='replace')}")
        self._handle = 0

    def _receive(self, length):
        parts = b""
        while len(parts) < length:
            data = self._socket.recv(length - len(parts))
            if not data:
                raise ConnectionError("the NBD server went away")
            parts += data
        return parts

    def _request(self, kind, offset, length, payload=b"", answer=0, flags=0):
        self._handle += 1
        self._socket.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, self._handle, offset, length)
                             + payload)
        magic, error, handle = struct.unpack(">IIQ", self._receive(16))
        if magic != 0x67446698 or handle != self._handle:
            raise ConnectionError("the NBD server answers something else")
        if error:
            raise RequestRefused(error, f"NBD request {kind} at {offset}, {length} bytes")
        return self._receive(answer)

    def read(self, offset, length):
        return self._request(self.READ, offset, length, answer=length)

    def write(self, offset, data, fua=False):
        self._request(self.WRITE, offset, len(data), data, flags=1 if fua else 0)

    def flush(self):
        self._request(self.FLUSH, 0, 0)

    def trim(self, offset, length):
        self._request(self.TRIM, offset, length)

    def zero(self, offset, length):
        self._request(self.ZEROES, offset, length)

    def close(self):
        try:
            self._socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, self.DISCONNECT, 0, 0, 0))
        except OSError:
            pass
        self._socket.close()


class Model:
    """What the disks of a machine must hold. Small disks, whole in memory."""

    def __init__(self, sizes, rng):
        self.disks = [bytearray(rng.randbytes(size)) for size in sizes]

    def copy(self):
        return [bytes(disk) for disk in self.disks]

    def make_files(self, directory):
        paths = []
        for number, disk in enumerate(self.disks):
            path = pathlib.Path(directory) / f"disk{number}.img"
            path.write_bytes(disk)
            paths.append(path)
        return paths

    def random_step(self, clients, rng):
        """One random request on one disk, done to the disk and to the model. Returns False when the
        server went away in the middle: the model has then not changed, the disk perhaps."""
        number = rng.randrange(len(self.disks))
        disk, client = self.disks[number], clients[number]
        length = min(rng.choice([512, 1000, 4096, 5000, 65536, 200_000]), len(disk))
        offset = rng.randrange(len(disk) - length + 1)
        kind = rng.choice("wwwwwzt")
        if kind == "w":
            data = rng.randbytes(length) if rng.random() < 0.5 else bytes([rng.randrange(256)]) * length
            client.write(offset, data, fua=rng.random() < 0.1)
            disk[offset:offset + length] = data
        elif kind == "z":
            client.zero(offset, length)
            disk[offset:offset + length] = bytes(length)
        else:
            # What a trimmed range holds is the disk's choice, so the model asks.
            client.trim(offset, length)
            disk[offset:offset + length] = client.read(offset, length)


def first_difference(found, expected):
    if len(found) != len(expected):
        return f"{len(found)} bytes instead of {len(expected)}"
    for offset in range(0, len(found), 4096):
        if found[offset:offset + 4096] != expected[offset:offset + 4096]:
            at = next(i for i in range(offset, offset + 4096) if found[i] != expected[i])
            return f"differs at byte {at}"
    return "equal"


class EndToEnd(unittest.TestCase):
    """A directory and a Farshore of its own; everything that was started ends with the test."""

    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="farshore-e2e-"))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        self.farshore = Farshore(BINARY, self.work / "data", self.work / "logs",
                                 {"FARSHORE_ACCEL": "tcg"})
        self.addCleanup(self.show_logs_of_failure)
        self.addCleanup(self.farshore.end)

    def show_logs_of_failure(self):
        outcome = getattr(self, "_outcome", None)
        result = getattr(outcome, "result", None)
        if result is not None and any(test is self for test, _ in result.failures + result.errors):
            for log in sorted((self.work / "logs").glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}", file=sys.stderr)

    def wait_state(self, name, *states, timeout_s=120):
        return self.farshore.wait_for(
            f"'{name}' is {' or '.join(states)}",
            lambda: (item := self.farshore.call("item", name))["state"] in states and item, timeout_s)

    def count_gaps(self, name):
        return len(self.farshore.call("points", name, "--limit", 1000)["gaps"])

    def nbd_sockets(self, item):
        """(socket, export) of each disk of an in-path item."""
        found = []
        for disk in item["disks"]:
            uri = disk.get("nbd_uri") or ""
            path = uri.split("socket=", 1)[1] if "socket=" in uri else item["nbd_socket"]
            export = uri.split("///", 1)[1].split("?")[0] if "///" in uri else str(disk["index"])
            found.append((path, export))
        return found

    def open_disks(self, name, timeout_s=60):
        """NBD clients to the taps of an in-path item, as soon as they answer."""
        deadline = time.monotonic() + timeout_s
        while True:
            clients = []
            try:
                item = self.farshore.call("item", name)
                for path, export in self.nbd_sockets(item):
                    clients.append(NbdClient(path, export))
                    self.addCleanup(clients[-1].close)
                return clients
            except (OSError, FarshoreError, KeyError):
                for client in clients:
                    client.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def read_point(self, name, point, disk):
        """The whole disk at a point, through `farshore export`."""
        path = self.work / f"export-{disk}-{time.monotonic_ns()}.sock"
        process = subprocess.Popen(
            [str(BINARY), "export", name, "--point", str(point), "--disk", str(disk), "--socket",
             str(path), "--data", str(self.farshore.data), "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.farshore.environment)
        try:
            line = process.stdout.readline()
            if not line:
                raise FarshoreError("export", "", process.stderr.read().strip())
            export = json.loads(line)["uri"].split("///", 1)[1].split("?")[0]
            client = NbdClient(path, export)
            data = b"".join(client.read(offset, min(1 << 20, client.size - offset))
                            for offset in range(0, client.size, 1 << 20))
            client.close()
            return data
        finally:
            process.terminate()
            process.communicate(timeout=30)

    def assert_point(self, name, point, expected):
        for disk, content in enumerate(expected):
            found = self.read_point(name, point, disk)
            self.assertEqual("equal", first_difference(found, content), f"disk {disk} at point {point}")


def main():
    if not BINARY.exists():
        raise SystemExit(f"there is no {BINARY}: ./run build makes it")
    unittest.main(verbosity=2)

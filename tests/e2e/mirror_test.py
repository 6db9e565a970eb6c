#!/usr/bin/env python3
"""End to end, mirror: a running QEMU whose disks are written while it is protected.

The guest is a boot sector that halts; the writes are made by QEMU's own qemu-io on the guest's
devices, so they take the way of a guest's writes and the test knows each of them."""
import json
import socket
import subprocess
import time

import support
from support import BOOT_SECTOR, EndToEnd, Model, seeded

MIB = 1 << 20
BLOCK = 4096    # of a write that nobody waits for


class Qmp:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._stream.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            line = self._stream.readline()
            if not line:
                raise ConnectionError("QEMU went away")
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def qemu_io(self, device, command):
        answer = self.execute("human-monitor-command",
                              **{"command-line": f'qemu-io -d /machine/peripheral/{device}/virtio-backend "{command}"'})
        if answer.strip():    # success is told on QEMU's standard output
            raise RuntimeError(f"qemu-io {command}: {answer}")

    def close(self):
        self._socket.close()


class RunningMachine:
    def __init__(self, directory, paths):
        self._directory = directory
        self._paths = paths
        self._free = {}    # of each disk, the blocks that no write under way may be at
        self.socket = directory / "qmp.sock"
        self.process = None
        self.control = None

    def start(self):
        options = ["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none",
                   "-name", "mirrored", "-S",
                   "-qmp", f"unix:{self.socket},server=on,wait=off",
                   "-qmp", f"unix:{self._directory}/control.sock,server=on,wait=off"]
        for number, path in enumerate(self._paths):
            options += ["-blockdev", json.dumps(self.node(number, path)),
                        "-device", json.dumps(self.device(number))]
        self.process = subprocess.Popen(options, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.control = Qmp(self._directory / "control.sock")
                break
            except OSError:
                if self.process.poll() is not None:
                    raise
                time.sleep(0.05)
        self.control.execute("cont")

    def step(self, model, rng):
        number = rng.randrange(len(model.disks))
        disk = model.disks[number]
        length = 512 * rng.randrange(1, 200)
        offset = 512 * rng.randrange((len(disk) - length) // 512 + 1)
        if rng.random() < 0.8:
            pattern = rng.randrange(1, 256)
            self.control.qemu_io(f"disk{number}", f"write -P {pattern} {offset} {length}")
            disk[offset:offset + length] = bytes([pattern]) * length
        else:
            self.control.qemu_io(f"disk{number}", f"write -z {offset} {length}")
            disk[offset:offset + length] = bytes(length)

    def begin_write(self, model, rng):
        """A write that nobody waits for, as a guest's: QEMU's main loop goes on meanwhile. None meets
        another before settle(), so the model need not know their order."""
        number = rng.randrange(len(model.disks))
        disk = model.disks[number]
        if number in self._free and not self._free[number]:
            self.settle()
        if number not in self._free:
            self._free[number] = rng.sample(range(len(disk) // BLOCK), len(disk) // BLOCK)
        offset = self._free[number].pop() * BLOCK
        pattern = rng.randrange(1, 256)
        self.control.qemu_io(f"disk{number}", f"aio_write -q -P {pattern} {offset} {BLOCK}")
        disk[offset:offset + BLOCK] = bytes([pattern]) * BLOCK

    def settle(self):
        """Every write has ended. QEMU's main loop waits for it, whatever it waits for."""
        self.control.qemu_io("disk0", "aio_flush")    # it means all disks
        self._free = {}

    def plug(self, path):
        """A further disk, while the machine runs."""
        number = len(self._paths)
        self._paths = [*self._paths, path]
        self.control.execute("blockdev-add", **self.node(number, path))
        self.control.execute("device_add", **self.device(number))

    def mirrors(self):
        return sorted(job["device"] for job in self.control.execute("query-block-jobs"))

    @staticmethod
    def node(number, path):
        return {"driver": "raw", "node-name": f"node{number}",
                "file": {"driver": "file", "filename": str(path)}}

    @staticmethod
    def device(number):
        return {"driver": "virtio-blk-pci", "drive": f"node{number}", "id": f"disk{number}",
                "serial": f"serial{number}"}

    def end(self):
        if self.control is not None:
            self.control.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Mirror(EndToEnd):
    def begin(self, rng):
        model = Model([4 * MIB, 2 * MIB + 512], rng)
        model.disks[0][:512] = BOOT_SECTOR.read_bytes()
        paths = model.make_files(self.work)
        machine = RunningMachine(self.work, paths)
        self.addCleanup(machine.end)
        machine.start()
        self.farshore.start_up()
        self.farshore.call("protect", "vm", "--qmp", machine.socket, "--point-interval", 2)
        return model, machine

    def steps(self, model, machine, rng, count):
        for _ in range(count):
            machine.step(model, rng)

    def bookmark(self, model, expected, label):
        self.farshore.wait_for("bookmark", lambda: self.farshore.call("point", "vm", "--bookmark", label), 90)
        expected[label] = model.copy()

    def test_a_running_machine_is_protected_and_its_bookmarks_are_right(self):
        """Breaks when a mirrored write is lost, late or in the wrong order against the first copy."""
        rng = seeded()
        model, machine = self.begin(rng)
        self.steps(model, machine, rng, 60)
        self.wait_state("vm", "protected")
        expected = {}
        for number in range(3):
            self.steps(model, machine, rng, 40)
            self.bookmark(model, expected, f"round-{number}")
        for label, disks in expected.items():
            self.assert_point("vm", label, disks)

    def test_a_killed_tap_and_a_killed_agent_lose_nothing(self):
        """Breaks when the guest suffers, or a write made while the tap was away is forgotten."""
        rng = seeded()
        model, machine = self.begin(rng)
        self.wait_state("vm", "protected")
        expected = {}
        for number in range(4):
            self.steps(model, machine, rng, 20)
            if number % 2 == 0:
                self.assertTrue(self.farshore.kill_descendants("nbdkit"), "there was no tap")
            else:
                self.farshore.kill_servers("up")
                self.steps(model, machine, rng, 20)
                self.farshore.restart_server("up")
            self.steps(model, machine, rng, 20)
            self.wait_state("vm", "protected")
            self.bookmark(model, expected, f"kill-{number}")
        for label, disks in expected.items():
            self.assert_point("vm", label, disks)

    def test_a_tap_that_ends_is_back_while_qemu_answers_nobody(self):
        """Breaks when the next tap is asked for through a QEMU that waits for it: then the mirror is
        lost when QEMU's patience ends, and everything is compared."""
        rng = seeded()
        model, machine = self.begin(rng)
        self.wait_state("vm", "protected")
        gaps = self.count_gaps("vm")
        for _ in range(3):
            self.assertTrue(self.farshore.kill_descendants("nbdkit"), "there was no tap")
            for _ in range(5):
                machine.begin_write(model, rng)
            machine.settle()    # QEMU's main loop is in there until the tap is back
        expected = {}
        self.bookmark(model, expected, "drained")
        self.assertEqual(gaps, self.count_gaps("vm"), "a mirror was lost")
        self.assert_point("vm", "drained", expected["drained"])

    def test_a_machine_that_was_restarted_is_attached_again(self):
        """Breaks when a new QEMU on the same disks is taken for the one that was mirrored."""
        rng = seeded()
        model, machine = self.begin(rng)
        self.wait_state("vm", "protected")
        expected = {}
        self.steps(model, machine, rng, 30)
        self.bookmark(model, expected, "before")
        machine.end()
        machine.start()
        self.steps(model, machine, rng, 30)    # unseen: no mirror is attached yet
        self.farshore.wait_for("the mirror is attached again", lambda: any(
            job["type"] == "mirror" for job in machine.control.execute("query-block-jobs")), 90)
        self.wait_state("vm", "protected")
        self.steps(model, machine, rng, 30)
        self.bookmark(model, expected, "after")
        for label, disks in expected.items():
            self.assert_point("vm", label, disks)


if __name__ == "__main__":
    support.main()

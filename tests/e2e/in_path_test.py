#!/usr/bin/env python3
"""End to end, in the path: disks written through the tap, points read back over NBD."""
import pathlib
import subprocess

import support
from farshore import in_document
from support import BINARY, BOOT_SECTOR, EndToEnd, FarshoreError, Model, seeded

MIB = 1 << 20


class InPath(EndToEnd):
    def protect(self, model, name="web"):
        paths = model.make_files(self.work)
        arguments = [word for path in paths for word in ("--disk", path)]
        self.farshore.call("protect", name, *arguments, "--point-interval", 2)
        return paths

    def test_every_bookmark_is_the_disks_of_that_moment(self):
        """Breaks when order, boundaries or sizes are wrong anywhere between tap and export."""
        rng = seeded()
        # Disks of odd sizes: the last sector is no whole 4 KiB.
        model = Model([3 * MIB + 512, MIB], rng)
        self.farshore.start_up()
        self.protect(model)
        clients = self.open_disks("web")
        self.assertEqual([len(d) for d in model.disks], [c.size for c in clients])
        # Written while the first copy runs.
        for _ in range(20):
            model.random_step(clients, rng)
        self.wait_state("web", "protected")
        expected = {}
        for round_number in range(4):
            for _ in range(40):
                model.random_step(clients, rng)
            label = f"round-{round_number}"
            point = self.farshore.call("point", "web", "--bookmark", label)
            expected[label] = (point["sequence"], model.copy())
        for label, (sequence, disks) in expected.items():
            self.assert_point("web", label, disks)
            self.assert_point("web", sequence, disks)
        for client in clients:
            client.close()

    def test_a_reader_that_shares_nothing_with_the_writer_agrees(self):
        """Breaks when the format pages, `farshore extract` and what is stored disagree."""
        rng = seeded()
        model = Model([2 * MIB], rng)
        self.farshore.start_up()
        self.protect(model)
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        for _ in range(50):
            model.random_step(clients, rng)
        self.farshore.call("point", "web", "--bookmark", "here")
        out = self.work / "extracted.img"
        item = self.farshore.call("item", "web")
        done = subprocess.run(
            [str(BINARY), "extract", "--store", self.farshore.data / "store", "--key",
             self.farshore.data / "vault/key", "--item", item["id"], "--point", "here", "--disk", "0",
             "--out", out], capture_output=True, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual("equal", support.first_difference(out.read_bytes(), model.copy()[0]))

    def test_tools_of_others_read_a_point(self):
        """Breaks when the export is no good NBD server to nbdinfo, nbdcopy and qemu-img."""
        rng = seeded()
        model = Model([MIB + 1536], rng)
        self.farshore.start_up()
        self.protect(model)
        self.wait_state("web", "protected")
        self.farshore.call("point", "web", "--bookmark", "here")
        path = self.work / "x.sock"
        process = subprocess.Popen(
            [str(BINARY), "export", "web", "--point", "here", "--disk", "0", "--socket", path, "--data",
             self.farshore.data, "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            env=self.farshore.environment)
        try:
            process.stdout.readline()
            uri = f"nbd+unix:///?socket={path}"
            size = subprocess.run(["nbdinfo", "--size", uri], capture_output=True, text=True, check=True)
            self.assertEqual(len(model.disks[0]), int(size.stdout))
            for number, command in enumerate((["nbdcopy", uri], ["qemu-img", "convert", "-f", "raw",
                                                                 "-O", "raw", uri])):
                out = pathlib.Path(self.work / f"copy{number}")
                subprocess.run([*command, str(out)], check=True, capture_output=True)
                self.assertEqual("equal", support.first_difference(
                    out.read_bytes()[:len(model.disks[0])], model.copy()[0]), command[0])
        finally:
            process.terminate()
            process.communicate(timeout=30)

    def test_a_test_failover_boots_the_point_and_leaves_it_as_it_was(self):
        """Breaks when the recovered machine reads other bytes, or its writes reach the replica."""
        rng = seeded()
        model = Model([MIB], rng)
        boot = bytearray(BOOT_SECTOR.read_bytes())
        boot[0x1c4:0x1c8] = (9).to_bytes(4, "little")    # it overwrites sector 9
        model.disks[0][:512] = boot
        self.farshore.start_up()
        self.protect(model)
        self.wait_state("web", "protected")
        self.farshore.call("point", "web", "--bookmark", "good")
        clients = self.open_disks("web")
        clients[0].write(512, b"\xff" * 512)
        job = self.farshore.call("failover", "test", "web", "--point", "good")
        self.assertEqual("succeeded", job["state"], job)
        log = pathlib.Path(in_document([job, self.farshore.call("failover", "list", "web")],
                                               "serial_log"))
        self.farshore.wait_for("the machine has booted", lambda: b"DONE" in log.read_bytes(), 60)
        text = log.read_text(errors="replace")
        self.assertIn(f"l00000001 {bytes(model.disks[0][512:528]).hex()}", text.lower())
        self.assertIn("WROTE", text)
        self.assert_point("web", "good", model.copy())
        self.assertEqual("succeeded", self.farshore.call("failover", "cleanup", "web")["state"])
        self.assertEqual("protected", self.wait_state("web", "protected", "catching-up")["state"])

    def test_wrong_requests_are_named_errors(self):
        """Breaks when a mistake is answered with anything but its code."""
        rng = seeded()
        self.farshore.start_up()
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("item", "nobody")
        self.assertEqual("item-not-found", error.exception.code)
        model = Model([MIB], rng)
        self.protect(model)
        self.wait_state("web", "protected")
        for point, code in (("1999-01-01T00:00:00Z", "point-outside-window"),
                            # It may still come: not known yet is not the same as gone.
                            ("999999999999", "point-not-found"), ("no-such-label", "point-not-found")):
            with self.assertRaises(FarshoreError) as error:
                self.farshore.call("point", "web", "--point", point)
            self.assertEqual(code, error.exception.code, point)
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("protect", "web", "--disk", self.work / "disk0.img")
        self.assertEqual("already-exists", error.exception.code)
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("failover", "commit", "web")
        self.assertEqual("wrong-state", error.exception.code)


if __name__ == "__main__":
    support.main()

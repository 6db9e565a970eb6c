#!/usr/bin/env python3
"""Wrong names and points, and disks that are not what they were."""
import os
import time

import support
from faults import MIB, FaultTest
from support import BOOT_SECTOR, Model, seeded


class Points(FaultTest):
    def test_points_that_cannot_be_had(self):
        """Breaks when a wrong name or point is answered with anything but its code and what helps."""
        rng = seeded()
        model = Model([MIB], rng)
        self.start_up()
        self.protect(model)
        self.bookmark("here")
        points = self.farshore.call("points", "web")
        for verb in (("item", "nobody"), ("points", "nobody"), ("unprotect", "nobody"),
                     ("point", "nobody", "--bookmark", "x"), ("resync", "nobody"),
                     ("failover", "test", "nobody"), ("failover", "start", "nobody")):
            code, words = self.refused(*verb)
            self.assertEqual("item-not-found", code, words)
            self.assertIn("nobody", words)
        window = points["window"]
        for point, code, words in (
                ("1999-01-01T00:00:00Z", "point-outside-window", window["oldest"]["time"][:19]),
                ("9999999", "point-not-found", "9999999"),
                ("2099-01-01T00:00:00Z", "point-outside-window", window["oldest"]["time"][:19]),
                ("no such label", "point-not-found", "no such label"),
                ("0", "point-outside-window", ""),
                ("99999999999999999999999", "", ""),
                ("2026-13-45T00:00:00Z", "", "")):
            for verb in (["point", "web", "--point", point],
                         ["failover", "test", "web", "--point", point]):
                found, text = self.refused(*verb)
                if code:
                    self.assertEqual(code, found, (verb, text))
                else:
                    self.assertIn(found, ("invalid-argument", "point-not-found"), (verb, text))
                self.assertIn(words, text)
        self.wait_healthy()

    def test_a_point_inside_a_gap(self):
        """Breaks when a state that never was on the source is offered, or the refusal leaves the
        reader without a point that he can use."""
        rng = seeded()
        model = Model([6 * MIB], rng)
        self.start_up("--ring-mib", 1, "--spill-mib", 0)
        self.protect(model)
        clients = self.open_disks("web")
        self.bookmark("before")
        before = model.copy()
        states = [before[0]]
        self.farshore.kill_servers("up")
        for _ in range(60):    # more than the ring takes while nobody reads it
            data = rng.randbytes(65536)
            offset = rng.randrange(len(model.disks[0]) - len(data))
            clients[0].write(offset, data)
            model.disks[0][offset:offset + len(data)] = data
            states.append(bytes(model.disks[0]))
        self.restart_up()
        self.bookmark("after")
        gap = self.farshore.call("points", "web")["gaps"][-1]
        good, again = gap["after"]["sequence"], gap["before"]["sequence"]
        self.assertLess(good + 1, again)
        code, words = self.refused("point", "web", "--point", (good + again) // 2)
        self.assertEqual("point-in-gap", code, words)
        self.assertIn(str(good), words)
        self.assertIn(str(again), words)
        self.assert_point("web", "before", before)
        self.assertIn(self.read_point("web", good, 0), states, "a state that never was")
        self.assert_point("web", "after", model.copy())


class ChangedDisks(FaultTest):
    def shrink(self, rng, while_down):
        model = Model([2 * MIB], rng)
        self.start_up()
        path = self.protect(model)[0]
        clients = self.open_disks("web")
        for _ in range(10):
            model.random_step(clients, rng)
        self.bookmark("before")
        before = model.copy()
        kept = path.read_bytes()
        if while_down:
            self.farshore.kill_servers("up")
            self.farshore.kill_descendants("nbdkit")
        os.truncate(path, len(kept) - MIB)
        if while_down:
            self.restart_up()
        self.wait_trouble("disk-changed", "old size", "disk remove")
        self.assert_point("web", "before", before)
        # As it was, it goes on, and nothing of it is lost.
        path.write_bytes(kept) if while_down else self.put_back(path, kept)
        self.wait_healthy()
        clients = self.open_disks("web")
        self.assertEqual("equal", support.first_difference(clients[0].read(0, 2 * MIB), before[0]))
        for _ in range(10):
            model.random_step(clients, rng)
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())
        # With the new size it can be protected anew.
        for client in clients:
            client.close()
        self.farshore.call("unprotect", "web")
        os.truncate(path, len(kept) - MIB)
        self.farshore.call("protect", "web", "--disk", path)
        self.wait_state("web", "protected")
        self.bookmark("new-size")
        self.assert_point("web", "new-size", [path.read_bytes()])

    def put_back(self, path, kept):
        os.truncate(path, len(kept))
        with open(path, "r+b") as file:
            file.write(kept)

    def test_grown_while_down(self):
        """Breaks when what a disk gained while nobody looked is not protected."""
        rng = seeded()
        model = Model([2 * MIB], rng)
        self.start_up()
        path = self.protect(model)[0]
        self.bookmark("before")
        before = model.copy()
        self.farshore.kill_servers("up")
        self.farshore.kill_descendants("nbdkit")
        model.disks[0] += rng.randbytes(MIB)
        path.write_bytes(model.disks[0])
        self.restart_up()
        client = self.farshore.wait_for("it is served as it is now", lambda: (
            one := self.open_disks("web")[0]).size == len(model.disks[0]) and one, 60)
        for _ in range(10):
            model.random_step([client], rng)
        self.wait_healthy()
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())
        self.assert_point("web", "before", before)

    def test_shrunk_while_down(self):
        """Breaks when a disk of another size is replicated as if it were the same."""
        self.shrink(seeded(), True)

    def test_shrunk_while_protected(self):
        self.shrink(seeded(), False)


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""Full disks at each place that keeps something: the guest goes on writing, health says what is
wrong, and with space everything comes back by itself, byte-equal."""
import support
from faults import MIB, FaultTest
from support import FarshoreError, Model, seeded


class FullDisk(FaultTest):
    def mounted(self, *parts, size_mib):
        return self.small_file_system(self.farshore.data.joinpath(*parts), size_mib)

    def steps(self, model, clients, rng, count):
        for _ in range(count):
            model.random_step(clients, rng)

    def run_full(self, place, rng, model, *, words, readable=True, keep=False):
        """Fills `place`, writes, looks at health, frees it, and compares."""
        clients = self.open_disks("web")
        self.steps(model, clients, rng, 20)
        self.bookmark("before")
        before = model.copy()
        make_room = self.keep_full(place) if keep else self.fill(place).unlink
        self.steps(model, clients, rng, 60)
        # Where what is stored makes room, all of those may have got in before others took it.
        trouble = self.wait_trouble(
            "no-space", *words, on_poll=lambda: self.steps(model, clients, rng, 2))
        self.assertTrue(trouble.get("remedy"), trouble)
        self.steps(model, clients, rng, 40)
        if readable:
            self.assert_point("web", "before", before)
        else:    # a reader leaves a trace where the vault keeps its own
            with self.assertRaises(FarshoreError) as error:
                self.read_point("web", "before", 0)
            self.assertIn('"code":"no-space"', str(error.exception))
            self.assertIn("free space", str(error.exception))
        make_room()
        self.bookmark("after")
        self.wait_healthy()
        self.assert_point("web", "after", model.copy())
        self.steps(model, clients, rng, 20)
        self.bookmark("later")
        self.assert_point("web", "later", model.copy())

    def test_store(self):
        """Breaks when an upload that failed is forgotten, or nobody is told that the store is full."""
        rng = seeded()
        model = Model([2 * MIB], rng)
        store = self.mounted("store", size_mib=24)
        self.start_up()
        self.protect(model)
        self.run_full(store, rng, model, words=["store", "free space"])
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])

    def test_spool(self):
        """Breaks when records that could not be kept are acknowledged, or never sent again."""
        rng = seeded()
        model = Model([2 * MIB], rng)
        spool = self.mounted("appliance", size_mib=24)
        self.start_up()
        self.protect(model)
        # What it has stored makes room for more, so others must take that.
        self.run_full(spool, rng, model, words=["spool", "free space"], keep=True)
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])

    def test_database(self):
        """Breaks when the vault acknowledges what its database did not take, or dies of it."""
        rng = seeded()
        model = Model([2 * MIB], rng)
        database = self.mounted("vault", size_mib=24)
        self.start_up()
        self.protect(model)
        self.run_full(database, rng, model, words=["database", "free space"], readable=False)
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])

    def test_spill(self):
        """Breaks when a spill that cannot grow stops the guest or hides what was dropped: it must
        become a gap, and the gap must be worked off."""
        rng = seeded()
        model = Model([6 * MIB], rng)
        agent = self.mounted("agent", size_mib=24)
        self.start_up("--ring-mib", 1)
        self.protect(model)
        clients = self.open_disks("web")
        self.bookmark("before")
        before = model.copy()
        hog = self.fill(agent)
        # The server is away: the ring fills, the spill cannot.
        self.farshore.kill_servers("up")
        for _ in range(60):
            data = rng.randbytes(65536)
            offset = rng.randrange(len(model.disks[0]) - len(data))
            clients[0].write(offset, data)
            model.disks[0][offset:offset + len(data)] = data
        self.restart_up()
        self.wait_trouble("no-space", "spill", "free space")
        hog.unlink()
        self.steps(model, clients, rng, 20)
        self.bookmark("after")
        self.wait_healthy()
        self.assert_point("web", "after", model.copy())
        self.assert_point("web", "before", before)
        self.assertTrue(self.farshore.call("points", "web")["gaps"])

    def test_ring(self):
        """Breaks when a ring that finds no memory is anything but a named error, or protection does
        not begin when there is memory."""
        rng = seeded()
        model = Model([MIB], rng)
        shared = self.small_file_system(self.work / "shm", 12)
        self.start_up("--ring-mib", 8, "--shared-dir", shared)
        hog = self.fill(shared)
        path = model.make_files(self.work)[0]
        code, words = self.refused("protect", "web", "--disk", path)
        self.assertEqual("no-space", code, words)
        self.assertIn(str(shared), words)
        hog.unlink()
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        self.steps(model, clients, rng, 20)
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())

    def test_everything_on_one_full_disk(self):
        """Breaks when one part needs space to get out of having none."""
        rng = seeded()
        model = Model([2 * MIB], rng)
        data = self.small_file_system(self.farshore.data, 48)
        self.start_up()
        self.protect(model)
        clients = self.open_disks("web")
        hog = self.fill(data)
        self.steps(model, clients, rng, 60)
        self.wait_trouble("no-space")
        # A server that is started on a full disk is no worse than one that runs there.
        self.farshore.kill_servers("up")
        self.steps(model, clients, rng, 20)
        hog.unlink()
        self.restart_up()
        self.bookmark("after")
        self.wait_healthy()
        self.assert_point("web", "after", model.copy())


if __name__ == "__main__":
    support.main()

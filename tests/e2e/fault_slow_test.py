#!/usr/bin/env python3
"""The appliance's disk is slow, or stands still: what the guest feels, what is offered, what is said,
and how it comes back. tests/e2e/slow_sync.c in front of the appliance is the disk."""
import os
import pathlib

import support
from faults import MIB, FaultTest
from support import BINARY, Model, seeded

SHIM = BINARY.parent.parent / "lib/slow_sync.so"


class SlowDisk(FaultTest):
    def start_site(self):
        self.site = self.work / "site"
        self.slowness = self.work / "slowness"
        self.farshore.start_vault()
        # "env" is the appliance's prefix alone: the others' disks are as ever.
        self.farshore.prefixes["appliance"] = [
            "env", f"LD_PRELOAD={SHIM}", f"FARSHORE_SLOW_SYNC_FILE={self.slowness}",
            f"FARSHORE_SLOW_SYNC_UNDER={self.site / 'appliance'}"]
        self.farshore.start_site(self.site, ("appliance", "agent"))

    def become(self, words):
        """A whole file at once: the shim may read it at any moment."""
        fresh = pathlib.Path(f"{self.slowness}.new")
        fresh.write_text(words)
        os.replace(fresh, self.slowness)

    def steps(self, model, clients, rng, count):
        for _ in range(count):
            model.random_step(clients, rng)

    def test_a_slow_disk_of_the_appliance(self):
        """Breaks when the guest waits for the appliance's disk, when what is not durable there is
        acknowledged and offered, or when it does not come back by itself."""
        rng = seeded()
        model = Model([2 * MIB, MIB], rng)
        self.start_site()
        self.protect(model)
        clients = self.open_disks("web")
        self.steps(model, clients, rng, 20)
        self.bookmark("before")
        before = model.copy()
        stored = self.farshore.call("item", "web")["stored_sequence"]

        self.become("stop")
        # Flushes are among the steps: a guest that waited for the appliance would never end this.
        self.steps(model, clients, rng, 200)
        moment = model.copy()
        self.wait_trouble("rpo-high", timeout_s=120)
        item = self.farshore.call("item", "web")
        self.assertEqual("catching-up", item["state"])
        # Whatever arrived before the disk stood still may be stored; nothing of the 200 steps behind.
        self.assertLess(item["stored_sequence"], stored + 20, "acknowledged before it was durable")
        self.assert_point("web", "before", before)

        self.become("200")
        self.bookmark("while-slow")
        self.assert_point("web", "while-slow", moment)
        self.steps(model, clients, rng, 50)
        self.bookmark("still-slow")

        self.slowness.unlink()
        self.steps(model, clients, rng, 20)
        self.bookmark("after")
        self.wait_healthy()
        self.assert_point("web", "after", model.copy())
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])


if __name__ == "__main__":
    support.main()

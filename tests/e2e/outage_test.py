#!/usr/bin/env python3
"""A line that is cut under load: the agent is in a network namespace of its own.

FARSHORE_OUTAGE_S says for how long (10; the soak test 600)."""
import datetime
import hashlib
import os
import time

import support
from line import CutLine
from support import FarshoreError, Model, seeded

MIB = 1 << 20
OUTAGE_S = int(os.environ.get("FARSHORE_OUTAGE_S") or 10)
COMPARED = 8    # moments of the outage


def digest(disks):
    return hashlib.sha256(b"".join(hashlib.sha256(disk).digest() for disk in disks)).digest()


class Outage(CutLine):
    def start_site(self, host, *agent_options):
        self.farshore.start_vault()
        self.farshore.start_site(self.work / "site", ("appliance", "agent"), host, agent_options)

    def test_after_an_outage_the_newest_comes_first_for_who_wants_it(self):
        """Breaks when the log of an outage is sent in order all the same, when something is missing
        afterwards, or when points of it are offered that are mixtures."""
        rng = seeded()
        host = self.make_line()
        self.start_site(host)
        model = Model([6 * MIB, 2 * MIB + 512], rng)
        paths = model.make_files(self.work)
        self.farshore.call("protect", "web", "--disk", paths[0], "--disk", paths[1],
                           "--catch-up", "newest-first", "--rpo-threshold", 2)
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        for _ in range(20):
            model.random_step(clients, rng)
        before = self.farshore.wait_for("a point before it", lambda: self.farshore.call(
            "point", "web", "--bookmark", "before"), 60)["sequence"]
        early = model.copy()
        self.cut_line()
        # The same places again and again; more than what is under way on a line that is cut.
        for _ in range(256):
            data = rng.randbytes(131072)
            offset = rng.randrange(8) * 131072
            clients[0].write(offset, data)
            model.disks[0][offset:offset + len(data)] = data
        inside = time.time()
        self.farshore.wait_for("that is old by now", lambda: time.time() > inside + 4, 30)
        self.mend_line()
        self.farshore.wait_for("its log was dropped", lambda: self.farshore.call(
            "points", "web")["gaps"], 120)
        self.wait_state("web", "protected")
        self.farshore.wait_for("a point behind it", lambda: self.farshore.call(
            "point", "web", "--bookmark", "after"), 60)
        self.assert_point("web", "after", model.copy())
        self.assert_point("web", before, early)
        resync = self.farshore.call("item", "web")["resync"]
        self.assertLess(resync["sent_bytes"], 4 * MIB, "more than what the disks hold was sent")

    def test_an_outage_longer_than_ring_and_spill(self):
        """Breaks when what the log could not keep is forgotten, a point is offered that mixes two
        moments, or somebody has to mend it."""
        rng = seeded()
        host = self.make_line()
        # As a day is for 256 MiB and 4 GiB.
        self.start_site(host, "--ring-mib", 1, "--spill-mib", 1)
        model = Model([6 * MIB, 2 * MIB + 512], rng)
        paths = model.make_files(self.work)
        self.farshore.call("protect", "web", "--disk", paths[0], "--disk", paths[1])
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        for _ in range(20):
            model.random_step(clients, rng)
        self.farshore.wait_for("a point before it", lambda: self.farshore.call(
            "point", "web", "--bookmark", "before"), 60)
        before = model.copy()
        moments = {digest(model.disks)}

        self.cut_line()
        for _ in range(96):    # six times what ring and spill hold, together
            data = rng.randbytes(131072)
            offset = rng.randrange(len(model.disks[0]) - len(data))
            clients[0].write(offset, data)
            model.disks[0][offset:offset + len(data)] = data
            moments.add(digest(model.disks))
        inside = time.time()
        for _ in range(50):
            model.random_step(clients, rng)
            moments.add(digest(model.disks))
        self.assert_point("web", "before", before)
        self.mend_line()

        def caught_up():
            item = self.farshore.call("item", "web")
            return item["state"] == "protected" and item["agent_seen"] and item["lag_bytes"] < 4096
        self.farshore.wait_for("it has caught up", caught_up, 180)
        self.farshore.wait_for("a point behind it", lambda: self.farshore.call(
            "point", "web", "--bookmark", "after"), 60)
        self.assertTrue(self.farshore.call("points", "web")["gaps"], "the log kept it all")
        self.assert_point("web", "before", before)
        self.assert_point("web", "after", model.copy())
        # Of the time that is missing: refused, or the last moment before it, but never a mixture.
        at = datetime.datetime.fromtimestamp(inside, datetime.timezone.utc).isoformat()
        try:
            found = digest([self.read_point("web", at, disk) for disk in range(2)])
        except FarshoreError as error:
            self.assertIn("gap", str(error))
        else:
            self.assertIn(found, moments, "a point that never was")

    def test_points_of_an_outage_exist_afterwards(self):
        """Breaks when a cut line stops the machine, costs the order of its writes, or needs somebody to mend it."""
        rng = seeded()
        host = self.make_line()
        self.start_site(host)
        model = Model([6 * MIB, 2 * MIB + 512], rng)
        paths = model.make_files(self.work)
        self.farshore.call("protect", "web", "--disk", paths[0], "--disk", paths[1])
        self.wait_state("web", "protected")
        clients = self.open_disks("web")

        self.cut_line()
        moments, begun, slowest = [], time.monotonic(), 0.0
        keep_each = max(1, OUTAGE_S // 5)
        while time.monotonic() - begun < OUTAGE_S:
            before = time.monotonic()
            model.random_step(clients, rng)
            slowest = max(slowest, time.monotonic() - before)
            time.sleep(0.01)
            if time.monotonic() - begun > len(moments) * keep_each:
                moments.append((time.time(), model.copy()))
                time.sleep(0.01)
        lost = {trouble["code"] for trouble in self.farshore.call("item", "web")["troubles"]}
        print(f"slowest request {slowest * 1000:.0f} ms; health: {lost}", flush=True)
        self.mend_line()

        def caught_up():
            item = self.farshore.call("item", "web")
            return item["state"] == "protected" and item["agent_seen"] and item["lag_bytes"] < 4096
        self.farshore.wait_for("it has caught up", caught_up, 120 + OUTAGE_S)
        self.farshore.wait_for("a point behind it", lambda: self.farshore.call(
            "point", "web", "--bookmark", "after"), 60)
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])
        for moment, disks in rng.sample(moments, min(COMPARED, len(moments))):
            at = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).isoformat()
            self.assert_point("web", at, disks)
        self.assert_point("web", "after", model.copy())


if __name__ == "__main__":
    support.main()

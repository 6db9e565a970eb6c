#!/usr/bin/env python3
"""A line that is cut under load: the agent is in a network namespace of its own.

FARSHORE_OUTAGE_S says for how long (10; the soak test 600)."""
import datetime
import os
import time

import support
from line import CutLine
from support import Model, seeded

MIB = 1 << 20
OUTAGE_S = int(os.environ.get("FARSHORE_OUTAGE_S") or 10)
COMPARED = 8    # moments of the outage


class Outage(CutLine):
    def test_points_of_an_outage_exist_afterwards(self):
        """Breaks when a cut line stops the machine, costs the order of its writes, or needs somebody to mend it."""
        rng = seeded()
        host = self.make_line()
        self.farshore.start_vault()
        self.farshore.start_site(self.work / "site", ("appliance", "agent"), host)
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

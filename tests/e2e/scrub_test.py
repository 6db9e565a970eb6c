#!/usr/bin/env python3
"""Damage in the store under a running vault: a scrub names it with the points that it costs, the
source sends again what was lost, and the newest point is whole."""
import time

import support
from faults import MIB, FaultTest
from support import Model, seeded


class Scrub(FaultTest):
    def begin(self):
        self.rng = seeded()
        self.model = Model([4 * MIB], self.rng)
        self.start_up()
        self.protect(self.model, "web", "--point-interval", 1)
        self.clients = self.open_disks("web")
        for _ in range(60):
            self.model.random_step(self.clients, self.rng)
        self.bookmark("before")
        self.store = self.farshore.data / "store"

    def troubles(self):
        return {trouble["code"] for trouble in self.farshore.call("item", "web")["troubles"]}

    def events(self, code):
        return [event for event in self.farshore.call("events", "--item", "web")["events"]
                if event["code"] == code]

    def segments(self):
        return sorted(path for path in self.store.rglob("*.seg") if "/log/" in str(path))

    def flip(self, path):
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)

    def until(self, what, done, timeout_s=90):
        until = time.monotonic() + timeout_s
        while not done():
            self.assertLess(time.monotonic(), until, f"{what}: not within {timeout_s} s")
            time.sleep(0.3)

    def test_a_flipped_byte_is_named_and_sent_again(self):
        """Breaks when damage stays hidden, is not sent again, or the newest point keeps it."""
        self.begin()
        clean = self.farshore.call("scrub", "web", "--now")
        self.assertEqual(("done", []), (clean["state"], clean["damaged"]))
        self.assertGreater(clean["read_bytes"], 0)
        # The largest one holds most of what the newest state needs.
        damaged = max(self.segments(), key=lambda path: path.stat().st_size)
        self.flip(damaged)
        found = self.farshore.call("scrub", "web", "--now")
        names = [one["object"] for one in found["damaged"]]
        self.assertEqual([str(damaged.relative_to(self.store))], names)
        self.assertTrue(found["damaged"][0]["points"]["ranges"])
        # The comparison that follows says that it met it, too.
        def named():
            return [event for event in self.events("replica-damaged")
                    if event["cause"].startswith(names[0] + " is damaged")]
        self.assertEqual(1, len(named()))
        if found["damaged"][0]["newest_point"]:
            self.until("the newest point is whole",
                       lambda: "replica-damaged" not in self.troubles())
            self.until("the comparison has ended", lambda: self.farshore.call("item", "web")[
                "resync_plan"]["stage"] == "none")
            self.assertTrue(self.events("replica-repaired"))
        self.wait_state("web", "protected")
        self.until("health is normal",
                   lambda: self.farshore.call("item", "web")["health"] == "normal")
        for _ in range(5):
            self.model.random_step(self.clients, self.rng)
        self.bookmark("after")
        self.assert_point("web", "after", self.model.disks)
        # What was lost is known still, and is not told again.
        again = self.farshore.call("scrub", "web", "--now")
        self.assertEqual(names, [one["object"] for one in again["damaged"]])
        self.assertFalse(again["damaged"][0]["newest_point"])
        self.assertEqual(1, len(named()))

    def test_a_scrub_goes_on_after_the_vault_was_killed(self):
        """Breaks when a killed scrub is lost, or one cannot be cancelled."""
        self.begin()
        self.farshore.kill_servers("up")
        # So slow that it is met under way: one segment takes longer than all of this.
        self.start_up("--scrub-bandwidth", "10kB/s")
        job = self.farshore.call("scrub", "web", "--now", "--no-wait")
        self.until("it has read something", lambda: self.farshore.call(
            "scrub", "web")["state"] == "running")
        self.farshore.kill_servers("up")
        self.start_up("--scrub-bandwidth", "10kB/s")
        self.until("it goes on", lambda: self.farshore.call("job", job["id"])["state"] == "running")
        self.farshore.call("job", job["id"], "--cancel")
        self.until("it is cancelled",
                   lambda: self.farshore.call("job", job["id"])["state"] == "cancelled")
        self.assertEqual("interrupted", self.farshore.call("scrub", "web")["state"])
        self.farshore.kill_servers("up")
        self.start_up()
        self.assertEqual("done", self.farshore.call("scrub", "web", "--now")["state"])


if __name__ == "__main__":
    support.main()

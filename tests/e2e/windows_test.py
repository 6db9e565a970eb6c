#!/usr/bin/env python3
"""End to end: comparisons that wait for their window, policies that change, bandwidth limits."""
import datetime
import time

import support
from support import FarshoreError, Model, seeded

import faults

MIB = 1 << 20
BLOCK = 64 << 10
# One object, the burst and the reserve of small ones (src/replicate/upload_gate.h).
SLACK_BYTES = 3 * MIB


def far_window():
    """A window that does not open for days."""
    day = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3)
    return f"{day:%a} 11:00-12:00 UTC"


class Windows(faults.FaultTest):
    def make(self, model, *policy):
        self.start_up("--shared-dir", self.work / "shared")
        self.paths = model.make_files(self.work)
        disks = [word for path in self.paths for word in ("--disk", path)]
        self.farshore.call("protect", "web", *disks, *policy)
        self.wait_state("web", "protected")

    def plan(self):
        return self.farshore.call("item", "web")["resync_plan"]

    def test_a_check_waits_for_its_window_and_is_cancelled(self):
        """Breaks when what can wait begins outside its window, is forgotten, or cannot be ended."""
        rng = seeded()
        model = Model([16 * MIB], rng)
        self.make(model, "--resync-windows", far_window())
        self.bookmark("before")
        self.assertEqual("waiting", self.farshore.call("resync", "web", "--in-window")["resync_plan"]["stage"])
        self.farshore.kill_servers("up")
        self.restart_up()
        self.farshore.wait_for("the vault knows it still", lambda: self.plan()["stage"] == "waiting", 30)
        # Until the agent has told the new vault, it is unknown.
        state = lambda: self.farshore.call("item", "web").get("resync", {}).get("state", "unknown")  # noqa: E731
        self.farshore.wait_for("the agent has told", lambda: state() != "unknown", 30)
        self.assertEqual("none", state())
        # The window opens by a change of the policy: it begins without a restart.
        changed = self.farshore.call("set", "web", "--resync-windows", "00:00-24:00")
        self.assertEqual({"resync_windows"}, set(changed["changed"]))
        self.farshore.wait_for("it was compared", lambda: "finished" in self.plan() and
                               self.plan()["stage"] == "none", 60)
        self.assertEqual(0, self.farshore.call("item", "web")["resync"]["differing_bytes"])
        # One that runs, slowly, can be cancelled; no point is lost, and what is written meanwhile is kept.
        self.farshore.call("set", "web", "--throttle", 64 << 10)
        self.farshore.call("resync", "web", "--no-wait")
        self.farshore.wait_for("it is compared", lambda: self.farshore.call("item", "web")["resync"]["state"]
                               == "comparing", 60, 0.05)
        clients = self.open_disks("web")
        for _ in range(10):
            model.random_step(clients, rng)
        self.assertEqual("none", self.farshore.call("resync", "web", "--cancel")["resync_plan"]["stage"])
        self.assertEqual("none", self.farshore.call("item", "web")["resync"]["state"])
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("resync", "web", "--cancel")
        self.assertEqual("wrong-state", refused.exception.code)
        self.farshore.call("set", "web", "--throttle", 0)
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])

    def test_what_is_needed_waits_only_if_told_so(self):
        """Breaks when an item without order waits for a window nobody meant for it, or cannot be made to."""
        rng = seeded()
        model = Model([16 * MIB], rng)
        self.make(model, "--resync-windows", far_window(), "--resync-windows-for", "all")
        for how in ("all", "what-can-wait"):
            self.farshore.kill_servers("up")
            self.farshore.kill_descendants()
            for path in (self.work / "shared").iterdir():
                path.unlink()   # the host crashed
            self.restart_up()
            if how == "all":
                self.wait_state("web", "resynchronising")
                self.farshore.wait_for("it is held", lambda: self.plan()["held"], 60)
                with self.assertRaises(FarshoreError) as refused:
                    self.farshore.call("resync", "web", "--cancel")
                self.assertEqual("wrong-state", refused.exception.code)
                self.farshore.call("set", "web", "--resync-windows-for", "what-can-wait")
            self.wait_state("web", "protected")
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())

    def test_a_bandwidth_limit_holds_and_nothing_is_lost(self):
        """Breaks when more is sent than the policy allows, a change waits for a restart, or a write is lost."""
        rng = seeded()
        model = Model([32 * MIB], rng)
        self.make(model)
        rate = 500_000
        self.farshore.call("set", "web", "--bandwidth", f"{rate}B/s")
        self.farshore.wait_for("the appliance has it", lambda: self.farshore.call("item", "web")["upload"]
                               .get("limit_bytes_per_s") == rate, 30, 0.05)
        client = self.open_disks("web")[0]
        sent = lambda: self.farshore.call("item", "web")["upload"]["sent_bytes"]  # noqa: E731
        began, before = time.monotonic(), sent()
        for offset in range(0, 16 * MIB, MIB):
            data = rng.randbytes(MIB)
            client.write(offset, data)
            model.disks[0][offset:offset + MIB] = data
        item = self.farshore.wait_for("health tells", lambda: (item := self.farshore.call("item", "web"))
                                      ["upload"]["limited"] and item, 60)
        trouble = [one for one in item["troubles"] if one["code"] == "bandwidth-limited"]
        self.assertEqual(1, len(trouble), item["troubles"])
        self.assertIn("farshore set", trouble[0]["remedy"])
        self.assertGreater(item["upload"]["eta_s"], 0)
        # Asked first, so that load can only make the bound larger than what is compared with it.
        total = sent() - before
        seconds = time.monotonic() - began
        self.assertLessEqual(total, rate * seconds + SLACK_BYTES, f"{total} bytes in {seconds} s")
        print(f"{total} bytes in {seconds:.1f} s at {rate} B/s", flush=True)
        self.assertGreater(item["upload"]["waiting_bytes"], 0)
        # Raised, all of it goes at once.
        self.farshore.call("set", "web", "--bandwidth", "")
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())
        self.farshore.wait_for("health is well", lambda: not self.farshore.call("item", "web")["troubles"], 60)
        codes = [event["code"] for event in self.farshore.call("events")["events"]]
        self.assertIn("bandwidth-limited", codes)
        self.assertIn("bandwidth-sufficient", codes)

    def test_the_appliances_own_limit_is_read_again(self):
        """Breaks when a pause of the whole appliance sends data, or needs a restart to end."""
        rng = seeded()
        model = Model([8 * MIB], rng)
        self.make(model)
        limit = self.farshore.data / "appliance" / "bandwidth"
        limit.write_text("paused Mon-Sun 00:00-24:00; 1MB/s\n")    # always: refused, nothing changes
        self.bookmark("one")
        limit.write_text(f"1MB/s {far_window()}; 20kB/s\n")
        self.farshore.wait_for("the appliance has it", lambda: self.farshore.call("item", "web")["upload"]
                               .get("limit_of") == "appliance", 30, 0.05)
        client = self.open_disks("web")[0]
        data = rng.randbytes(4 * MIB)
        client.write(0, data)
        model.disks[0][:4 * MIB] = data
        self.farshore.wait_for("it waits", lambda: self.farshore.call("item", "web")["upload"]
                               ["waiting_bytes"] > 0, 30)
        limit.unlink()
        self.bookmark("two")
        self.assert_point("web", "two", model.copy())


if __name__ == "__main__":
    support.main()

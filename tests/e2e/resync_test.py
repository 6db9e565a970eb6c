#!/usr/bin/env python3
"""End to end: source and replica are compared, and only what differs travels."""
import os
import signal

import support
from support import Model, seeded

import faults

MIB = 1 << 20
BLOCK = 64 << 10


class Resynchronisation(faults.FaultTest):
    def make(self, model):
        self.shared = self.work / "shared"
        self.start_up("--shared-dir", self.shared)
        self.paths = model.make_files(self.work)
        disks = [word for path in self.paths for word in ("--disk", path)]
        self.farshore.call("protect", "web", *disks)
        self.wait_state("web", "protected")

    def flip(self, model, blocks):
        """Changes blocks of the source that the tap does not see. `blocks`: (disk, number)."""
        for disk, block in blocks:
            at = block * BLOCK + 77
            with open(self.paths[disk], "r+b") as file:
                file.seek(at)
                byte = bytes([file.read(1)[0] ^ 0x55])
                file.seek(at)
                file.write(byte)
            model.disks[disk][at] = byte[0]

    def test_exactly_what_differs_is_sent(self):
        """Breaks when a difference is missed, more is sent than differs, or a healthy item loses points."""
        rng = seeded()
        model = Model([24 * MIB + 512, 8 * MIB], rng)
        self.make(model)
        before = self.bookmark("before")
        healthy = self.farshore.call("resync", "web")
        self.assertEqual(("done", 0, 0, 0), (healthy["state"], healthy["differing_bytes"],
                                             healthy["sent_bytes"], healthy["verify_failures"]), healthy)
        self.assertEqual(sum(len(d) for d in model.disks), healthy["compared_bytes"])
        self.assertGreater(healthy["verified_bytes"], 0)
        self.assert_point("web", "before", model.copy())
        self.assertEqual([], [gap for gap in self.farshore.call("points", "web")["gaps"]
                              if gap["first"]["sequence"] > before["sequence"]])

        chosen = {(0, n) for n in rng.sample(range(384), 9)} | {(0, 384), (1, 0), (1, 127)}
        self.flip(model, chosen)
        found = self.farshore.call("resync", "web")
        self.assertEqual(len(chosen) * BLOCK, found["differing_bytes"], found)
        sent = sum(min(BLOCK, len(model.disks[disk]) - block * BLOCK) for disk, block in chosen)
        self.assertEqual(sent, found["sent_bytes"], found)
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())
        names = [event["code"] for event in self.farshore.call("events")["events"]]
        self.assertIn("resynchronised", names)

    def test_beside_live_writes_and_kills(self):
        """Breaks when a write during the comparison is lost, or a kill ends it half way."""
        rng = seeded()
        model = Model([48 * MIB, 4 * MIB], rng)
        self.make(model)
        self.flip(model, [(0, n) for n in rng.sample(range(768), 40)])
        for part in ("tap", "up", "tap"):
            self.farshore.call("resync", "web", "--no-wait")
            clients = self.open_disks("web")
            try:
                for step in range(40):
                    if step == rng.randrange(1, 40) or step == 39:
                        if part == "tap":
                            for pid, command in self.farshore.descendants():
                                if "nbdkit" in command:
                                    os.kill(pid, signal.SIGKILL)
                        else:
                            self.farshore.kill_servers("up")
                            self.restart_up()
                    model.random_step(clients, rng)
            except (OSError, ConnectionError):
                pass
            clients = self.open_disks("web")
            for disk, client in zip(model.disks, clients):
                disk[:] = b"".join(client.read(at, min(MIB, client.size - at))
                                   for at in range(0, client.size, MIB))
                client.close()
        done = self.farshore.call("resync", "web")
        self.assertEqual("done", done["state"])
        # Whatever was flipped was found by one of them; nothing is left for the last.
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())
        self.assertEqual(0, self.farshore.call("resync", "web")["differing_bytes"])

    def test_after_a_crash_of_the_host_only_marked_regions_are_compared(self):
        """Breaks when a lost log costs reading the whole disk, or a marked region is forgotten."""
        rng = seeded()
        model = Model([64 * MIB], rng)
        self.make(model)
        clients = self.open_disks("web")
        # Until the first copy counts as stored, everything is marked.
        clients[0].flush()
        self.farshore.wait_for("the map is settled",
                               lambda: self.farshore.call("item", "web")["dirty_regions"] == 0, 120)
        for offset in (5 * MIB, 40 * MIB):
            data = rng.randbytes(4096)
            clients[0].write(offset, data)
            model.disks[0][offset:offset + 4096] = data
        clients[0].flush()
        self.bookmark("before")
        # What a power cut takes away: every process, and what lies in memory.
        self.farshore.kill_servers("up")
        self.farshore.kill_descendants()
        for path in self.shared.iterdir():
            path.unlink()
        self.restart_up()
        self.wait_state("web", "protected")
        item = self.farshore.call("item", "web")
        self.assertLessEqual(item["compared_bytes"], 8 * MIB, item)
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""End to end: source and replica are compared, and only what differs travels."""
import json
import shutil
import subprocess

import support
from support import BINARY, BOOT_SECTOR, FarshoreError, Model, seeded

import faults
from devices import DeviceTest, DirectDisk
from mirror_test import RunningMachine

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
        self.bookmark("before")
        healthy = self.farshore.call("resync", "web")
        self.assertEqual(("done", 0, 0, 0), (healthy["state"], healthy["differing_bytes"],
                                             healthy["sent_bytes"], healthy["verify_failures"]), healthy)
        self.assertEqual(sum(len(d) for d in model.disks), healthy["compared_bytes"])
        self.assertGreater(healthy["verified_bytes"], 0)
        self.assert_point("web", "before", model.copy())
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])

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
                            self.farshore.kill_descendants("nbdkit")
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
        # One that waits at the command line survives them, too.
        earlier = self.farshore.call("item", "web")["resync"]["request"]
        waits = subprocess.Popen([str(BINARY), "resync", "web", "--json", "--data", self.farshore.data],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                 env=self.farshore.environment)
        self.farshore.wait_for("it has begun", lambda: self.farshore.call("item", "web").get("resync", {}).get("request", "")
                               not in ("", earlier), 30, 0.02)
        self.farshore.kill_servers("up")
        self.restart_up()
        done = json.loads(waits.communicate(timeout=120)[0])
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

    def test_qemu_tap_and_agent_killed_together(self):
        """Breaks when a mirror that is lost with its machine costs copying everything, or hides a change."""
        rng = seeded()
        model = Model([32 * MIB, 4 * MIB + 512], rng)
        model.disks[0][:512] = BOOT_SECTOR.read_bytes()
        paths = model.make_files(self.work)
        machine = RunningMachine(self.work, paths)
        self.addCleanup(machine.end)
        machine.start()
        self.start_up()
        self.farshore.call("protect", "vm", "--qmp", machine.socket, "--point-interval", 1)
        self.wait_state("vm", "protected")
        for _ in range(30):
            machine.step(model, rng)
        self.bookmark("before", "vm")
        expected = model.copy()
        machine.end()
        self.farshore.kill_servers("up")
        self.farshore.kill_descendants()
        machine.start()
        for _ in range(10):
            machine.step(model, rng)    # nobody sees these
        self.restart_up()
        self.farshore.wait_for("it was compared", lambda: (item := self.farshore.call("item", "vm")).get("resync", {})
                               .get("state") == "done" and item["state"] == "protected" and item, 90)
        found = self.farshore.call("item", "vm")["resync"]
        self.assertGreaterEqual(found["compared_bytes"], 36 * MIB, found)
        self.assertLessEqual(found["sent_bytes"], 10 * (100 << 10) + 20 * BLOCK, found)
        self.bookmark("after", "vm")
        self.assert_point("vm", "before", expected)
        self.assert_point("vm", "after", model.copy())
        gaps = self.farshore.call("points", "vm")["gaps"]
        self.assertTrue(gaps)
        for inside in (gaps[-1]["after"]["sequence"] + 1, gaps[-1]["before"]["sequence"] - 1):
            with self.assertRaises(FarshoreError) as refused:
                self.farshore.call("point", "vm", "--point", inside)
            self.assertEqual("point-in-gap", refused.exception.code)

    def test_what_the_replica_lost_is_sent_again(self):
        """Breaks when damage in the store is taken for equal, or ends the comparison."""
        rng = seeded()
        model = Model([8 * MIB], rng)
        self.make(model)
        self.bookmark("before")
        segments = sorted((path for path in (self.farshore.data / "store").rglob("*")
                           if path.is_file() and path.stat().st_size > MIB), key=lambda path: path.stat().st_size)
        with open(segments[-1], "r+b") as file:
            file.seek(segments[-1].stat().st_size // 2)
            file.write(bytes(64))
        found = self.farshore.call("resync", "web")
        self.assertGreater(found["unreadable_bytes"], 0, found)
        self.assertEqual(found["unreadable_bytes"], found["differing_bytes"], found)
        self.bookmark("after")
        self.assert_point("web", "after", model.copy())
        self.assertIn("replica-damaged",
                      [event["code"] for event in self.farshore.call("events")["events"]])


class OwnDisks(DeviceTest):
    def test_after_an_unclean_stop_sums_decide_what_is_sent(self):
        """Breaks when a machine that crashed sends all of its disks again, or misses what it wrote unseen."""
        rng = seeded()
        device = self.make_disk(64 * MIB)
        disk = DirectDisk(device)
        for offset in range(0, 64 * MIB, MIB):
            disk.write(offset, rng.randbytes(MIB))
        self.farshore.start_server("up", "up", "--data", self.farshore.data, "--listen", "127.0.0.1:0",
                                   "--shared-dir", self.work / "shared")
        self.farshore.wait_until_serving()
        item = self.protect("own", device)
        self.wait_state("own", "protected")
        # The end of a machine without warning: its processes, its memory, its programs in the kernel.
        self.farshore.kill_servers("up")
        self.farshore.kill_descendants()
        for path in (self.work / "shared").iterdir():
            path.unlink()
        shutil.rmtree(f"/sys/fs/bpf/farshore-{item['id'][:12]}")
        changed = rng.sample(range(1024), 7)
        for block in changed:
            disk.write(block * BLOCK + 4096, rng.randbytes(4096))
        disk.close()
        self.farshore.start_server("up", "up", "--data", self.farshore.data, "--listen", "127.0.0.1:0",
                                   "--shared-dir", self.work / "shared")
        self.farshore.wait_until_serving()
        self.farshore.wait_for("it was compared", lambda: (item := self.farshore.call("item", "own")).get("resync", {})
                               .get("state") == "done" and item["state"] == "protected", 90)
        found = self.farshore.call("item", "own")["resync"]
        self.assertEqual(64 * MIB, found["compared_bytes"], found)
        self.assertEqual((len(changed) * BLOCK,) * 2, (found["differing_bytes"], found["sent_bytes"]), found)
        self.farshore.call("point", "own", "--bookmark", "after")
        self.assert_point("own", "after", [self.whole(device)])


if __name__ == "__main__":
    support.main()

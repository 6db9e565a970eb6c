#!/usr/bin/env python3
"""Damage in a store that retention has worked on: base objects, checkpoints, several manifests.

The store is made once; each test damages a copy of it, one object at a time: bits flipped and cuts at
the header, the index, the chunks and the end, an object that is missing, one in another's place. A
reader gets the right bytes or a named error, and the vault stays up and says what is wrong."""
import errno
import json
import pathlib
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import tempfile
import threading

import support
from faults import MIB, FaultTest
from support import BINARY, Farshore, FarshoreError, Model, NbdClient, first_difference, seeded

NAMED = {"corrupt", "truncated", "malformed", "newer-version", "foreign-store", "wrong-key", "not-found",
         "item-not-found", "point-not-found", "point-outside-window", "too-large", "sequence-hole"}
KINDS = {"base": ".base", "shard": ".shard", "manifest": ".manifest", "segment": ".seg", "item": "item"}
CHECKPOINT_RECORDS = 200_000    # src/replica/item_replica.h, checkpoint_entries
HEADER_BYTES = 320
SECTOR = 512


def burst(path, export, count, disk_bytes):
    """`count` zeroed sectors, many under way at once: their order does not matter."""
    client = NbdClient(path, export)
    wire = client._socket
    sectors = disk_bytes // SECTOR
    failed = []

    def collect():
        left = 16 * count
        pending = b""
        while left:
            part = wire.recv(min(left, 1 << 18))
            if not part:
                failed.append("the tap went away")
                return
            left -= len(part)
            pending += part
            for at in range(0, len(pending) - 15, 16):
                if pending[at + 4:at + 8] != b"\0\0\0\0":
                    failed.append(pending[at:at + 16])
            pending = pending[len(pending) // 16 * 16:]

    reader = threading.Thread(target=collect)
    reader.start()
    for first in range(0, count, 1000):
        wire.sendall(b"".join(
            struct.pack(">IHHQQI", 0x25609513, 0, NbdClient.ZEROES, 1, number % sectors * SECTOR, SECTOR)
            for number in range(first, min(first + 1000, count))))
    reader.join(60)
    client.close()
    if failed or reader.is_alive():
        raise ConnectionError(f"the burst of writes failed: {failed[:1]}")


class Folded(FaultTest):
    """`pristine` is a data directory whose servers have ended, `expected` what its points hold."""
    pristine = None
    expected = {}
    item = ""
    other = None

    def setUp(self):
        super().setUp()
        self.rng = seeded()
        if Folded.pristine is None:
            self.make_store()
        self.data = self.work / "copy"
        shutil.copytree(Folded.pristine, self.data)
        self.store = self.data / "store"
        self.vault = Farshore(BINARY, self.data, self.work / "logs")
        # Before the logs are shown and the directory is removed.
        self.addCleanup(self.vault.end)

    # --- the store ---------------------------------------------------------------------------

    def set_window(self, data, seconds):
        """The API takes a minute at least, which is the whole time of these tests."""
        with sqlite3.connect(data / "vault/farshore.db", timeout=10) as database:
            changed = database.execute("UPDATE items SET window_s = ? WHERE name = 'web'",
                                       (seconds,)).rowcount
        database.close()
        self.assertEqual(1, changed)

    def restart_with_window(self, seconds):
        self.farshore.kill_servers("up")
        self.set_window(self.farshore.data, seconds)
        self.restart_up()

    def bookmark_as_it_is(self, label):
        self.bookmark(label)
        Folded.expected[label] = self.model.copy()

    def make_store(self):
        self.model = Model([18 * MIB, 2 * MIB], self.rng)
        self.start_up()
        self.protect(self.model, "web", "--point-interval", 1, "--window", 86400, "--keep", "",
                     "--grace", 0)
        Folded.item = self.farshore.call("item", "web")["id"]
        store = self.farshore.data / "store/items" / Folded.item
        # One whose neighbour in the store is damaged.
        Folded.other = Model([MIB], self.rng)
        path = self.work / "other.img"
        path.write_bytes(Folded.other.disks[0])
        self.farshore.call("protect", "other", "--disk", path)
        self.wait_state("other", "protected")
        self.bookmark("here", "other")
        clients = self.open_disks("web")
        # Each round leaves every eighth piece of the one before: its segments are mostly dead then.
        piece = 256 << 10
        for left in (1, 2):
            for number in range(len(self.model.disks[0]) // piece):
                if number % 8 >= left:
                    data = self.rng.randbytes(piece)
                    clients[0].write(number * piece, data)
                    self.model.disks[0][number * piece:(number + 1) * piece] = data
            self.bookmark(f"written-{left}")
        self.restart_with_window(2)
        self.farshore.wait_for("base objects, and the log before them is gone", lambda: (
            any(store.rglob("*.base")) and
            not any(store.rglob("0000000000000001-*.seg"))), 40)
        self.restart_with_window(86400)
        for number in range(3):
            for _ in range(20):
                self.model.random_step(clients, self.rng)
            self.bookmark_as_it_is(f"round-{number}")
        floor = len(list(store.rglob("*.manifest")))
        path, export = self.nbd_sockets(self.farshore.call("item", "web"))[1]
        burst(path, export, CHECKPOINT_RECORDS, MIB)
        self.model.disks[1][:MIB] = bytes(MIB)
        self.bookmark_as_it_is("burst")
        self.farshore.wait_for("a checkpoint", lambda: len(list(store.rglob("*.manifest"))) > floor, 60)
        for number in range(3):
            for _ in range(20):
                self.model.random_step(clients, self.rng)
            self.bookmark_as_it_is(f"after-{number}")
        for client in clients:
            client.close()
        self.farshore.kill_servers()
        self.farshore.kill_descendants()
        Folded.pristine = pathlib.Path(tempfile.mkdtemp(prefix="farshore-e2e-folded-")) / "data"
        self.addClassCleanup(shutil.rmtree, Folded.pristine.parent, ignore_errors=True)
        shutil.copytree(self.farshore.data, Folded.pristine, ignore=lambda _, names: [
            name for name in names if name.endswith(".sock")])
        found = {kind: len(self.objects(kind, Folded.pristine / "store")) for kind in KINDS}
        print(f"the store: {found}", flush=True)
        self.assertGreaterEqual(found["manifest"], 2)
        self.assertGreaterEqual(found["shard"], 3)

    def objects(self, kind, store=None):
        return sorted(path for path in ((store or self.store) / "items" / Folded.item).rglob(
            "*" + KINDS[kind]) if path.is_file())

    # --- damage ------------------------------------------------------------------------------

    def damages(self, path):
        """(name, bytes or None) for every place, None for an object that is missing."""
        whole = path.read_bytes()
        size = len(whole)
        places = {"magic": 0, "checksum of the header": 9, "version": 12, "header": 50,
                  "wrapped key": 180, "index": HEADER_BYTES + 9, "middle": size // 2,
                  "last third": size * 2 // 3, "last byte": size - 1}
        for name, at in places.items():
            if at < size:
                out = bytearray(whole)
                out[at] ^= 1 << self.rng.randrange(8)
                yield f"a bit flipped in the {name} ({at})", bytes(out)
        for name, to in (("nothing", 0), ("a part of the header", 60), ("the header", HEADER_BYTES),
                         ("half", size // 2), ("all but a byte", size - 1)):
            if to < size:
                yield f"cut to {name}", whole[:to]
        yield "a byte longer", whole + b"\0"
        yield "missing", None
        others = [other for other in path.parent.iterdir() if other != path and other.is_file()]
        if others and path.name != "item":
            yield "another one in its place", self.rng.choice(others).read_bytes()

    def put(self, path, data):
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)

    def chosen(self, kind, count):
        """Objects of the kind: always the first and the last one, which floor and newest use."""
        paths = self.objects(kind)
        ends = [paths[0], paths[-1]][:min(count, len(paths))]
        return sorted({*ends, *self.rng.sample(paths, max(0, min(count, len(paths)) - 2))})

    # --- readers -----------------------------------------------------------------------------

    def extract(self, label, disk):
        """The disk's bytes, or the code of the error."""
        out = self.work / "out.img"
        out.unlink(missing_ok=True)
        done = subprocess.run(
            [str(BINARY), "extract", "--store", str(self.store), "--key", str(self.data / "vault/key"),
             "--item", Folded.item, "--point", label, "--disk", str(disk), "--out", str(out), "--json"],
            capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return out.read_bytes()
        self.assertGreater(done.returncode, 0, f"ended by a signal: {done.stderr}")
        problem = json.loads(done.stderr.strip().splitlines()[-1])
        self.assertTrue(problem["detail"])
        return problem["code"]

    def export(self, label, disk, name="web", expected=None):
        """What `farshore export` gives: "right", or the code of the error. What is read must be right:
        each MiB by itself, and all of it by nbdcopy, which reads many at once."""
        expected = expected or Folded.expected[label][disk]
        path = self.work / "export.sock"
        path.unlink(missing_ok=True)
        process = subprocess.Popen(
            [str(BINARY), "export", name, "--point", label, "--disk", str(disk), "--socket", str(path),
             "--data", str(self.data), "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=self.vault.environment)
        try:
            line = process.stdout.readline()
            if not line:
                self.assertGreater(process.wait(30), 0)
                return json.loads(process.stderr.read().strip().splitlines()[-1])["code"]
            uri = json.loads(line)["uri"]
            client = NbdClient(path, uri.split("///", 1)[1].split("?")[0])
            failed = 0
            self.assertEqual(len(expected), client.size)
            for offset in range(0, client.size, MIB):
                try:
                    data = client.read(offset, min(MIB, client.size - offset))
                except OSError as error:
                    self.assertEqual(errno.EIO, error.errno)
                    failed += 1
                else:
                    self.assertEqual("equal", first_difference(data, expected[offset:offset + MIB]))
            client.close()
            out = self.work / "nbdcopy.img"
            out.unlink(missing_ok=True)
            copied = subprocess.run(["nbdcopy", "--", uri, str(out)], capture_output=True, text=True,
                                    timeout=60, check=False)
            self.assertEqual(failed == 0, copied.returncode == 0, copied.stderr)
            if copied.returncode == 0:
                self.assertEqual("equal", first_difference(out.read_bytes(), expected))
            if not failed:
                return "right"
            # What it was is in the log of the server that read it.
            words = "".join(log.read_text(errors="replace") for log in self.data.rglob("nbd.log"))
            return next((code for code in sorted(NAMED) if re.search(rf"\b{code}\b", words)), words)
        finally:
            process.terminate()
            process.communicate(timeout=30)

    # --- tests -------------------------------------------------------------------------------

    def test_extract(self):
        """Breaks when the independent reader takes damage of any object, at any place, for data."""
        outcomes = {}
        for kind in KINDS:
            for path in self.chosen(kind, 2):
                whole = path.read_bytes()
                for name, damaged in self.damages(path):
                    self.put(path, damaged)
                    label, disk = self.rng.choice(sorted(Folded.expected)), self.rng.choice((0, 0, 1))
                    got = self.extract(label, disk)
                    what = f"{path.name}: {name}, disk {disk} at {label}"
                    if isinstance(got, bytes):
                        self.assertEqual("equal", first_difference(
                            got, Folded.expected[label][disk]), what)
                        got = "right"
                    else:
                        self.assertIn(got, NAMED, what)
                    outcomes.setdefault(kind, {}).setdefault(got, 0)
                    outcomes[kind][got] += 1
                    self.put(path, whole)
        print(outcomes, flush=True)
        # All of a kind: there is no way around the damage.
        for kind in KINDS:
            put_back = self.damage_all(kind, HEADER_BYTES + 9)
            for label in ("round-1", "after-1"):
                self.assertIn(self.extract(label, 0), NAMED, f"damage of every {kind} was not noticed")
            put_back()
        for label, disks in Folded.expected.items():
            for disk, content in enumerate(disks):
                self.assertEqual("equal", first_difference(self.extract(label, disk), content))

    def test_export(self):
        """Breaks when export hands out bytes of a damaged object, hangs on it, or ends the vault."""
        self.vault.start_vault()
        outcomes = {}
        for kind in ("base", "shard", "manifest", "segment"):
            for path in self.chosen(kind, 2):
                whole = path.read_bytes()
                damages = list(self.damages(path))
                for name, damaged in self.rng.sample(damages, 5):
                    self.put(path, damaged)
                    label, disk = self.rng.choice(sorted(Folded.expected)), self.rng.choice((0, 0, 1))
                    got = self.export(label, disk)
                    if got != "right":
                        self.assertIn(got, NAMED, f"{path.name}: {name}, disk {disk} at {label}")
                    outcomes.setdefault(kind, {}).setdefault(got, 0)
                    outcomes[kind][got] += 1
                    self.put(path, whole)
                    self.vault.check_servers()
        print(outcomes, flush=True)
        for kind in outcomes:
            put_back = self.damage_all(kind, HEADER_BYTES + 9)
            self.assertIn(self.export("after-1", 0), NAMED, f"damage of every {kind} was not noticed")
            put_back()
        for label in ("round-1", "after-2"):
            for disk in (0, 1):
                self.assertEqual("right", self.export(label, disk))

    def damage_all(self, kind, place):
        """Flips a bit of every object of the kind; returns what puts them back."""
        kept = {path: path.read_bytes() for path in self.objects(kind)}
        for path, whole in kept.items():
            out = bytearray(whole)
            out[min(place, len(whole) - 1)] ^= 4
            self.put(path, bytes(out))
        return lambda: [self.put(path, whole) for path, whole in kept.items()]

    def troubles_of(self, name):
        return {trouble["code"] for trouble in self.vault.call("item", name)["troubles"]}

    def test_a_vault_on_a_damaged_store(self):
        """Breaks when damage ends the vault, is not told in health, or retention goes on removing
        what it cannot read any more."""
        self.set_window(self.data, 2)    # retention has work to do
        for kind in ("manifest", "shard", "segment"):
            put_back = self.damage_all(kind, HEADER_BYTES + 9)
            before = {path for path in self.store.rglob("*") if path.is_file()}
            self.vault.start_vault()
            self.vault.wait_for(f"health tells of the damaged {kind}", lambda: self.troubles_of("web") &
                                {"corrupt", "malformed", "truncated"}, 20)
            self.assertTrue(self.vault.call("points", "web")["points"])
            self.assertIn(self.export("after-2", 0), NAMED if kind != "segment" else NAMED | {"right"})
            self.assertEqual("right", self.export("here", 0, "other", bytes(self.other.disks[0])))
            self.assertEqual(set(), {path for path in before if not path.exists()})
            self.vault.kill_servers("vault")
            put_back()
        # Base objects are read by readers only.
        put_back = self.damage_all("base", HEADER_BYTES + 9)
        self.vault.start_vault()
        self.assertEqual("corrupt", self.export("after-2", 0))
        put_back()
        self.vault.wait_for("the damage is mended", lambda: not self.troubles_of("web") & NAMED, 20)
        self.assertEqual("right", self.export("after-2", 0))
        self.assertEqual("right", self.export("after-2", 1))

    def start_without_database(self):
        """A vault that knows nothing but the store: "serves", or the code of what is wrong with `web`."""
        for part in (self.data / "vault").glob("farshore.db*"):
            part.unlink()
        return self.start_again()

    def start_again(self):
        self.vault.start_vault()
        items = self.vault.call("items")["items"]
        self.assertEqual(2, len(items))
        self.assertEqual("right", self.export("here", 0, "other", bytes(self.other.disks[0])))
        aside = [event for event in self.vault.call("events")["events"]
                 if event["code"] == "item-set-aside"]
        if not aside:
            return "serves"
        name = aside[0]["item"]
        self.assertIn(Folded.item, aside[0]["cause"])
        self.assertTrue(aside[0]["remedy"])
        item = self.vault.call("item", name)
        self.assertEqual("critical", item["health"])
        codes = set()
        for verb in (("points", name), ("point", name, "--bookmark", "x"), ("failover", "test", name)):
            with self.assertRaises(FarshoreError) as error:
                self.vault.call(*verb)
            codes.add(error.exception.code)
        self.assertEqual(1, len(codes), codes)
        code = codes.pop()
        self.assertIn(code, {trouble["code"] for trouble in item["troubles"]})
        return code

    def test_a_lost_database_on_a_damaged_store(self):
        """Breaks when a rebuild takes damage for an end, and goes on over what was acknowledged, or when
        damage of one item keeps the vault from serving the other."""
        outcomes = {}
        for kind in ("manifest", "shard", "base", "segment", "item"):
            paths = self.objects(kind)
            for path in {paths[0], paths[-1]}:
                whole = path.read_bytes()
                for name, damaged in self.rng.sample(list(self.damages(path)), 2):
                    self.put(path, damaged)
                    before = set((self.store / "items").rglob("*.*"))
                    outcome = self.start_without_database()
                    what = f"{path.name}: {name}: {outcome}"
                    # The first one lies before the window: only its payload is needed still.
                    if kind == "item" or kind == "segment" and path == paths[-1] and any(
                            word in name for word in ("magic", "header", "version", "key", "index", "nothing")):
                        self.assertNotEqual("serves", outcome, what)
                    if outcome == "serves":
                        for label in ("round-1", "after-1"):
                            got = self.export(label, 0)
                            self.assertIn(got, NAMED | {"right"}, what)
                    else:
                        self.assertIn(outcome, NAMED, what)
                    self.vault.kill_servers("vault")
                    outcomes.setdefault(kind, []).append(outcome)
                    self.put(path, whole)
                    self.assertEqual(set(), {path for path in before if not path.exists()}, what)
                    if outcome != "serves":
                        # Mended, and started again on the database of that start.
                        self.vault.start_vault()
                        self.assertEqual("right", self.export("after-1", 0), what)
                        self.vault.kill_servers("vault")
        print(outcomes, flush=True)
        self.assertEqual("serves", self.start_without_database())
        for label, disks in Folded.expected.items():
            self.assertEqual("right", self.export(label, 0))


if __name__ == "__main__":
    support.main()

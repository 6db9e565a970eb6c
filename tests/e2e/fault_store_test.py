#!/usr/bin/env python3
"""Stores that are not right: another's, a newer one's, without the key, damaged at every kind of
object and place. A reader gets the right bytes or a named error, never wrong bytes."""
import hashlib
import json
import re
import shutil
import subprocess

import support
from faults import MIB, FaultTest
from support import BINARY, FarshoreError, Model, seeded

# What a damaged store may be called.
NAMED = {"corrupt", "truncated", "malformed", "foreign-store", "newer-version", "wrong-key", "not-found",
         "item-not-found", "point-not-found", "point-outside-window", "point-in-gap", "too-large",
         "sequence-hole"}
KINDS = {"store": r"farshore-store", "item": r"items/[^/]+/item", "segment": r".*\.seg",
         "shard": r".*\.shard", "manifest": r".*\.manifest"}


class Stores(FaultTest):
    def begin(self, window=False):
        self.rng = seeded()
        self.model = Model([2 * MIB], self.rng)
        self.start_up()
        # A short window, so that there are bases and several manifests.
        self.protect(self.model, "web", "--point-interval", 1, "--window", 60, "--grace", 1)
        clients = self.open_disks("web")
        self.expected = {}
        for number in range(4):
            for _ in range(25):
                self.model.random_step(clients, self.rng)
            label = f"round-{number}"
            self.bookmark(label)
            self.expected[label] = bytes(self.model.disks[0])
        self.item = self.farshore.call("item", "web")["id"]
        for client in clients:
            client.close()
        self.store = self.farshore.data / "store"
        self.key = self.farshore.data / "vault/key"

    def objects(self, kind, store=None):
        store = store or self.store
        return sorted(path for path in store.rglob("*") if path.is_file() and
                      re.fullmatch(KINDS[kind], str(path.relative_to(store))))

    def extract(self, point, store=None, key=None, item=None):
        """The disk, or the code of the error."""
        out = self.work / "out.img"
        out.unlink(missing_ok=True)
        done = subprocess.run(
            [str(BINARY), "extract", "--store", str(store or self.store), "--key",
             str(key or self.key), "--item", item or self.item, "--point", point, "--disk", "0",
             "--out", str(out), "--json"], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return out.read_bytes()
        self.assertGreater(done.returncode, 0, f"ended by a signal: {done.stderr}")
        problem = json.loads(done.stderr.strip().splitlines()[-1])
        self.assertTrue(problem["detail"])
        return problem["code"]

    def damages(self, size):
        """(name, function of the bytes) at the start, header, index, chunks and end."""
        places = {"first byte": 0, "version": 8, "header": 40, "behind the header": 200,
                  "first third": size // 3, "middle": size // 2, "last byte": size - 1}
        for name, at in places.items():
            if at >= size:
                continue

            def flip(data, place=at):
                out = bytearray(data)
                out[place] ^= 1 << self.rng.randrange(8)
                return bytes(out)
            yield f"bit flipped at the {name} ({at})", flip
        for name, to in (("nothing", 0), ("a part of the header", 20), ("half", size // 2),
                         ("all but a byte", size - 1)):
            if to < size:
                yield f"cut to {name}", lambda data, keep=to: data[:keep]

    def judge(self, what, got, label, named):
        if isinstance(got, bytes):
            self.assertEqual("equal", support.first_difference(got, self.expected[label]), what)
            return "right"
        self.assertIn(got, named, what)
        return got

    def test_damage_as_extract_sees_it(self):
        """Breaks when a damaged object of any kind is read as if it were whole."""
        self.begin()
        self.farshore.kill_servers("up")    # objects are damaged under nobody's feet
        outcomes = {}
        for kind in KINDS:
            paths = self.objects(kind)
            if not paths:
                self.assertIn(kind, ("shard", "manifest"))
                continue
            for path in self.rng.sample(paths, min(2, len(paths))):
                whole = path.read_bytes()
                for name, damage in self.damages(len(whole)):
                    path.chmod(0o600)
                    path.write_bytes(damage(whole))
                    for label in ("round-1", "round-3"):
                        outcome = self.judge(f"{path.name}: {name}, {label}", self.extract(label),
                                             label, NAMED)
                        outcomes.setdefault(kind, set()).add(outcome)
                    path.write_bytes(whole)
        print(outcomes)
        self.assertNotEqual({"right"}, outcomes["segment"], "damage was never noticed")
        for label, disk in self.expected.items():
            self.assertEqual("equal", support.first_difference(self.extract(label), disk))

    def test_damage_as_the_vault_sees_it(self):
        """Breaks when export or points give out what is damaged, or one bad object ends the server."""
        self.begin()
        for kind in ("segment", "manifest", "shard"):
            paths = self.objects(kind)
            for path in self.rng.sample(paths, min(2, len(paths))):
                whole = path.read_bytes()
                damages = list(self.damages(len(whole)))
                for name, damage in self.rng.sample(damages, 3):
                    path.chmod(0o600)
                    path.write_bytes(damage(whole))
                    try:
                        got = self.read_point("web", "round-1", 0)
                    except FarshoreError as error:
                        found = re.search(r'"code":"([a-z-]+)"', str(error))
                        got = found.group(1) if found else str(error)
                        self.assertIn(got, NAMED, f"{path.name}: {name}")
                    except OSError:
                        pass    # opened, then a chunk was bad: an error, no bytes
                    else:
                        self.judge(f"{path.name}: {name}", got, "round-1", set())
                    path.write_bytes(whole)
                    self.assertTrue(self.farshore.call("points", "web")["points"])
        for label, disk in self.expected.items():
            self.assert_point("web", label, [disk])

    def test_the_wrong_store_key_or_version(self):
        """Breaks when a vault starts on what is not its own, or changes it."""
        self.begin()
        self.farshore.kill_servers("up")
        words = self.farshore._commands["up"]
        kept = self.work / "kept"
        key = self.key.read_bytes()

        def refused(code, exit_code, *said):
            status, text = self.run_program(*words)
            self.assertEqual(exit_code, status, text)
            self.assertIn(code, text)
            for word in said:
                self.assertIn(word, text)

        # No key; the key of another vault; rubbish.
        self.key.unlink()
        refused("wrong-key", 77, str(self.key), "--key")
        other = self.work / "other"
        done = subprocess.Popen([str(BINARY), "vault", "serve", "--data", str(other), "--listen",
                                 "127.0.0.1:0"], stderr=subprocess.DEVNULL,
                                env=self.farshore.environment)
        self.farshore.wait_for("another vault", lambda: (other / "server.json").exists(), 30)
        done.terminate()
        done.wait(15)
        shutil.copy(other / "vault/key", self.key)
        refused("wrong-key", 77)
        self.key.write_bytes(key[:20])
        self.assertNotEqual(0, self.run_program(*words)[0])
        self.key.write_bytes(key)
        self.assertEqual("wrong-key", self.extract("round-1", key=other / "vault/key"))
        # Another vault's store; a directory that is none; an empty one.
        self.store.rename(kept)
        shutil.copytree(other / "store", self.store)
        refused("foreign-store", 65)
        shutil.rmtree(self.store)
        self.store.mkdir()
        (self.store / "photo.jpg").write_bytes(b"x")
        refused("foreign-store", 65)
        self.assertEqual(["photo.jpg"], [p.name for p in self.store.iterdir() if p.name != "~tmp"])
        self.assertEqual("foreign-store", self.extract("round-1"))
        shutil.rmtree(self.store)
        self.store.mkdir()
        refused("foreign-store", 65)
        shutil.rmtree(self.store)
        kept.rename(self.store)
        # A store of a newer format.
        self.newer_store(words)
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        for label, disk in self.expected.items():
            self.assert_point("web", label, [disk])
        self.wait_healthy()

    def newer_store(self, words):
        """The store object with a larger format; its checksum is made as docs/format says."""
        path = self.store / "farshore-store"
        whole = path.read_bytes()
        newer = self.with_format(whole, 9)
        path.chmod(0o600)
        path.write_bytes(newer)
        status, text = self.run_program(*words)
        self.assertEqual(65, status, text)
        self.assertIn("newer-version", text)
        self.assertIn("upgrade", text)
        self.assertEqual("newer-version", self.extract("round-1"))
        path.write_bytes(whole)

    def with_format(self, document, number):
        fields = json.loads(document.split(b"\n")[0])
        fields["format"] = number
        line = json.dumps(fields, separators=(",", ":")).encode()
        return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


if __name__ == "__main__":
    support.main()

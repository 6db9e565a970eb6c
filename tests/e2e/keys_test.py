#!/usr/bin/env python3
"""End to end: the key that everything is sealed under is exchanged, lost, given out and destroyed."""
import json
import pathlib
import random
import shutil
import subprocess
import threading

import support
from support import BINARY, EndToEnd, FarshoreError, Model, first_difference, seeded

KIB = 1 << 10


def object_names(store):
    """Every object of a store in a directory."""
    return sorted(str(path.relative_to(store)) for path in store.rglob("*")
                  if path.is_file() and "~tmp" not in path.parts)


class Keys(EndToEnd):
    def setUp(self):
        super().setUp()
        self.store = self.farshore.data / "store"
        self.key = self.farshore.data / "vault/key"

    def protect(self, name, size, rng):
        (self.work / name).mkdir()
        model = Model([size], rng)
        [path] = model.make_files(self.work / name)
        self.farshore.call("protect", name, "--disk", path, "--point-interval", 2)
        self.wait_state(name, "protected")
        return model, self.open_disks(name)

    def extract(self, name, point, *key):
        """What the independent reader makes of disk 0, or the FarshoreError that it ends with."""
        out = self.work / "extracted.img"
        done = subprocess.run(
            [str(BINARY), "extract", "--store", self.store, "--item", name, "--point", str(point), "--out",
             out, "--force", "--json", *map(str, key)], capture_output=True, text=True, check=False,
            env=self.farshore.environment)
        if done.returncode != 0:
            problem = json.loads(done.stderr.strip().splitlines()[-1])
            raise FarshoreError("extract", problem["code"], problem["detail"], problem.get("remedy", ""))
        return out.read_bytes()

    def assert_extract(self, name, point, content, *key):
        self.assertEqual("equal", first_difference(self.extract(name, point, *key), content))

    def assert_refused(self, code, call, *arguments):
        with self.assertRaises(FarshoreError) as error:
            call(*arguments)
        self.assertEqual(code, error.exception.code, error.exception)
        return error.exception

    def keep_key(self, name):
        kept = self.work / name
        shutil.copy(self.key, kept)
        return kept

    def write_some(self, model, clients, rng, steps=15):
        for _ in range(steps):
            model.random_step(clients, rng)

    def mark(self, name, label, model):
        self.farshore.call("point", name, "--bookmark", label)
        return label, model.copy()

    def test_two_rotations_under_load_leave_every_point_and_nothing_for_the_old_keys(self):
        """Breaks when a rotation loses a point, stops the machine, or leaves a copy under an old key."""
        rng = seeded()
        self.farshore.start_up()
        machines = {name: self.protect(name, 256 * KIB, rng) for name in ("web", "db")}
        points = {name: [self.mark(name, "before", model)] for name, (model, _) in machines.items()}
        stop = threading.Event()
        failures = []

        def load(name, seed):
            own = random.Random(seed)    # threads share none
            model, clients = machines[name]
            try:
                while not stop.is_set():
                    model.random_step(clients, own)
            except OSError as error:
                failures.append(error)

        old_keys = []
        for round_number in range(2):
            old_keys.append(self.keep_key(f"old-{round_number}"))
            stop.clear()
            threads = [threading.Thread(target=load, args=(name, rng.random())) for name in machines]
            for thread in threads:
                thread.start()
            job = self.farshore.call("key", "rotate")
            stop.set()
            for thread in threads:
                thread.join()
            self.assertEqual([], failures)
            self.assertEqual("succeeded", job["state"], job)
            for name, (model, _) in machines.items():
                points[name].append(self.mark(name, f"after-{round_number}", model))
        shown = self.farshore.call("key", "show")
        self.assertEqual({shown["id"]: 2}, shown["items"])
        self.assertNotIn("rotation", shown)
        self.assertTrue(self.farshore.call("key", "verify")["ok"])
        for name, marks in points.items():
            for label, disks in marks:
                self.assert_point(name, label, disks)
                self.assert_extract(name, label, disks[0], "--key", self.key)
                for old in old_keys:
                    wrong = self.assert_refused("wrong-key", self.extract, name, label, "--key", old)
                    self.assertIn(shown["id"], str(wrong))
        # Not by what the reader says alone: no object names an old key, none of its copies is left.
        old_ids = [old.read_text().split("id ")[1].split()[0] for old in old_keys]
        for name in object_names(self.store):
            if "/log/" in name or "/shard/" in name or "/base/" in name:
                continue
            content = (self.store / name).read_bytes()
            for old in old_ids:
                self.assertNotIn(old.encode(), content, name)
        self.assertEqual([], [n for n in object_names(self.store) if n.endswith("/item")])
        # The vault comes back with what it left, and without its database.
        self.farshore.kill_servers("up")
        for suffix in ("", "-wal", "-shm"):
            (self.farshore.data / f"vault/farshore.db{suffix}").unlink(missing_ok=True)
        self.farshore.start_up()
        for name, marks in points.items():
            self.assert_point(name, *marks[0])

    def test_a_rotation_that_is_killed_anywhere_is_finished_by_the_next_start(self):
        """Breaks when a kill in the middle leaves an item without a key, or under the old one."""
        rng = seeded()
        self.farshore.start_up()
        model, clients = self.protect("web", 128 * KIB, rng)
        self.write_some(model, clients, rng)
        label, disks = self.mark("web", "here", model)
        for number in range(6):
            self.protect(f"m{number}", 64 * KIB, rng)
        rounds = 6
        for number in range(rounds):
            old = self.keep_key(f"old-{number}")
            before = self.farshore.call("key", "show")["id"]
            copies = len(self.key_objects(before))
            self.farshore.call("key", "rotate", "--no-wait")
            # Killed when so many objects were put (first half of the rounds) or removed.
            wanted = number * 7 // rounds

            def so_far(seen=before, all_of=copies, wanted=wanted, early=number < rounds // 2):
                new = [n for n, text in self.key_objects("").items() if seen not in text]
                left = self.key_objects(seen)
                return len(new) > wanted if early else len(left) <= all_of - wanted
            self.spin(so_far)
            self.farshore.kill_servers("up")
            under_way = (self.farshore.data / "vault/key.new").exists()
            print(f"killed with key.new {'there' if under_way else 'gone'}, "
                  f"{len(self.key_objects(before))} of {copies} old copies left", flush=True)
            self.farshore.start_up()
            shown = self.farshore.wait_for("the rotation has ended",
                                           lambda: "rotation" not in (s := self.farshore.call("key", "show"))
                                           and s, 60)
            self.assertNotEqual(before, shown["id"])
            self.assertEqual({}, self.key_objects(before))
            self.assertEqual({shown["id"]: 7}, shown["items"])
            self.assertFalse((self.farshore.data / "vault/key.new").exists())
            self.assert_refused("wrong-key", self.extract, "web", label, "--key", old)
        self.assertTrue(self.farshore.call("key", "verify")["ok"])
        self.assert_point("web", label, disks)
        self.assert_extract("web", label, disks[0], "--key", self.key)

    def key_objects(self, key_id):
        """The objects that hold an item's key under that KEK: their names and texts."""
        found = {}
        for pattern in ("items/*/item", "items/*/key/*"):
            for path in self.store.glob(pattern):
                try:
                    text = path.read_text()
                except FileNotFoundError:
                    continue    # removed while we look
                if key_id in text:
                    found[str(path.relative_to(self.store))] = text
        return found

    def spin(self, condition, tries=20_000):
        """As soon as possible: what is waited for lasts milliseconds."""
        for _ in range(tries):
            if condition():
                return
        self.fail("what was waited for did not come")

    def test_a_destroyed_key_takes_its_item_and_no_other(self):
        """Breaks when a copy of the key survives, when others are hurt, or when a hold is ignored."""
        rng = seeded()
        self.farshore.start_up()
        machines = {name: self.protect(name, 128 * KIB, rng) for name in ("web", "db")}
        points = {name: self.mark(name, "here", model) for name, (model, _) in machines.items()}
        kept = self.keep_key("kept")
        self.assert_refused("invalid-argument", self.farshore.call, "key", "destroy", "web", "--confirm", "db")
        refused = self.assert_refused("wrong-state", self.farshore.call, "key", "destroy", "web", "--confirm",
                                      "web")
        self.assertIn("--end-replication", refused.remedy)
        job = self.farshore.call("key", "destroy", "web", "--confirm", "web", "--end-replication")
        self.assertEqual("succeeded", job["state"], job)
        web = next(path for path in (self.store / "items").iterdir() if (path / "key-destroyed").exists())
        self.assertFalse((web / "item").exists())
        self.assertEqual([], list((web / "key").glob("*")) if (web / "key").exists() else [])
        self.assert_refused("wrong-key", self.extract, "web", "here", "--key", kept)
        self.assert_refused("wrong-key", self.farshore.call, "point", "web", "--point", "here")
        self.assertIn("key-destroyed", [e["code"] for e in self.farshore.call("events")["events"]])
        self.assert_point("db", *points["db"])
        self.assert_extract("db", "here", points["db"][1][0], "--key", kept)
        # It stays so: over a restart, over a lost database, over a rotation.
        self.farshore.kill_servers("up")
        self.farshore.start_up()
        self.assert_refused("wrong-key", self.farshore.call, "point", "web", "--point", "here")
        self.assertEqual("succeeded", self.farshore.call("key", "rotate")["state"])
        self.assertTrue(self.farshore.call("key", "verify")["ok"])
        self.farshore.call("unprotect", "web", "--force")
        self.assertFalse(web.exists() and object_names(web))
        self.assert_point("db", *points["db"])

    def test_a_passphrase_and_an_escrow_open_what_they_should(self):
        """Breaks when store and passphrase (or escrow) are not enough, or the wrong one is."""
        rng = seeded()
        passphrase, other = self.work / "passphrase", self.work / "other"
        passphrase.write_text("correct horse battery staple\n")
        other.write_text("incorrect horse battery\n")
        self.farshore.start_up("--key-source", f"passphrase:{passphrase}")
        self.assertFalse(self.key.exists())
        model, clients = self.protect("web", 128 * KIB, rng)
        self.write_some(model, clients, rng)
        label, disks = self.mark("web", "here", model)
        self.assert_extract("web", label, disks[0], "--passphrase-file", passphrase)
        self.assert_extract("web", label, disks[0], "--key-source", f"passphrase:{passphrase}")
        self.assert_refused("wrong-key", self.extract, "web", label, "--passphrase-file", other)
        # Escrow: under another passphrase, and for a private key.
        for arguments, opens in self.escrow_ways(other):
            escrow = self.work / f"escrow-{len(opens)}-{opens[0]}"
            self.farshore.call("key", "escrow", "--to", escrow, *arguments)
            self.assertEqual(0o600, escrow.stat().st_mode & 0o777)
            self.assert_extract("web", label, disks[0], "--key", escrow, *opens)
            self.assert_refused("wrong-key", self.extract, "web", label, "--key", escrow)
        # To another passphrase, with it in force at once and from the next start on.
        job = self.farshore.call("key", "rotate", "--to", f"passphrase:{other}")
        self.assertEqual("succeeded", job["state"], job)
        self.assert_refused("wrong-key", self.extract, "web", label, "--passphrase-file", passphrase)
        self.assert_extract("web", label, disks[0], "--passphrase-file", other)
        self.farshore.stop_servers("up")
        log = self.work / "logs/up.log"
        seen = len(log.read_text())
        self.farshore.restart_server("up")    # still with the former source
        self.assertEqual(77, self.farshore.servers.pop("up").wait(60))
        said = log.read_text()[seen:]
        self.assertIn(str(other), said)
        self.assertNotIn("horse", said)
        self.farshore.start_up("--key-source", f"passphrase:{other}")
        self.assert_point("web", label, disks)

    def escrow_ways(self, passphrase):
        private, public = self.work / "private.pem", self.work / "public.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048",
                        "-out", private], check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
        return ((("--passphrase-file", passphrase), ("--passphrase-file", passphrase)),
                (("--public-key", public), ("--private-key", private)))

    def test_a_check_finds_a_key_that_is_broken_or_gone(self):
        """Breaks when a lost key is found out only in the disaster."""
        rng = seeded()
        self.farshore.start_up()
        for name in ("web", "db"):
            self.protect(name, 64 * KIB, rng)
        self.assertTrue(self.farshore.call("key", "verify")["ok"])
        web = self.farshore.call("item", "web")["id"]
        path = self.store / "items" / web / "item"
        whole = path.read_bytes()
        path.chmod(0o600)
        for damaged, code in ((whole[:len(whole) // 2], "truncated"), (whole.replace(b'"web"', b'"wab"'), "corrupt")):
            path.write_bytes(damaged)
            found = self.verify(77)
            self.assertEqual([(web, code)], [(row["item"], row["code"]) for row in found["items"]])
        path.write_bytes(whole)
        self.assertTrue(self.farshore.call("key", "verify")["ok"])
        # The source has another key, or none.
        kept = self.keep_key("kept")
        self.key.unlink()
        self.assertEqual("not-found", self.verify(66)["source_error"]["code"])
        shutil.copy(kept, self.key)
        self.assertTrue(self.farshore.call("key", "verify")["ok"])
        codes = [event["code"] for event in self.farshore.call("events")["events"]]
        self.assertEqual(3, codes.count("key-lost"), codes)

    def verify(self, exit_code):
        done = subprocess.run([str(BINARY), "key", "verify", "--json", "--data", self.farshore.data],
                              capture_output=True, text=True, env=self.farshore.environment, check=False)
        self.assertEqual(exit_code, done.returncode, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def test_a_key_that_a_secret_manager_hands_over(self):
        """Breaks when the variable is not enough, is inherited, or an item protected later differs."""
        rng = seeded()
        given = self.work / "given"
        given.mkdir()
        self.farshore.start_up("--key", given / "key")
        self.farshore.stop_servers("up")
        text = (given / "key").read_text()
        (given / "key").unlink()
        self.farshore.environment["FARSHORE_KEY"] = text
        self.farshore.start_up("--key-source", "env")
        model, _ = self.protect("web", 64 * KIB, rng)
        label, disks = self.mark("web", "here", model)
        secret = text.split("key ")[-1].strip()[:64]
        for pid, command in self.farshore.descendants():
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            self.assertNotIn(secret, environment, command)
        self.assert_extract("web", label, disks[0], "--key-source", "env")
        self.assert_refused("wrong-state", self.farshore.call, "key", "rotate")
        del self.farshore.environment["FARSHORE_KEY"]
        self.assert_refused("unavailable", self.extract, "web", label, "--key-source", "env")


if __name__ == "__main__":
    support.main()

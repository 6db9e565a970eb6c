#!/usr/bin/env python3
"""End to end: the vault's database is lost, and everything is had from the store: catalog and disks."""
import json
import pathlib
import subprocess

import support
from support import BINARY, EndToEnd, FarshoreError, Model, seeded

MIB = 1 << 20


class Catalogs(EndToEnd):
    def rebuild(self, *options):
        done = subprocess.run([str(BINARY), "rebuild-catalog", "--data", str(self.farshore.data), "--json",
                               *map(str, options)], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            problem = json.loads(done.stderr.strip().splitlines()[-1])
            raise FarshoreError("rebuild-catalog", problem["code"], problem["detail"], problem.get("remedy", ""))
        return json.loads(done.stdout)

    def refused(self, code, *options):
        with self.assertRaises(FarshoreError) as failed:
            self.rebuild(*options)
        self.assertEqual(code, failed.exception.code, failed.exception)

    def extract(self, name, point, disk):
        out = self.work / f"extracted-{point}-{disk}.img"
        subprocess.run([str(BINARY), "extract", "--store", str(self.farshore.data / "store"), "--key",
                        str(self.farshore.data / "vault/key"), "--item", name, "--point", str(point), "--disk",
                        str(disk), "--out", str(out), "--force"], check=True, capture_output=True)
        return out.read_bytes()

    def protect(self, name, sizes):
        directory = self.work / name
        directory.mkdir()
        model = Model(sizes, self.rng)
        arguments = [word for path in model.make_files(directory) for word in ("--disk", path)]
        self.farshore.call("protect", name, *arguments)
        self.wait_state(name, "protected")
        return model

    def database(self):
        return sorted((self.farshore.data / "vault").glob("farshore.db*"))

    def test_everything_but_what_was_in_the_database_alone_is_back(self):
        """Breaks when a point is lost with the database, is offered and wrong, or when extract and
        export disagree about one."""
        self.rng = seeded()
        self.farshore.start_up()
        known = {}    # (item, point): what the disks held
        for name, sizes in (("web", [3 * MIB + 512, MIB]), ("db", [2 * MIB])):
            model = self.protect(name, sizes)
            clients = self.open_disks(name)
            for mark in range(4):
                for _ in range(15):
                    model.random_step(clients, self.rng)
                point = self.farshore.call("point", name, "--bookmark", f"mark-{mark}")["sequence"]
                known[name, point] = model.copy()
        before = {name: self.farshore.call("points", name) for name in ("web", "db")}
        self.refused("duplicate-identity", "--replace")    # it runs
        self.farshore.kill_servers("up")
        self.refused("already-exists")
        self.assertEqual("farshore.db", self.database()[0].name)

        # Lost, or worse: somebody made a file of that name.
        for path in self.database():
            path.unlink()
        (self.farshore.data / "vault/farshore.db").write_bytes(b"not a database" * 100)
        self.refused("already-exists")
        report = self.rebuild("--replace")
        self.assertEqual(b"not a database" * 100, pathlib.Path(report["moved_to"]).read_bytes())
        self.assertEqual({"web", "db"}, {item["name"] for item in report["items"]})
        self.assertEqual(0, report["set_aside"])
        self.assertTrue(any("leases" in words for words in report["not_in_the_store"]))
        for item in report["items"]:
            self.assertEqual(before[item["name"]]["window"]["oldest"]["sequence"],
                             item["window"]["oldest"]["sequence"])
            self.assertEqual(len(before[item["name"]]["points"]), item["named_points"])
            self.assertEqual([3 * MIB + 512, MIB] if item["name"] == "web" else [2 * MIB],
                             [disk["size_bytes"] for disk in item["disks"]])
            self.assertGreater(item["stored_bytes"], MIB)
        self.farshore.start_vault()
        for (name, point), disks in known.items():
            self.assert_point(name, point, disks)
            for disk, content in enumerate(disks):
                self.assertEqual("equal", support.first_difference(self.extract(name, point, disk), content))
        # At any sequence, not only at those with a name.
        for name in ("web", "db"):
            window = self.farshore.call("points", name)["window"]
            for _ in range(4):
                point = self.rng.randint(window["oldest"]["sequence"], window["newest"]["sequence"])
                self.assertEqual(self.read_point(name, point, 0), self.extract(name, point, 0), point)

    def test_what_is_damaged_is_set_aside_and_said(self):
        """Breaks when one damaged item keeps the others away, when it is not said why, or when a
        database is left changed by a rebuild that could not be."""
        self.rng = seeded()
        self.farshore.start_up()
        for name in ("web", "db"):
            self.protect(name, [MIB])
        ids = {item["name"]: item["id"] for item in self.farshore.call("items")["items"]}
        self.farshore.kill_servers("up")
        self.farshore.kill_descendants()
        key = self.farshore.data / "vault/key"
        kept = key.read_text()
        databases = {path: path.read_bytes() for path in self.database()}
        # Another key opens nothing: the old database stays.
        other = self.work / "other"
        other.mkdir()
        key.unlink()
        self.refused("wrong-key", "--replace")
        key.write_text(kept)
        key.chmod(0o600)
        self.assertEqual(set(databases), set(self.database()))
        for path, content in databases.items():
            if not path.name.endswith("-shm"):    # SQLite's own notes of who reads
                self.assertEqual(content, path.read_bytes(), path)
        self.refused("foreign-store", "--replace", "--store", other)
        self.assertEqual(set(databases), set(self.database()))

        description = self.farshore.data / f"store/items/{ids['web']}/item"
        description.chmod(0o600)
        description.write_bytes(description.read_bytes()[:-20])
        report = self.rebuild("--replace")
        self.assertEqual(1, report["set_aside"])
        by_id = {item["id"]: item for item in report["items"]}
        self.assertIn("set_aside", by_id[ids["web"]])
        self.assertIn(ids["web"], by_id[ids["web"]]["set_aside"]["detail"])
        self.assertIn("window", by_id[ids["db"]])


if __name__ == "__main__":
    support.main()

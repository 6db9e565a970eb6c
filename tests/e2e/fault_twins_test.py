#!/usr/bin/env python3
"""Two where only one may be: agents of one identity, vaults on one store, programs on one directory."""
import shutil
import time

import support
from faults import MIB, FaultTest
from farshore import Farshore, free_port
from support import FarshoreError, Model, seeded


class Twins(FaultTest):
    def begin(self, split=False):
        self.rng = seeded()
        self.model = Model([MIB], self.rng)
        if split:
            self.farshore.start_split(self.work / "site")
        else:
            self.start_up()
        self.protect(self.model)
        self.clients = self.open_disks("web")
        self.write()

    def write(self, count=20):
        for _ in range(count):
            self.model.random_step(self.clients, self.rng)

    def good(self, label):
        """A bookmark now holds the disk of now."""
        self.write()
        self.bookmark(label)
        self.assert_point("web", label, self.model.copy())

    def test_a_copied_agent_is_refused_and_the_first_goes_on(self):
        """Breaks when a second agent with the identity of the first takes its records or its place."""
        self.begin(split=True)
        site = self.work / "site"
        # As a cloned host has it: certificate, key and what is protected. On one host even the
        # capture log is the same.
        shutil.copytree(site / "agent", site / "clone",
                        ignore=shutil.ignore_patterns("*.sock", "lock", "spill", "dirty*"))
        words = list(self.farshore._commands["agent"])
        words[words.index(site / "agent")] = site / "clone"
        self.farshore.start_server("clone", *words)
        self.farshore.wait_for("the second is refused",
                               lambda: "duplicate-identity" in self.log_of("clone"), 20)
        for number in range(3):
            self.good(f"with-a-twin-{number}")
        self.assertIn("give each host an agent of its own", self.log_of("clone"))
        self.assertEqual(1, self.log_of("clone").count("no conversation with the vault"),
                         "told once, not with every try")
        self.farshore.kill_servers("clone")
        self.wait_healthy()
        self.good("alone")
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])

    def test_a_second_program_on_a_directory_is_refused(self):
        """Breaks when two programs share a directory, or the refusal does not say who has it."""
        self.begin(split=True)
        pids = {name: process.pid for name, process in self.farshore.servers.items()}
        for name in ("agent", "appliance", "vault"):
            code, words = self.run_program(*self.farshore._commands[name])
            self.assertEqual(75, code, words)
            self.assertIn("duplicate-identity", words)
            self.assertIn(f"is held by process {pids[name]}", words)
            self.assertIn("end that process first", words)
        self.good("unharmed")

    def test_a_start_right_behind_a_killed_one(self):
        """Breaks when a supervisor that restarts a killed server has to try twice."""
        self.begin(split=True)
        for name in ("agent", "appliance", "vault"):
            for _ in range(3):
                process = self.farshore.servers.pop(name)
                process.kill()                    # and not waited for
                self.farshore.restart_server(name)
                self.addCleanup(process.wait)
                time.sleep(0.3)
                self.assertIsNone(self.farshore.servers[name].poll(), self.log_of(name))
        self.farshore.wait_until_serving()
        self.good("after")

    def test_the_older_vault_is_fenced_and_does_not_come_back_by_itself(self):
        """Breaks when a replaced vault writes on, or takes the store from its replacement by being
        started again; or when taking it back on purpose forgets what the other one did."""
        self.begin()
        self.good("old-vault")
        # The replacement: a copy of the vault's directory, as from a backup, on the same store.
        data = self.farshore.data
        copy = self.work / "replacement"
        copy.mkdir()
        for part in ("vault", "pki"):
            shutil.copytree(data / part, copy / part, ignore=shutil.ignore_patterns("lock"))
        newer = Farshore(support.BINARY, copy, self.work / "logs", {"FARSHORE_ACCEL": "tcg"})
        self.addCleanup(newer.end)
        newer.start_server("newer", "vault", "serve", "--data", copy, "--store", data / "store",
                           "--listen", f"127.0.0.1:{free_port()}")
        newer.wait_until_serving()
        point = newer.call("point", "web", "--point", "old-vault")
        self.assertEqual(point["sequence"],
                         self.farshore.call("point", "web", "--point", "old-vault")["sequence"])
        self.write()
        self.wait_trouble("fenced", "another vault", "--take-over")
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("point", "web", "--bookmark", "never", "--timeout", 2)
        self.assertIn(error.exception.code, ("timeout", "fenced"))
        # Started again it must not fence the newer one.
        self.farshore.kill_servers("up")
        for _ in range(2):
            code, words = self.run_program(*self.farshore._commands["up"])
            self.assertEqual(75, code, words)
            self.assertIn("vault-replaced", words)
            self.assertIn("--take-over", words)
        self.assertFalse(newer.call("server")["fenced"])
        # On purpose, after the other has ended, it goes on where the store is.
        newer.end()
        self.farshore.start_server("up", *self.farshore._commands["up"], "--take-over")
        self.farshore.wait_until_serving()
        self.good("taken-back")
        self.wait_healthy()
        # And from now on without the flag, also after a kill.
        self.farshore.kill_servers("up")
        words = [word for word in self.farshore._commands["up"] if word != "--take-over"]
        self.farshore.start_server("up", *words)
        self.farshore.wait_until_serving()
        self.good("as-ever")
        # The other has become the older one.
        code, words = self.run_program("vault", "serve", "--data", copy, "--store", data / "store",
                                       "--listen", f"127.0.0.1:{free_port()}")
        self.assertEqual(75, code, words)
        self.assertIn("vault-replaced", words)

    def test_a_lost_database_is_rebuilt_on_purpose(self):
        """Breaks when the guard against replaced vaults stands in the way of a rebuild."""
        self.begin()
        self.good("kept")
        disks = self.model.copy()
        self.farshore.kill_servers("up")
        for file in (self.farshore.data / "vault").glob("farshore.db*"):
            file.unlink()
        self.restart_up()
        self.assert_point("web", "kept", disks)
        self.assertIn("rebuilt-from-store",
                      [event["code"] for event in self.farshore.call("events")["events"]])


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""Several vault nodes on one PostgreSQL: one is killed, put to sleep, or its database is restarted,
while a machine is replicated, jobs run and a machine is recovered.

FARSHORE_KILLS says how many times (3; a longer run takes more)."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import support
from farshore import free_port
from support import BINARY, EndToEnd, FarshoreError, Model, seeded

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "services"))
from postgres import Postgres    # noqa: E402 pylint: disable=wrong-import-position

KILLS = int(os.environ.get("FARSHORE_KILLS") or 3)
MIB = 1 << 20


class Nodes(EndToEnd):
    def setUp(self):
        super().setUp()
        self.database = Postgres(self.work / "pg", durable=True)
        os.chmod(self.work, 0o755)
        self.database.start()
        self.addCleanup(self.database.stop)
        self.addCleanup(self.farshore.end)    # before the database
        self.ports = {name: free_port() for name in "ab"}
        self.data = {name: self.work / name for name in "ab"}

    def start_node(self, name):
        self.farshore.start_server(
            name, "vault", "serve", "--data", self.data[name], "--listen",
            f"127.0.0.1:{self.ports[name]}", "--store", self.work / "store", "--database",
            f"host={self.database.directory} user={self.database.user} dbname=farshore")

    def start_all(self):
        """Node a leads, b is ready. The appliance is told of both, b first; this client of b alone."""
        self.start_node("a")
        self.farshore.data = self.data["a"]
        self.farshore.wait_until_serving()
        for part in ("pki/ca.crt", "pki/ca.key", "vault/admin.token", "vault/key"):
            to = self.data["b"] / part
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.data["a"] / part, to)
        self.start_node("b")
        self.farshore.data = self.data["b"]
        self.farshore.wait_for("node b is ready", lambda: (self.data["b"] / "server.json").exists(), 30)
        self.farshore.wait_until_serving()
        self.assertEqual(["leads", "ready"], self.states())
        self.farshore.vault_urls = ",".join(
            f"https://127.0.0.1:{self.ports[name]}" for name in "ba")
        self.farshore.store_options = ["--store", self.work / "store"]
        self.farshore.host_names = True
        self.farshore.start_site(self.work / "site", ("appliance", "agent"))
        self.assertEqual({socket.gethostname()}, {
            agent["name"] for agent in self.farshore.call("agents")["agents"]
            if agent["kind"] == "appliance"})

    def nodes(self):
        return {node["address"].rsplit(":", 1)[1]: node
                for node in self.farshore.call("nodes")["nodes"]}

    def states(self):
        nodes = self.nodes()
        return [nodes.get(str(self.ports[name]), {}).get("state") for name in "ab"]

    def leader(self):
        return "ab"[self.farshore.wait_for(
            "a node leads", lambda: "leads" in (states := self.states()) and states, 40).index("leads")]

    def other(self, name):
        return "b" if name == "a" else "a"

    def protect(self, model):
        paths = model.make_files(self.work)
        self.farshore.call("protect", "web", *[w for path in paths for w in ("--disk", path)])
        self.wait_state("web", "protected")
        return self.open_disks("web")

    def bookmark(self, label):
        def make():
            try:
                return self.farshore.call("point", "web", "--bookmark", label)
            except FarshoreError as error:
                if error.code == "already-exists":    # an earlier try was answered too late
                    return True
                raise
        self.farshore.wait_for(f"the bookmark {label} is stored", make, 120)

    def take_over(self, gone):
        """Waits until the other node leads; seconds since the call."""
        since = time.monotonic()
        to = self.other(gone)
        self.farshore.data = self.data[to]
        self.farshore.wait_for(f"node {to} leads", lambda: self.states()["ab".index(to)] == "leads", 60)
        return time.monotonic() - since

    def test_kills(self):
        """Breaks when anything that was acknowledged, or a job, lives only in the node that leads, or
        when a job is done twice."""
        rng = seeded()
        model = Model([2 * MIB, MIB], rng)
        self.start_all()
        clients = self.protect(model)
        acknowledged, jobs, took = [], [], []
        for number in range(KILLS):
            for _ in range(30):
                model.random_step(clients, rng)
            jobs.append(self.farshore.call("scrub", "web", "--now", "--no-wait")["id"])
            leads = self.leader()
            self.farshore.kill_servers(leads)
            for _ in range(30):
                model.random_step(clients, rng)
            took.append(self.take_over(leads))
            self.bookmark(f"after-{number}")
            acknowledged.append((f"after-{number}", model.copy()))
            self.start_node(leads)
            self.farshore.wait_for("both are there", lambda: sorted(self.states()) == ["leads", "ready"], 60)
            done = self.farshore.wait_for(
                "the job has ended",
                lambda: (job := self.farshore.call("job", jobs[-1]))["state"] not in
                ("queued", "running") and job, 60)
            self.assertEqual("succeeded", done["state"], done)
        print(f"taken over after {[round(t, 1) for t in took]} s", flush=True)
        for label, disks in acknowledged:
            self.assert_point("web", label, disks)
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])
        known = [job["id"] for job in self.farshore.call("jobs")["jobs"] if job["kind"] == "scrub"]
        self.assertEqual(sorted(jobs), sorted(known))

    def test_asleep(self):
        """Breaks when a node that was only asleep still changes something beside the one that leads."""
        rng = seeded()
        model = Model([MIB], rng)
        self.start_all()
        clients = self.protect(model)
        asleep = self.farshore.servers["a"]
        os.kill(asleep.pid, signal.SIGSTOP)
        for _ in range(30):
            model.random_step(clients, rng)
        self.take_over("a")
        self.bookmark("while-asleep")
        before = model.copy()
        os.kill(asleep.pid, signal.SIGCONT)
        self.farshore.wait_for("the sleeper is ready", lambda: self.states() == ["ready", "leads"], 60)
        for _ in range(30):
            model.random_step(clients, rng)
        self.bookmark("after")
        self.assert_point("web", "while-asleep", before)
        self.assert_point("web", "after", model.copy())
        # Through either node, the same.
        self.farshore.data = self.data["a"]
        self.wait_state("web", "protected")
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])

    def test_database_restarts(self):
        """Breaks when a database that is away for a while costs more than the wait for it."""
        rng = seeded()
        model = Model([MIB], rng)
        self.start_all()
        clients = self.protect(model)
        for how in (signal.SIGINT, signal.SIGQUIT):
            self.database.stop(how)
            for _ in range(30):
                model.random_step(clients, rng)
            self.database.start()
            self.bookmark(f"after-{how}")
            # The other one, if the machine was so busy that the lease ended meanwhile.
            self.assertIn(self.leader(), self.data)
            self.assert_point("web", f"after-{how}", model.copy())
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])

    def machines(self):
        return [pid for pid, command in self.farshore.descendants() if "qemu-system" in command]

    def test_a_machine_is_never_there_twice(self):
        """Breaks when another node starts a machine that runs already, or it is lost from sight once
        its own node is back."""
        rng = seeded()
        model = Model([MIB], rng)
        self.start_all()
        clients = self.protect(model)
        model.random_step(clients, rng)
        self.bookmark("here")
        self.farshore.call("failover", "test", "web", "--point", "here")
        self.assertEqual(1, len(self.machines()))
        self.farshore.kill_servers("a")
        self.take_over("a")
        self.assertEqual(1, len(self.machines()))
        # Its node is back, and leads again: the machine is where it was.
        self.start_node("a")
        self.farshore.wait_for("node a leads", lambda: self.states() == ["leads", "ready"], 60)
        self.assertEqual(1, len(self.machines()))
        self.farshore.call("failover", "cleanup", "web")
        self.assertEqual([], self.machines())

    def test_another_place_is_refused(self):
        """Breaks when a node with an authority, a token or a key of its own can lead: agents and
        people would be turned away by it."""
        self.start_node("a")
        self.farshore.data = self.data["a"]
        self.farshore.wait_until_serving()
        self.farshore.stop_servers("a")
        code, words = self.run_node("b")
        self.assertNotEqual(0, code)
        self.assertIn("wrong-key", words)
        (self.data["b"] / "vault").mkdir(parents=True, exist_ok=True)
        shutil.copy(self.data["a"] / "vault/key", self.data["b"] / "vault/key")
        code, words = self.run_node("b")
        self.assertNotEqual(0, code)
        self.assertIn("pki/ca", words)
        self.assertIn("copy", words)

    def test_a_vault_moves_to_postgresql(self):
        """Breaks when a vault that had its database in a file is not the same one on PostgreSQL."""
        rng = seeded()
        model = Model([MIB], rng)
        self.farshore.start_server("up", "up", "--data", self.farshore.data, "--listen",
                                   f"127.0.0.1:{self.ports['a']}", "--replication-listen",
                                   f"127.0.0.1:{free_port()}")
        self.farshore.wait_until_serving()
        clients = self.protect(model)
        for _ in range(20):
            model.random_step(clients, rng)
        self.bookmark("before")
        before = model.copy()
        self.farshore.stop_servers("up")
        for client in clients:
            client.close()
        connection = f"host={self.database.directory} user={self.database.user} dbname=farshore"
        moved = self.farshore.call("vault", "migrate-database", "--to", connection)
        self.assertGreater(moved["rows"], 20)
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("vault", "migrate-database", "--to", connection)
        self.assertEqual("not-found", error.exception.code)
        self.farshore.start_server("up", "up", "--data", self.farshore.data, "--listen",
                                   f"127.0.0.1:{self.ports['a']}", "--replication-listen",
                                   f"127.0.0.1:{free_port()}", "--database", connection)
        self.farshore.wait_until_serving()
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        for _ in range(20):
            model.random_step(clients, rng)
        self.bookmark("after")
        self.assert_point("web", "before", before)
        self.assert_point("web", "after", model.copy())
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])

    def run_node(self, name):
        done = subprocess.run(
            [str(BINARY), "vault", "serve", "--data", str(self.data[name]), "--listen",
             f"127.0.0.1:{self.ports[name]}", "--store", str(self.work / "store"), "--database",
             f"host={self.database.directory} user={self.database.user} dbname=farshore"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
            env=self.farshore.environment)
        return done.returncode, done.stderr


if __name__ == "__main__":
    support.main()

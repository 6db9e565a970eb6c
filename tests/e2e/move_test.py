#!/usr/bin/env python3
"""Items change from one appliance to another while their machines write; an appliance is lost with its
disk, and another one takes its items over."""
import json
import shutil
import threading

import support
from farshore import free_port
from support import EndToEnd, FarshoreError, Model, seeded

MIB = 1 << 20


class Move(EndToEnd):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.farshore.end)
        self.farshore.start_server("vault", "vault", "serve", "--data", self.farshore.data,
                                   "--listen", "127.0.0.1:0")
        self.farshore.wait_until_serving()
        self.site = self.work / "site"
        # The agent is told of this one alone.
        self.farshore.start_site(self.site, ("appliance", "agent"))

    def start_appliance(self, name):
        server = json.loads((self.farshore.data / "server.json").read_text())
        token = self.work / f"{name}.token"
        token.write_text(self.farshore.new_token("appliance") + "\n")
        token.chmod(0o600)
        self.farshore.start_server(
            name, "appliance", "serve", "--data", self.site / name, "--ca", self.farshore.authority,
            "--enrol-token-file", token, "--name", name, "--vault", server["address"], "--store",
            self.farshore.data / "store", "--replication-listen", f"127.0.0.1:{free_port()}")
        self.farshore.wait_for(f"{name} is heard of", lambda: self.appliances().get(name, {}).get("connected"), 60)

    def appliances(self):
        return {one["name"]: one for one in self.farshore.call("appliances")["appliances"]}

    def protect(self, name, model):
        directory = self.work / name
        directory.mkdir()
        paths = model.make_files(directory)
        self.farshore.call("protect", name, *[w for path in paths for w in ("--disk", path)])
        self.wait_state(name, "protected")
        return self.open_disks(name)

    def wait_home(self, name, appliance):
        return self.farshore.wait_for(
            f"'{name}' is {appliance}'s", lambda: (has := self.farshore.call("item", name).get("appliance"))
            and has["name"] == appliance and "next" not in has and has, 60)

    def holds(self, appliance, item):
        return any((self.site / appliance / "spool" / item["id"]).iterdir())

    def test_under_load(self):
        """Breaks when a write is missed, sent twice or sent out of order because another appliance has
        taken over, when the source is compared for it, or when the one before goes on beside it."""
        rng = seeded()
        model = Model([4 * MIB, MIB], rng)
        self.start_appliance("two")
        clients = self.protect("web", model)
        item = self.wait_state("web", "protected")
        self.assertEqual("demo-appliance", item["appliance"]["name"])
        compared = item["compared_bytes"]
        stop, lock = threading.Event(), threading.Lock()

        def write():
            while not stop.is_set():
                with lock:
                    model.random_step(clients, rng)
        writer = threading.Thread(target=write)
        writer.start()
        points = []
        try:
            for number in range(6):
                to = ("two", "demo-appliance")[number % 2]
                self.farshore.call("appliance", "move", "web", "--to", to)
                self.wait_home("web", to)
                with lock:
                    self.farshore.call("point", "web", "--bookmark", f"after-{number}")
                    points.append((f"after-{number}", model.copy()))
        finally:
            stop.set()
            writer.join()
        for label, disks in points:
            self.assert_point("web", label, disks)
        item = self.farshore.call("item", "web")
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])
        self.assertEqual(compared, item["compared_bytes"])
        self.assertEqual("protected", item["state"])
        self.farshore.wait_for("the other one has let go of it", lambda: not self.holds("two", item), 30)
        self.assertTrue(self.holds("appliance", item))
        moved = [e for e in self.farshore.call("events", "--limit", "100")["events"] if e["code"] == "item-moved"]
        self.assertEqual(6, len(moved))

    def test_lost_with_its_disk(self):
        """Breaks when what an appliance had received and not stored is lost with it although the source
        has it still, or when an agent finds nobody but the appliance of its configuration."""
        rng = seeded()
        model = Model([2 * MIB], rng)
        self.start_appliance("two")
        clients = self.protect("web", model)
        for _ in range(100):
            model.random_step(clients, rng)
        self.farshore.wait_for("the agent knows of both", lambda:
                               "two" in (self.site / "agent" / "appliances.json").read_text(), 30)
        for _ in range(50):
            model.random_step(clients, rng)
        self.farshore.kill_servers("appliance")
        shutil.rmtree(self.site / "appliance")
        for _ in range(50):
            model.random_step(clients, rng)
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("appliance", "move", "web", "--to", "nobody")
        self.assertEqual("not-found", refused.exception.code)
        moves = self.farshore.call("appliance", "evacuate", "demo-appliance", "--lost")["moves"]
        self.assertEqual([{"item": "web", "from": "demo-appliance", "to": "two"}], moves)
        self.wait_home("web", "two")
        self.farshore.wait_for("its agent is heard of again", lambda: any(
            a["kind"] == "agent" and a["connected"] for a in self.farshore.call("agents")["agents"]), 60)
        self.farshore.call("point", "web", "--bookmark", "afterwards")
        self.assert_point("web", "afterwards", model.copy())
        self.assertEqual([], self.farshore.call("points", "web")["gaps"])
        # A new one under a name of its own takes half.
        second = Model([MIB], rng)
        self.protect("db", second)
        self.start_appliance("three")
        self.farshore.wait_for("the lost one is known to be away",
                               lambda: not self.appliances()["demo-appliance"]["connected"], 60)
        moves = self.farshore.call("appliance", "balance")["moves"]
        self.assertEqual([("two", "three")], [(move["from"], move["to"]) for move in moves])
        self.wait_home(moves[0]["item"], "three")
        self.assertEqual({"two": 1, "three": 1, "demo-appliance": 0},
                         {name: one["items"] for name, one in self.appliances().items()})
        for name, disks in (("web", model), ("db", second)):
            self.farshore.call("point", name, "--bookmark", "at-last")
            self.assert_point(name, "at-last", disks.copy())
            self.assertEqual([], self.farshore.call("points", name)["gaps"])


if __name__ == "__main__":
    support.main()

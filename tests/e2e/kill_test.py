#!/usr/bin/env python3
"""SIGKILL at random moments under load: tap, agent, appliance and vault.

Afterwards every point that was acknowledged must be there and byte-equal to the model. FARSHORE_KILLS
says how many (12; the soak test 200)."""
import os

import support
from support import EndToEnd, FarshoreError, Model, seeded

KILLS = int(os.environ.get("FARSHORE_KILLS") or 12)
MIB = 1 << 20
WINDOW_POINTS = 12    # how many of the newest acknowledged points are compared at the end


class Kills(EndToEnd):
    def run_loop(self, start, parts):
        rng = seeded()
        model = Model([2 * MIB, MIB + 512], rng)
        start()
        paths = model.make_files(self.work)
        self.farshore.call("protect", "web", "--disk", paths[0], "--disk", paths[1])
        self.wait_state("web", "protected")
        acknowledged = []
        killed = {}
        for number in range(KILLS):
            part = rng.choice(parts)
            self.one_round(model, rng, part)
            killed[part] = killed.get(part, 0) + 1
            if part != "tap":
                self.farshore.restart_server(part)
            # The state after the kill is what the disks hold: a request that was not answered may
            # have been done or not.
            clients = self.open_disks("web")
            for disk, client in zip(model.disks, clients):
                disk[:] = client.read(0, client.size)
            label = f"after-{number}"
            self.farshore.wait_for("a bookmark is stored", lambda name=label: self.bookmark(name), 120)
            acknowledged.append((label, model.copy()))
            for client in clients:
                client.close()
        print(f"killed: {killed}", flush=True)
        for label, disks in acknowledged[-WINDOW_POINTS:]:
            self.assert_point("web", label, disks)

    def bookmark(self, label):
        try:
            return self.farshore.call("point", "web", "--bookmark", label)
        except FarshoreError as error:
            if error.code == "already-exists":    # an earlier try was answered too late
                return True
            raise

    def one_round(self, model, rng, part):
        """Writes until the kill, which falls somewhere in between."""
        clients = self.open_disks("web")
        at = rng.randrange(1, 60)
        try:
            for step in range(60):
                if step == at:
                    self.kill(part)
                model.random_step(clients, rng)
        except (OSError, ConnectionError):
            pass    # the tap was the one
        for client in clients:
            client.close()

    def kill(self, part):
        if part == "tap":
            self.farshore.kill_descendants("nbdkit")
        elif part in self.farshore.servers:
            self.farshore.kill_servers(part)

    def test_up(self):
        """Breaks when anything acknowledged lives only in the memory of the one process or the tap."""
        self.run_loop(self.farshore.start_up, ["tap", "up"])

    def test_split(self):
        """The same with the three programs apart."""
        self.run_loop(lambda: self.farshore.start_split(self.work / "site"),
                      ["tap", "agent", "appliance", "vault"])


if __name__ == "__main__":
    support.main()

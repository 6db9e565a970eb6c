#!/usr/bin/env python3
"""End to end: points that several machines share. An application moves money between two disks of two
machines; every shared point conserves the sum, and points that are not shared do not."""
import os
import signal
import struct
import threading


import support
from farshore import in_document
from support import FarshoreError

MIB = 1 << 20
START = 1_000_000
RECORD = struct.Struct(">QqqB")    # transfer, balance, amount, 1: sent, 2: received


class Bank:
    """Money on two disks. A transfer is written to the disk that it leaves, and once that was
    acknowledged to the one where it arrives: what is under way can be finished after a crash."""

    def __init__(self, clients):
        self.clients = clients
        self.balances = [START, START]
        self.transfers = 0
        self.error = None
        self._ended = threading.Event()
        for number, client in enumerate(clients):
            self._write(number, 0, 0)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _write(self, number, amount, what):
        record = RECORD.pack(self.transfers, self.balances[number], amount, what)
        self.clients[number].write(0, record.ljust(512, b"\0"))

    def _run(self):
        try:
            while not self._ended.is_set():
                self.transfers += 1
                source = self.transfers % 2
                amount = 1 + self.transfers * 7919 % 1000
                self.balances[source] -= amount
                self._write(source, amount, 1)
                self.balances[1 - source] += amount
                self._write(1 - source, amount, 2)
        except OSError as error:
            self.error = error

    def end(self):
        self._ended.set()
        self._thread.join()


def recovered_sum(disks):
    """What the application makes of two disks after a crash; None: one has what the other never sent."""
    records = [RECORD.unpack(disk[:RECORD.size]) for disk in disks]
    total = sum(balance for _, balance, _, _ in records)
    behind, ahead = sorted(records, key=lambda record: record[0])
    if ahead[0] == behind[0]:
        return total
    if ahead[0] == behind[0] + 1 and ahead[3] == 1:
        return total + ahead[2]
    return None


class Groups(support.EndToEnd):
    NAMES = ("left", "right")

    def protect_both(self):
        self.farshore.start_up()
        for name in self.NAMES:
            disk = self.work / f"{name}.img"
            disk.write_bytes(bytes(MIB))
            self.farshore.call("protect", name, "--disk", disk, "--point-interval", 1)
        for name in self.NAMES:
            self.wait_state(name, "protected")

    def begin(self):
        self.protect_both()
        self.bank = Bank([self.open_disks(name)[0] for name in self.NAMES])
        self.addCleanup(self.bank.end)

    def disks_at(self, *points):
        return [self.read_point(name, point, 0) for name, point in zip(self.NAMES, points)]

    def stored(self):
        points = self.farshore.call("group", "points", "shop")["points"]
        return [point for point in points if point["state"] == "stored"]

    def test_a_transfer_conserves_the_sum_at_every_shared_point(self):
        """Breaks when a shared point of two machines under load has an effect without its cause, when
        it cannot be named, or when points that are not shared would do as well."""
        self.begin()
        self.farshore.call("group", "create", "shop", *self.NAMES, "--crash-interval", 10)
        before = self.bank.transfers
        for number in range(6):
            point = self.farshore.call("group", "point", "shop", "--label", f"round {number}")
            self.assertEqual("stored", point["state"], point)
        # One by the policy, too.
        self.farshore.wait_for("a point of the policy", lambda: any(
            point["by_policy"] for point in self.stored()), 60)
        self.assertIsNone(self.bank.error)
        self.assertGreater(self.bank.transfers, before)
        points = self.stored()
        self.assertGreaterEqual(len(points), 7)
        seen = set()
        for point in points:
            disks = self.disks_at(*[f"shared:{point['id']}"] * 2)
            self.assertEqual(2 * START, recovered_sum(disks), point)
            seen.add(disks[0][:8])
        self.assertGreater(len(seen), 3, "these were different moments")
        # By other names: of each member's list, the newest, the label.
        listed = [one for one in self.farshore.call("points", "left", "--limit", 1000)["points"]
                  if one.get("shared", {}).get("id") == points[0]["id"]]
        self.assertEqual(["shop"], [one["shared"]["group"] for one in listed])
        self.bank.end()
        last = self.farshore.call("group", "point", "shop", "--label", "last")
        self.assertEqual(2 * START, recovered_sum(self.disks_at("latest-multi-vm", "latest-multi-vm")))
        sequences = {one["id"]: one["point"]["sequence"] for one in last["members"]}
        ids = [self.farshore.call("item", name)["id"] for name in self.NAMES]
        self.assertEqual(self.disks_at(*[sequences[one] for one in ids]), self.disks_at("last", "last"))
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("point", "left", "--point", "latest-multi-vm-app")
        self.assertEqual("point-not-found", error.exception.code)

    def test_points_that_are_not_shared_do_not(self):
        """Breaks when the test above would pass without a barrier."""
        self.begin()
        found = []
        for number in range(20):
            for name in self.NAMES:
                self.farshore.call("point", name, "--bookmark", f"round-{number}")
            found.append(recovered_sum(self.disks_at(*[f"round-{number}"] * 2)))
            if found[-1] is None:
                return
        self.fail(f"without a group the sums were {found}")

    def test_where_they_run_at_the_recovery_site_they_share_points_too(self):
        """Breaks when machines that were failed over and reprotected have no shared points, or such that
        have an effect without its cause."""
        self.protect_both()
        self.farshore.call("group", "create", "shop", *self.NAMES, "--crash-interval", 0)
        sockets = [in_document([self.farshore.call("failover", "start", name)], "nbd_socket") for name in self.NAMES]
        for name in self.NAMES:
            self.farshore.call("failover", "commit", name)
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("group", "point", "shop")
        self.assertEqual("wrong-state", error.exception.code)
        for name in self.NAMES:
            self.farshore.call("reprotect", name)
            self.wait_state(name, "reverse-protected")
        clients = [support.NbdClient(socket, "0") for socket in sockets]
        for client in clients:
            self.addCleanup(client.close)
        self.bank = Bank(clients)
        self.addCleanup(self.bank.end)
        self.farshore.wait_for("a shared point", self.point_is_made, 60)
        for number in range(4):
            point = self.farshore.call("group", "point", "shop", "--label", f"away {number}")
            self.assertEqual("stored", point["state"], point)
            self.assertEqual(2 * START, recovered_sum(self.disks_at(*[f"shared:{point['id']}"] * 2)), point)
        self.assertIsNone(self.bank.error)

    def test_a_member_that_does_not_answer_costs_the_point_and_not_the_writes(self):
        """Breaks when one machine's silence holds another's writes, voids its own points, or is not
        told; or when members cannot come and go."""
        self.begin()
        self.farshore.call("group", "create", "shop", "left", "--crash-interval", 0)
        self.assertEqual(1, len(self.farshore.call("group", "point", "shop")["members"]))
        self.farshore.call("group", "join", "shop", "right")
        self.assertEqual(2, len(self.farshore.call("group", "point", "shop")["members"]))
        # The tap of one of them sleeps: its machine's writes wait for it, the other's must not.
        right = self.farshore.call("item", "right")["id"][:12]
        taps = [pid for pid, command in self.farshore.descendants()
                if "nbdkit" in command and right in command]
        self.assertTrue(taps)
        for pid in taps:
            os.kill(pid, signal.SIGSTOP)
        try:
            with self.assertRaises(FarshoreError) as error:
                self.farshore.call("group", "point", "shop")
            self.assertEqual("timeout", error.exception.code)
            left = support.NbdClient(*self.nbd_sockets(self.farshore.call("item", "left"))[0])
            left.write(4096, b"x" * 512)
            left.close()
            self.farshore.call("point", "left", "--bookmark", "alone")
        finally:
            for pid in taps:
                os.kill(pid, signal.SIGCONT)
        self.assertIn("shared-point-failed", [
            event["code"] for event in self.farshore.call("events", "--limit", 50)["events"]])
        self.farshore.wait_for("a point again", self.point_is_made, 60)
        self.farshore.call("group", "leave", "shop", "right")
        self.assertEqual(1, len(self.farshore.call("group", "point", "shop")["members"]))
        self.assertIsNone(self.bank.error)
        self.farshore.call("unprotect", "right", "--force")
        self.farshore.call("group", "remove", "shop")
        self.assertEqual([], self.farshore.call("group", "list")["groups"])

    def point_is_made(self):
        try:
            return self.farshore.call("group", "point", "shop")["state"] == "stored"
        except FarshoreError:
            return False

    def test_scripts_run_and_one_that_hangs_costs_the_point_only(self):
        """Breaks when a machine without a guest agent gets consistent points without its scripts, when
        these are not run around the point, or when one that hangs stops machine or agent."""
        self.begin()
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("point", "left", "--bookmark", "none", "--consistent")
        self.assertEqual("unsupported", error.exception.code)
        scripts = self.farshore.data / "agent/scripts"
        log = self.work / "calls"
        for name in self.NAMES:
            (scripts / name).mkdir(parents=True)
            for stage in ("pre", "post"):
                script = scripts / name / stage
                script.write_text(f"#!/bin/sh\necho {stage} $FARSHORE_ITEM $FARSHORE_POINT"
                                  f" $FARSHORE_OUTCOME >> {log}\n")
                script.chmod(0o700)
        self.farshore.call("point", "left", "--bookmark", "alone", "--consistent")
        self.wait_for_calls(log, 2)
        self.assertEqual(["pre left alone", "post left alone made"], log.read_text().splitlines())
        log.unlink()
        # By policy, too.
        self.farshore.call("set", "left", "--consistent-interval", "5min")
        self.wait_for_calls(log, 2)
        self.assertEqual(["pre left consistent", "post left consistent made"], log.read_text().splitlines())
        self.farshore.wait_for("it is stored", lambda: "consistent" in [point["label"] for point in self.farshore.call(
            "points", "left", "--kind", "application")["points"]], 60)
        self.farshore.call("set", "left", "--consistent-interval", "0")
        log.unlink()
        self.farshore.call("group", "create", "shop", *self.NAMES, "--crash-interval", 0)
        point = self.farshore.call("group", "point", "shop", "--consistent", "--label", "both")
        self.assertEqual("application", point["kind"])
        self.wait_for_calls(log, 4)
        calls = log.read_text().splitlines()
        self.assertEqual(["pre left both", "pre right both"], sorted(calls[:2]))
        self.assertEqual(["post left both made", "post right both made"], sorted(calls[2:]))
        self.assertEqual(2 * START, recovered_sum(self.disks_at(*["latest-multi-vm-app"] * 2)))
        # One that others may write is not run; one that hangs is killed with what it started.
        (scripts / "left/pre").chmod(0o722)
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("group", "point", "shop", "--consistent")
        self.assertEqual("forbidden", error.exception.code)
        (scripts / "left/pre").write_text("#!/bin/sh\nsleep 1000 & sleep 1000\n")
        (scripts / "left/pre").chmod(0o700)
        before = self.bank.transfers
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call("group", "point", "shop", "--consistent")
        self.assertEqual("timeout", error.exception.code)
        self.assertGreater(self.bank.transfers, before)
        self.assertIsNone(self.bank.error)
        self.assertEqual([], [command for _, command in self.farshore.descendants()
                              if "sleep 1000" in command])
        self.assertEqual("stored", self.farshore.call("group", "point", "shop")["state"])

    def wait_for_calls(self, log, count):
        self.farshore.wait_for(f"{count} calls of scripts", lambda: log.exists() and
                               len(log.read_text().splitlines()) >= count, 30)


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""End to end: machines that are recovered on a libvirt host, by a real libvirtd of the test's own."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

from return_test import RunsElsewhere
from support import BINARY, FarshoreError, first_difference, main, seeded
from farshore import in_document
from libvirtd import Libvirtd


class OnLibvirt(RunsElsewhere):
    def set_up(self):
        # Of another user: its QEMU must get at the disks, and at nothing else.
        os.chmod(self.work, 0o711)
        self.libvirtd = Libvirtd(self.work / "libvirtd")
        self.addCleanup(self.libvirtd.stop)
        run = pathlib.Path(f"/run/fse2e-{os.getpid()}")
        run.mkdir(mode=0o700)
        self.addCleanup(shutil.rmtree, run, ignore_errors=True)
        self.farshore.start_up("--run-directory", run)
        self.farshore.call("compute", "add", "rack", "--uri", self.libvirtd.uri, "--accelerator", "tcg")

    def job(self, *words):
        return self.succeed(*words)

    def log_of(self, job):
        return pathlib.Path(in_document([job], "serial_log"))

    def booted(self, log, times=1):
        self.farshore.wait_for("the machine has booted",
                               lambda: log.exists() and log.read_bytes().count(b"DONE") >= times, 90)

    def failover_of(self, name="web"):
        return self.farshore.call("failover", "list", name)["failovers"][0]

    def refused(self, code, *words):
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call(*words)
        self.assertEqual(code, refused.exception.code, words)

    def drill(self, name):
        """One drill; a bad one is no error here."""
        done = subprocess.run([str(BINARY), "drill", "run", name, "--data", str(self.farshore.data), "--json"],
                              capture_output=True, text=True, check=False, env=self.farshore.environment, timeout=300)
        return json.loads(done.stdout)

    def findings(self):
        """What `recovery-plan check` finds; it fails when something would."""
        done = subprocess.run([str(BINARY), "recovery-plan", "check", "shop", "--mode", "test", "--data",
                               str(self.farshore.data), "--json"],
                              capture_output=True, text=True, check=False, env=self.farshore.environment, timeout=120)
        return [one for one in json.loads(done.stdout)["findings"] if one["severity"] == "critical"]

    def test_there_and_back(self):
        """Breaks when what a machine on a libvirt host writes is lost or lies elsewhere, when a killed vault,
        a killed disk server, a libvirtd that is started anew or a host that loses its power is more to it than
        time, or when anything of it is left there."""
        rng = seeded()
        self.set_up()
        checked = self.farshore.call("compute", "check", "rack")
        self.assertTrue(checked["libvirt_version"].startswith("9."), checked)
        model = self.boot_model(rng)
        paths = self.protect(model)
        home = self.open_disks("web")
        self.steps(model, home, rng, 20)
        self.farshore.call("point", "web", "--bookmark", "left-home")
        for client in home:
            client.close()

        # Tests: at the item's own host, beside one on this machine.
        self.farshore.call("item", "compute", "web", "rack")
        networks = self.libvirtd.virsh("net-list", "--all", "--name").stdout
        there, here = self.job("failover", "test", "web"), self.job("failover", "test", "web", "--compute", "local")
        self.booted(self.log_of(there))
        self.booted(self.log_of(here))
        self.assertIn("domain", there["result"])
        self.assertNotIn("domain", here["result"])
        self.assertEqual([there["result"]["domain"]], self.libvirtd.domains())
        self.assertIn(there["result"]["domain"] + ".0", self.libvirtd.virsh("net-list", "--name").stdout)
        self.refused("wrong-state", "compute", "remove", "rack")
        self.job("failover", "cleanup", "web")
        self.assertEqual([], self.libvirtd.domains())
        self.assertEqual(networks, self.libvirtd.virsh("net-list", "--all", "--name").stdout)
        self.refused("dependency-missing", "failover", "test", "web", "--network", "network:nowhere")

        job = self.job("failover", "start", "web", "--network", "none")
        log, socket = self.log_of(job), in_document([job], "nbd_socket")
        self.booted(log)
        self.machine_wrote(model)
        self.assertEqual("rack", self.failover_of()["compute"])
        self.job("failover", "commit", "web")
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 10)

        # The vault dies; the machine does not, and is found again with its serial port.
        domain = self.libvirtd.domains()[0]
        self.farshore.kill_servers("up")
        self.steps(model, away, rng, 10)
        self.farshore.restart_server("up")
        self.farshore.wait_for("it is found", lambda: self.failover_of()["state"] == "committed", 60)
        for client in away:
            client.close()

        # Its disk server dies while it reads: it waits, and goes on.
        before = log.read_bytes().count(b"DONE")
        self.farshore.kill_descendants("nbdkit")
        self.libvirtd.virsh("reset", domain)
        self.booted(log, before + 1)
        self.assertNotIn(b"ERROR", log.read_bytes())

        # Its host loses its power, and comes back: nobody takes that for a machine that was shut down.
        self.libvirtd.stop()
        self.farshore.wait_for("it is said", lambda: "error" in self.failover_of(), 60)
        self.assertEqual("unavailable", self.failover_of()["error"]["code"])
        self.libvirtd.start()
        self.booted(log)
        self.farshore.wait_for("it is said no more", lambda: "error" not in self.failover_of(), 60)
        self.assertEqual([domain], self.libvirtd.domains())
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 10)

        # And home.
        self.succeed("reprotect", "web")
        self.wait_state("web", "reverse-protected")
        for client in away:
            client.close()
        away = self.clients_at(socket, 2)
        self.steps(model, away, rng, 10)
        for client in away:
            client.close()
        self.succeed("failback", "start", "web", "--power-off", "--shut-down-timeout", "1")
        self.assert_home(paths, model)
        self.succeed("failback", "commit", "web")
        self.wait_state("web", "protected")
        self.assertEqual([], self.libvirtd.domains())
        self.farshore.call("item", "compute", "web", "local")
        self.farshore.call("compute", "remove", "rack")

    def test_a_host_that_is_lost_does_not_hold_up_the_machine(self):
        """Breaks when a machine cannot be started elsewhere since its host is away, when the one there keeps
        its disks, or is left there when the host is back."""
        rng = seeded()
        self.set_up()
        self.protect(self.boot_model(rng))
        job = self.job("failover", "start", "web", "--compute", "rack")
        self.booted(self.log_of(job))
        [domain] = self.libvirtd.domains()
        # The machine runs on: the daemon alone is held.
        daemon = self.libvirtd.daemon_pid()
        os.kill(daemon, signal.SIGSTOP)
        try:
            self.succeed("failover", "cancel", "web")
            self.assertFalse(pathlib.Path(in_document([job], "nbd_socket")).exists())
            here = self.job("failover", "start", "web", "--compute", "local")
            self.booted(self.log_of(here))
            # Of this one, not of what is left there.
            self.assertEqual(here["result"]["id"], self.job("failover", "commit", "web")["result"]["id"])
            self.assertIn("machine-left-at-host", [one["code"] for one in self.farshore.call("events")["events"]])
        finally:
            os.kill(daemon, signal.SIGCONT)
        self.farshore.wait_for("it is gone there", lambda: domain not in self.libvirtd.domains(), 120)
        self.farshore.wait_for("and here", lambda: len(self.farshore.call("failover", "list", "web")["failovers"]) == 1, 60)

    def test_a_machine_goes_on_elsewhere_with_what_it_wrote(self):
        """Breaks when a lost host takes what was written since the failover with it, when the machine there
        still gets at the disks, when it cannot go back, or a host that is gone for good cannot be forgotten."""
        rng = seeded()
        self.set_up()
        model = self.boot_model(rng)
        self.protect(model)
        job = self.job("failover", "start", "web", "--compute", "rack")
        self.booted(self.log_of(job))
        self.machine_wrote(model)
        self.job("failover", "commit", "web")
        old = in_document([job], "nbd_socket")
        away = self.clients_at(old, 2)
        self.steps(model, away, rng, 20)
        for client in away:
            client.flush()
            client.close()
        [domain] = self.libvirtd.domains()
        daemon = self.libvirtd.daemon_pid()
        os.kill(daemon, signal.SIGSTOP)
        try:
            self.farshore.wait_for("it is said", lambda: "error" in self.failover_of(), 120)
            self.assertEqual("unavailable", self.failover_of()["error"]["code"])
            self.refused("wrong-state", "compute", "remove", "rack")
            moved = self.job("failover", "move", "web", "--compute", "local")
            self.assertFalse(pathlib.Path(old).exists())
            self.booted(self.log_of(moved))
            self.assert_disks(in_document([moved], "nbd_socket"), model, rng)
            self.refused("wrong-state", "compute", "remove", "rack")
            self.assertIn("machine-left-at-host", [one["code"] for one in self.farshore.call("events")["events"]])
        finally:
            os.kill(daemon, signal.SIGCONT)
        self.farshore.wait_for("it is gone there", lambda: domain not in self.libvirtd.domains(), 120)
        self.farshore.wait_for("and here", lambda: len(self.farshore.call("failover", "list", "web")["failovers"]) == 1, 60)
        self.assertEqual("committed", self.failover_of()["state"])

        # Back to the host, by itself; it is shut down here before.
        back = self.job("failover", "move", "web", "--compute", "rack", "--power-off", "--shut-down-timeout", "1")
        self.booted(self.log_of(back))
        self.assert_disks(in_document([back], "nbd_socket"), model, rng)
        self.assertEqual(1, len(self.libvirtd.domains()))
        self.assertEqual(1, len(self.farshore.call("failover", "list", "web")["failovers"]))
        self.refused("invalid-argument", "failover", "move", "web", "--compute", "rack")

        # And the host is gone for good.
        os.kill(daemon, signal.SIGSTOP)
        try:
            self.farshore.wait_for("it is said", lambda: "error" in self.failover_of(), 120)
            last = self.job("failover", "move", "web", "--compute", "local")
            self.farshore.call("compute", "remove", "rack", "--force")
            self.farshore.wait_for("nothing is waited for",
                                   lambda: len(self.farshore.call("failover", "list", "web")["failovers"]) == 1, 60)
        finally:
            os.kill(daemon, signal.SIGCONT)
        self.booted(self.log_of(last))
        self.assert_disks(in_document([last], "nbd_socket"), model, rng)
        for left in self.libvirtd.domains():
            self.libvirtd.virsh("destroy", left)

    def test_its_disks_become_files_of_the_host(self):
        """Breaks when a machine at another host needs the vault for its disks after that, when a file is not what
        the disk was, or when the domain goes with its item."""
        rng = seeded()
        self.set_up()
        model = self.boot_model(rng)
        self.protect(model)
        job = self.job("failover", "start", "web", "--compute", "rack")
        self.booted(self.log_of(job))
        self.machine_wrote(model)
        self.job("failover", "commit", "web")
        socket = in_document([job], "nbd_socket")
        self.assert_disks(socket, model, rng)
        own = self.work / "own"
        own.mkdir(mode=0o711)
        done = self.job("failover", "hydrate", "web", "--into", own, "--format", "raw")
        self.assertGreater(done["result"]["longest_hold_ms"], 0)
        self.assertTrue(self.failover_of()["stands_alone"])
        self.assertFalse(pathlib.Path(socket).exists(), "somebody serves its disks still")
        for file, disk in zip(self.failover_of()["files"], model.disks):
            self.assertEqual("equal", first_difference(pathlib.Path(file["path"]).read_bytes()[:len(disk)], bytes(disk)))
        self.refused("wrong-state", "failover", "move", "web", "--compute", "local")

        # Its host loses its power: it starts on its files, by the vault.
        [domain] = self.libvirtd.domains()
        log = self.log_of(job)
        self.libvirtd.stop()
        log.unlink()
        self.libvirtd.start()
        self.booted(log)
        self.assertNotIn(b"ERROR", log.read_bytes())

        # And without the vault, once the item is gone.
        self.succeed("unprotect", "web")
        self.farshore.wait_for("it is let go", lambda: any(event["code"] == "machine-let-go" for event in
                                                           self.farshore.call("events")["events"]), 60)
        self.farshore.kill_servers("up")
        self.assertEqual([domain], self.libvirtd.domains())
        self.libvirtd.virsh("destroy", domain)
        self.assertNotIn("nbd", self.libvirtd.virsh("dumpxml", domain).stdout)
        self.libvirtd.virsh("start", domain)
        self.libvirtd.virsh("destroy", domain)
        self.libvirtd.virsh("undefine", domain)

    def assert_disks(self, socket, model, rng):
        """What the machine has is what the model has; some more is written."""
        clients = self.clients_at(socket, len(model.disks))
        for client, disk in zip(clients, model.disks):
            found = b"".join(client.read(at, min(1 << 20, client.size - at)) for at in range(0, client.size, 1 << 20))
            self.assertEqual("equal", first_difference(found, bytes(disk)))
        self.steps(model, clients, rng, 10)
        for client in clients:
            client.flush()
            client.close()

    def test_an_address_is_the_machines_while_it_is_there(self):
        """Breaks when the host's DHCP server does not know a machine's address, keeps it when the machine is gone, after
        a killed vault too, or when somebody else's is taken or removed; or when cloud-init has no disk there."""
        rng = seeded()
        self.set_up()
        definition = self.work / "lan.xml"
        definition.write_text("""<network><name>lan</name><forward mode='open'/><bridge name='fslan0' stp='off'/>
            <ip address='10.77.0.1' netmask='255.255.255.0'><dhcp>
              <range start='10.77.0.100' end='10.77.0.110'/>
              <host mac='52:54:00:77:00:01' name='printer' ip='10.77.0.9'/>
            </dhcp></ip></network>""")
        self.libvirtd.virsh("net-define", str(definition))
        self.libvirtd.virsh("net-start", "lan")

        def reserved():
            """What both descriptions of the network say: addresses, of whom."""
            both = [sorted(re.findall(r"<host mac='([^']*)' name='([^']*)' ip='([^']*)'",
                                      self.libvirtd.virsh("net-dumpxml", "lan", *more).stdout))
                    for more in ((), ("--inactive",))]
            self.assertEqual(*both)
            return both[0]
        printer = ("52:54:00:77:00:01", "printer", "10.77.0.9")
        self.protect(self.boot_model(rng))
        self.farshore.call("item", "compute", "web", "rack")
        self.farshore.call("item", "network", "web", "--test", "network:lan", "--mac", "52:54:00:77:00:02",
                           "--address", "10.77.0.3/24", "--address-by", "dhcp")
        self.booted(self.log_of(self.job("failover", "test", "web")))
        [mine] = [one for one in reserved() if one != printer]
        self.assertEqual(("52:54:00:77:00:02", "10.77.0.3"), (mine[0], mine[2]))
        self.refused("already-exists", "failover", "test", "web")
        self.farshore.kill_servers("up")
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        self.assertEqual(sorted([printer, mine]), reserved())
        self.job("failover", "cleanup", "web")
        self.assertEqual([printer], reserved())

        for card in (("--address", "10.77.0.9/24"), ("--address", "10.77.0.3/24", "--mac", printer[0])):
            self.farshore.call("item", "network", "web", *card)
            self.refused("already-exists", "failover", "test", "web")
            self.refused("already-exists", "failover", "start", "web", "--network", "network:lan")
            self.assertEqual([printer], reserved())
        self.refused("unsupported", "failover", "test", "web", "--network", "user")
        self.assertEqual([], self.libvirtd.domains())
        self.wait_state("web", "protected")

        self.farshore.call("item", "network", "web", "--mac", "keep", "--address-by", "cloud-init")
        job = self.job("failover", "test", "web")
        self.booted(self.log_of(job))
        described = self.libvirtd.virsh("dumpxml", job["result"]["domain"]).stdout
        self.assertIn("<serial>farshore-seed</serial>", described)
        self.assertEqual([printer], reserved())
        self.job("failover", "cleanup", "web")

    def test_drills_and_plans_there(self):
        """Breaks when a drill on a libvirt host sees no screen or serial port, takes a broken machine for a
        good one, or a plan starts what its check says would fail."""
        rng = seeded()
        self.set_up()
        self.protect(self.boot_model(rng))
        self.farshore.call("item", "compute", "web", "rack")
        for serial, limit, verdict in (("DONE", "120s", "good"), ("NEVER SAID", "10s", "bad")):
            self.farshore.call("drill", "set", "web", "--serial", serial, "--limit", limit)
            drill = self.drill("web")
            self.assertEqual(verdict, drill["verdict"], drill)
            screen = self.work / verdict
            self.farshore.call("drill", "show", drill["id"], "--screenshot", f"{screen}.png")
            self.assertTrue(pathlib.Path(f"{screen}.png").read_bytes().startswith(b"\x89PNG"))
        self.assertEqual([], self.libvirtd.domains())

        plan = self.work / "plan.yaml"
        plan.write_text("name: shop\ngroups:\n  - name: all\n    items: [{name: web}]\n")
        self.farshore.call("recovery-plan", "import", plan)
        self.assertEqual([], self.findings())
        run = self.farshore.call("recovery-plan", "start", "shop", "--mode", "test")
        self.assertEqual("succeeded", run["state"], run)
        self.assertEqual(1, len(self.libvirtd.domains()))
        self.assertIn("-segment.", self.libvirtd.virsh("net-list", "--name").stdout)
        self.farshore.call("recovery-plan", "run", "cleanup", run["id"])
        self.assertEqual([], self.libvirtd.domains())
        self.libvirtd.stop()
        self.assertTrue(any("rack" in one["what"] for one in self.findings()), self.findings())
        self.libvirtd.start()


if __name__ == "__main__":
    main()

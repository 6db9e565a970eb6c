#!/usr/bin/env python3
"""End to end: what recovery machines are plugged into. The machines have disks that no firmware boots, so that the one
of their network card comes up (iPXE) and asks for an address: a guest with a network, within seconds."""
import contextlib
import os
import re
import select
import socket
import subprocess

import support
from farshore import in_document
from support import EndToEnd, FarshoreError, NbdClient

MIB = 1 << 20


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


class Segment:
    """A listener on a closed segment: it gets what every machine there gets."""

    def __init__(self, group, port):
        self.place = (group, port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.place)
        loopback = socket.inet_aton("127.0.0.1")
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + loopback)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        self.frames = []

    def take(self):
        """What has come since."""
        new = []
        while select.select([self.socket], [], [], 0)[0]:
            new.append(self.socket.recv(65536))
        self.frames += new
        return new

    def sources(self):
        self.take()
        return {frame[6:12] for frame in self.frames}

    def close(self):
        self.socket.close()


class Networks(EndToEnd):
    def setUp(self):
        super().setUp()
        self.farshore.start_up()

    def protect(self, *names):
        for name in names:
            disk = self.work / f"{name}.img"
            disk.write_bytes(bytes(MIB))
            self.farshore.call("protect", name, "--disk", disk)
        for name in names:
            self.wait_state(name, "protected")

    def import_plan(self, text):
        path = self.work / "plan.yaml"
        path.write_text(text)
        self.farshore.call("recovery-plan", "import", path, "--replace")

    def running(self, name):
        """The newest test or failover of the item."""
        return self.farshore.call("failover", "list", name)["failovers"][0]

    def qemu_of(self, recovery):
        """The command line of its machine."""
        [line] = [line for _, line in self.farshore.descendants()
                  if "qemu-system" in line and f"/{recovery['id']}/" in line]
        return line

    def segment_of(self, recovery):
        """A listener where that machine's frames go."""
        line = self.qemu_of(recovery)
        found = re.search(r"mcast=([\d.]+):(\d+),localaddr=127\.0\.0\.1", line)
        self.assertTrue(found, line)
        self.assertNotIn("user,id=", line)
        segment = Segment(found[1], int(found[2]))
        self.addCleanup(segment.close)
        return segment

    def refused(self, *arguments):
        with self.assertRaises(FarshoreError) as error:
            self.farshore.call(*arguments)
        return error.exception.code

    def test_machines_of_one_run_see_each_other_and_nobody_else(self):
        """Breaks when the machines of a test run of a plan do not reach each other, when they reach another test's,
        or when the vault says that they are on another network than they are."""
        self.protect("db", "web", "other")
        self.import_plan("name: shop\ngroups:\n  - name: all\n    items: [{name: db}, {name: web}]\n")
        self.farshore.call("failover", "test", "other", "--network", "segment:elsewhere")
        run = self.farshore.call("recovery-plan", "start", "shop", "--mode", "test", "--unchecked")
        self.assertEqual("succeeded", run["state"], run)
        word = f"segment:run-{run['id']}"
        self.assertEqual(word, run["network"])
        db, web, other = (self.running(name) for name in ("db", "web", "other"))
        self.assertEqual([word, word, "segment:elsewhere"],
                         [recovery["nics"][0]["network"] for recovery in (db, web, other)])
        macs = [mac_bytes(recovery["nics"][0]["mac"]) for recovery in (db, web, other)]
        self.assertEqual(3, len(set(macs)), "each card has an address of its own")
        here, there = self.segment_of(db), self.segment_of(other)
        self.assertEqual(here.place, self.segment_of(web).place)
        self.assertNotEqual(here.place, there.place)

        self.farshore.wait_for("both machines are heard where the other one is",
                               lambda: set(macs[:2]) <= here.sources(), 300)
        self.farshore.wait_for("the third machine asks for an address", lambda: macs[2] in there.sources(), 300)
        self.assertEqual(set(macs[:2]), here.sources(), "a segment is closed")
        self.assertEqual({macs[2]}, there.sources(), "a segment is closed")
        self.farshore.call("recovery-plan", "run", "cleanup", run["id"])

    def test_words_are_checked_before_anything_begins(self):
        """Breaks when a network that nobody knows, or that is not there, is only found when a machine does not
        start."""
        self.protect("web")
        for word, code in (("br0", "invalid-argument"), ("segment:Lab", "invalid-argument"),
                           ("bridge:no-such-one", "dependency-missing"), ("bridge:lo", "dependency-missing")):
            self.assertEqual(code, self.refused("failover", "test", "web", "--network", word), word)
            self.assertEqual(code, self.refused("failover", "start", "web", "--network", word), word)
        self.assertEqual("protected", self.farshore.call("item", "web")["state"])
        self.assertEqual([], self.farshore.call("failover", "list", "web")["failovers"])
        self.import_plan("name: shop\nnetwork: bridge:no-such-one\ngroups:\n  - {name: all, items: [{name: web}]}\n")
        self.assertTrue(self.farshore.call("recovery-plan", "check", "shop", "--mode", "test")["would_run"])
        self.assertEqual("wrong-state", self.refused("recovery-plan", "start", "shop", "--mode", "failover"))
        self.assertEqual("protected", self.farshore.call("item", "web")["state"], "nothing was changed")

    def test_what_is_set_for_a_card_counts(self):
        """Breaks when a test or a failover does not have the network, the address of the card or of its guest that was
        set for it, or when a guest without an agent keeps its machine from starting."""
        self.protect("web")
        set_now = self.farshore.call("item", "network", "web", "--test", "segment:lab", "--failover", "none",
                                     "--mac", "52:54:00:AA:00:01", "--address", "10.1.2.3/24", "--gateway", "10.1.2.1",
                                     "--dns", "10.1.2.1")
        self.assertEqual("52:54:00:aa:00:01", set_now["nics"][0]["mac"])
        self.farshore.call("failover", "test", "web")
        test = self.running("web")
        self.assertEqual([{"nic": 0, "mac": "52:54:00:aa:00:01", "network": "segment:lab", "address": "10.1.2.3/24",
                           "by": "agent"}],
                         test["nics"])
        self.assertEqual("waiting", test["addresses"]["state"], "its agent never answers")
        segment = self.segment_of(test)
        self.farshore.wait_for("the card is there with its address",
                               lambda: mac_bytes("52:54:00:aa:00:01") in segment.sources(), 120)
        self.farshore.call("failover", "test", "web", "--network", "isolated")
        self.assertEqual("isolated", self.running("web")["nics"][0]["network"], "what is said at the start counts")
        self.farshore.call("item", "network", "web", "--clear")
        self.farshore.call("failover", "test", "web")
        self.assertEqual("isolated", self.running("web")["nics"][0]["network"])
        self.farshore.call("failover", "cleanup", "web")

    def test_an_address_by_dhcp_is_told_to_qemu_or_refused(self):
        """Breaks when QEMU's DHCP server is not told the card's address, or when one that nobody would give is taken
        and only the machine's start, or its owner, finds out. (What a guest is given: compute_test, guest_addresses.)"""
        self.protect("web")
        card = ("--address", "10.77.0.3/24", "--gateway", "10.77.0.1", "--address-by", "dhcp")
        self.assertEqual("dhcp", self.farshore.call("item", "network", "web", *card)["nics"][0]["by"])
        for network in ("isolated", "user"):
            self.farshore.call("failover", "test", "web", "--network", network)
            test = self.running("web")
            self.assertEqual(("10.77.0.3/24", "dhcp"), (test["nics"][0]["address"], test["nics"][0]["by"]))
            self.assertNotIn("addresses", test, "nobody waits for an agent")
            self.assertIn("net=10.77.0.0/24,host=10.77.0.1,dhcpstart=10.77.0.3,dns=10.77.0.2",
                          self.qemu_of(test))
            self.farshore.call("failover", "cleanup", "web")
        for network in ("segment:lab", "none"):
            for verb in ("test", "start"):
                self.assertEqual("invalid-argument", self.refused("failover", verb, "web", "--network", network))
            self.assertEqual("invalid-argument", self.refused("item", "network", "web", "--test", network))
        self.assertEqual("invalid-argument", self.refused("item", "network", "web", "--address", "2001:db8::3/64"))
        self.assertEqual("protected", self.farshore.call("item", "web")["state"])
        self.assertEqual([], self.farshore.call("failover", "list", "web")["failovers"])
        self.import_plan("name: shop\ngroups:\n  - {name: all, items: [{name: web}]}\n")
        with self.assertRaises(FarshoreError, msg="a test run's own segment"):
            self.farshore.call("recovery-plan", "start", "shop", "--mode", "test")
        self.assertEqual([], self.farshore.call("failover", "list", "web")["failovers"])

    def test_an_address_by_cloud_init_comes_on_a_disk(self):
        """Breaks when the machine has no disk for cloud-init, one that says something else, that can be written, or
        that is gone after the vault or the disk server was killed; or when any of it is left."""
        self.protect("web")
        self.farshore.call("item", "network", "web", "--test", "segment:lab", "--mac", "52:54:00:aa:00:01", "--address",
                           "10.77.0.3/24", "--dns", "9.9.9.9", "--address-by", "cloud-init")
        job = self.farshore.call("failover", "test", "web")
        test, socket_path = self.running("web"), in_document([job], "nbd_socket")
        self.assertEqual("cloud-init", test["nics"][0]["by"])
        self.assertIn("farshore-seed", self.qemu_of(test))

        def seed():
            with contextlib.closing(NbdClient(socket_path, 1)) as client:
                with self.assertRaises(OSError):
                    client.write(0, bytes(512))
                return client.read(0, client.size)
        image = seed()
        self.assertIn(b"CIDATA", image[0x8000:0x8800])
        for words in (b'"macaddress": "52:54:00:aa:00:01"', b'"10.77.0.3/24"', b'"9.9.9.9"', b'"cloud_init_modules": []'):
            self.assertIn(words, image)
        self.farshore.kill_servers("up")
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        self.farshore.kill_descendants("nbdkit")

        def again():
            try:
                return seed() == image
            except OSError:
                return False
        self.farshore.wait_for("it is served anew", again, 60)
        self.farshore.call("failover", "cleanup", "web")
        left = [str(path) for path in self.farshore.data.rglob("*") if "seed" in path.name]
        self.assertEqual([], left)

    def test_a_machine_on_a_bridge_is_on_it_while_it_runs(self):
        """Breaks when a machine's frames do not reach the bridge that was asked for, or when a port is left on it."""
        bridge = f"fse{os.getpid()}"
        if os.geteuid() != 0 or subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=False,
                                               capture_output=True).returncode:
            self.skipTest("this user may make no bridge")
        self.addCleanup(subprocess.run, ["ip", "link", "del", bridge], check=True)
        subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
        self.protect("web")
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.addCleanup(listener.close)
        listener.bind((bridge, 0))
        self.farshore.call("failover", "start", "web", "--network", f"bridge:{bridge}")
        running = self.running("web")
        self.assertEqual(f"bridge:{bridge}", running["nics"][0]["network"])
        ports = f"/sys/class/net/{bridge}/brif"
        self.assertEqual(1, len(os.listdir(ports)))
        mac = mac_bytes(running["nics"][0]["mac"])

        def heard():
            while select.select([listener], [], [], 0)[0]:
                if listener.recv(65536)[6:12] == mac:
                    return True
            return False

        self.farshore.wait_for("the machine asks for an address on the bridge", heard, 120)
        # The port is the machine's, not the vault's.
        self.farshore.kill_servers("up")
        self.assertEqual(1, len(os.listdir(ports)))
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        self.assertEqual("running", self.running("web")["state"])
        self.farshore.call("failover", "cancel", "web")
        self.assertEqual([], os.listdir(ports))


if __name__ == "__main__":
    support.main()

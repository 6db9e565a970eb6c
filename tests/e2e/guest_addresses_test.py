#!/usr/bin/env python3
"""End to end, a real machine: a Debian guest with cloud-init and the QEMU guest agent, protected while it runs, whose
tests are given addresses in each of the three ways; and a point of it at rest.

The same instance all along would not show much: at its source the guest is one of cloud-init's already, with a host
name and SSH host keys that were made for it."""
import base64
import json
import socket
import sys
import time

import support
from support import ROOT, EndToEnd, FarshoreError
from farshore import in_document

sys.path[:0] = [str(ROOT / "tests/demo"), str(ROOT / "tests/guest")]

import build_image  # noqa: E402
import cloud_image  # noqa: E402
import guest as guests  # noqa: E402

BOOT_S = 900
KEYS = "cat /etc/ssh/ssh_host_*_key.pub | sha256sum | cut -c1-64"
INSTANCE = "cat /var/lib/cloud/data/instance-id"


class CloudGuest(guests.SourceGuest):
    DISKS = ("root",)
    NAME = "cloud"
    MAC = "52:54:00:fa:55:07"

    def command(self):
        return super().command() + [
            "-smbios", "type=1,serial=ds=nocloud;i=at-its-source",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=qga,path={self.directory}/qga.sock,server=on,wait=off",
            "-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0"]

    def says(self, command, timeout_s=BOOT_S):
        """What a command in the guest prints, in one line."""
        after = len(self.serial.lines)
        self.serial.send(f"echo SAID \"$({command})\"")
        _, found = self.serial.wait_for(r"^SAID (.*)$", timeout_s, after)
        return found[1].strip()


class Agent:
    """A guest's agent on its socket, which it says things on for one at a time: for one question each."""

    def __init__(self, path):
        self.path = str(path)

    def ask(self, command, arguments=None, timeout_s=20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(timeout_s)
            line.connect(self.path)
            stream = line.makefile("rw", encoding="utf-8")
            mark = time.monotonic_ns() % 1_000_000_000
            for question in ({"execute": "guest-sync", "arguments": {"id": mark}},
                             {"execute": command, **({"arguments": arguments} if arguments else {})}):
                stream.write(json.dumps(question) + "\n")
            stream.flush()
            # What an earlier question was not answered with comes first.
            answered = False
            while text := stream.readline():
                answer = json.loads(text.lstrip("\xff"))
                if answered:
                    if "error" in answer:
                        raise FarshoreError(command, "", str(answer["error"]))
                    return answer["return"]
                answered = answer.get("return") == mark
        raise FarshoreError(command, "", "the agent hung up")

    def run(self, command):
        """What /bin/sh prints, without its last line end."""
        pid = self.ask("guest-exec", {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True})["pid"]
        while not (status := self.ask("guest-exec-status", {"pid": pid}))["exited"]:
            time.sleep(0.2)
        return base64.b64decode(status.get("out-data", "")).decode().strip()

    def address_of(self, mac):
        """The IPv4 addresses of the card, and the gateways, as `ip` says them."""
        [card] = [one for one in json.loads(self.run("ip -j addr")) if one.get("address") == mac]
        routes = json.loads(self.run("ip -j -4 route show default") or "[]")
        return ([f"{one['local']}/{one['prefixlen']}" for one in card["addr_info"] if one["family"] == "inet"],
                [one.get("gateway") for one in routes])


class GuestAddresses(EndToEnd):
    def setUp(self):
        super().setUp()
        image = cloud_image.ensure()
        self.accelerator = guests.pick_accelerator(image, build_image.cache_directory())
        self.guest = CloudGuest(image, self.work / "source", self.accelerator, 1024)
        self.addCleanup(lambda: self.guest.process and self.guest.kill())
        self.guest.start()
        self.farshore.start_up()

    def started(self, **settings):
        """A test of the machine, at the point at rest, with that set for its card; its agent."""
        words = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", value)]
        self.farshore.call("item", "network", "cloud", *words)
        job = self.farshore.call("failover", "test", "cloud", "--point", "rest", timeout_s=BOOT_S)
        return Agent(in_document([job], "agent_socket"))

    def ended(self):
        self.farshore.call("failover", "cleanup", "cloud")

    def wait_address(self, agent, address):
        def there():
            try:
                found, gateways = agent.address_of(self.guest.MAC)
            except (OSError, ValueError, FarshoreError):
                return None
            return address in found and (found, gateways)
        return self.farshore.wait_for(f"the guest has {address}", there, BOOT_S * 2, 3)

    def test_a_machine_has_its_addresses_and_stays_itself(self):
        """Breaks when a real guest does not get an address by its agent, by DHCP or by cloud-init, when cloud-init
        makes another machine of it (host keys, host name), or when a point at rest leaves it frozen."""
        guest = self.guest
        guest.wait_ready(BOOT_S)
        # Whatever became of its modules there: some want more than this small guest has.
        guest.says("cloud-init status --wait >/dev/null 2>&1; echo ended", BOOT_S * 2)
        self.assertEqual("at-its-source", guest.says(INSTANCE))
        keys, name = guest.says(KEYS), guest.says("hostname")
        guest.serial.run("sync")

        self.farshore.call("protect", "cloud", "--qmp", guest.qmp_path)
        self.wait_state("cloud", "protected", timeout_s=600)
        point = self.farshore.call("point", "cloud", "--bookmark", "rest", "--consistent")
        self.assertEqual("application", point["kind"])
        self.assertEqual("thawed", Agent(guest.directory / "qga.sock").ask("guest-fsfreeze-status"))
        guest.serial.run("touch /var/tmp/written && sync")
        print("protected, at rest, and thawed", flush=True)

        agent = self.started(test="segment:lab", address="10.77.0.4/24", gateway="10.77.0.1", address_by="cloud-init")
        found, gateways = self.wait_address(agent, "10.77.0.4/24")
        self.assertEqual((["10.77.0.4/24"], ["10.77.0.1"]), (found, gateways))
        self.farshore.wait_for("cloud-init has ended", lambda: "running" not in agent.run("cloud-init status"), BOOT_S, 3)
        print(f"by cloud-init: {found}, {agent.run('cloud-init status')}", flush=True)
        self.assertTrue(agent.run(INSTANCE).startswith("farshore-"), agent.run(INSTANCE))
        self.assertEqual((keys, name), (agent.run(KEYS), agent.run("hostname")))
        self.assertEqual("", agent.run("ls /var/lib/cloud/instance/sem | grep config_"), "no module ran")
        self.assertEqual("vda", agent.run("lsblk -ndo PKNAME $(findmnt -no SOURCE /)"), "its disk kept its name")
        self.ended()

        agent = self.started(address="10.77.0.3/24", address_by="agent")
        found, gateways = self.wait_address(agent, "10.77.0.3/24")
        self.assertEqual((["10.77.0.3/24"], ["10.77.0.1"]), (found, gateways))
        self.farshore.wait_for("the vault says so", lambda: self.farshore.call("failover", "list", "cloud")
                               ["failovers"][0]["addresses"]["state"] == "set", 60)
        print(f"by its agent: {found}", flush=True)
        self.assertEqual("at-its-source", agent.run(INSTANCE), "nobody made it another instance")
        self.ended()

        # Its own configuration is DHCP, and nobody but QEMU's server tells it anything.
        agent = self.started(test="isolated", address="10.77.0.5/24", address_by="dhcp")
        found, _ = self.wait_address(agent, "10.77.0.5/24")
        self.assertEqual(["10.77.0.5/24"], found)
        print(f"by DHCP: {found}", flush=True)
        self.assertEqual("at-its-source", agent.run(INSTANCE))
        self.assertEqual(keys, agent.run(KEYS))
        self.ended()


if __name__ == "__main__":
    support.main()

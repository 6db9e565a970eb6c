"""A guest that is protected from inside: the agent in it, the vault and the appliance on this host.

The program, the libraries that it links, the authority's certificate and the enrolment token come to
the guest on a small read-only disk of their own, made with mkfs.ext4 -d."""
import pathlib
import re
import shlex
import shutil
import subprocess
import time

import guest as guests
from farshore import FarshoreError

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "packaging/agent/bundle.sh"
LABEL = "farshore-agent"
MOUNTED = "/opt/farshore"
DATA = "/var/lib/farshore-agent"
HOST_IN_GUEST = "10.0.2.2"    # what leads to this host's loopback in QEMU's user network
MEMORY_MIB = 2048

# Runs from the disk. Whatever it does can be done again.
START = f"""#!/bin/sh
# start NETWORK COMMAND…: brings the network up, runs the command, and says which disk is which.
set -e
network=$1
shift
mkdir -p "$network"
cat >"$network/10-farshore-demo.network" <<'END'
[Match]
Name=e*
[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
IPv6AcceptRA=no
END
systemctl restart systemd-networkd
"$@" >/run/farshore-start.log 2>&1 || {{ tail -n 5 /run/farshore-start.log; echo START-FAILED; exit 1; }}
for disk in /sys/block/vd*; do
    echo "DISK $(cat "$disk/serial") /dev/${{disk##*/}}"
done
echo START-DONE
"""


def make_disk(target, binary, files):
    """The agent's disk: what packaging/agent/bundle.sh gathers, and `files` (name -> text)."""
    tree = target.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run([str(BUNDLE), str(binary), str(tree)], check=True)
    for name, text in {"start": START, **files}.items():
        (tree / name).write_text(text)
        (tree / name).chmod(0o755 if text.startswith("#!") else 0o600)
    size_kib = sum(p.stat().st_size for p in tree.rglob("*") if p.is_file()) // 1024 + (8 << 10)
    target.unlink(missing_ok=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", LABEL, "-m", "0", "-O", "^has_journal", "-d", str(tree),
                    str(target), f"{size_kib}k"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)


class AgentGuest(guests.SourceGuest):
    """The demo's guest with the agent's disk, and with a network that reaches this host."""

    NETWORK = "user,id=net0"
    REBOOTS = False

    def __init__(self, image_directory, directory, accelerator, memory_mib=MEMORY_MIB):
        super().__init__(image_directory, directory, accelerator, memory_mib)
        self.agent_disk = self.directory / "agent.img"
        self.devices = {}    # serial number -> path in the guest

    def command(self):
        options = super().command()
        if self.REBOOTS:
            options.remove("-no-reboot")
        return options + [
            "-drive", f"if=none,id=agent,format=raw,readonly=on,file={self.agent_disk}",
            "-device", "virtio-blk-pci,drive=agent,id=disk-agent,serial=agent"]

    def run(self, command, timeout_s=60):
        self.serial.run(command, timeout_s)

    def set_clock(self):
        """To its site's time, which a machine gets by NTP."""
        self.run(f"date -us @{time.time():.3f} >/dev/null")

    def stop_load(self):
        self.serial.stop_load()

    def start_load_again(self, per_second=40):
        """After stop_load, or a restart of the guest."""
        self.run("until pg_isready -q -h /run/postgresql; do sleep 0.2; done", 120)
        self.start_load(per_second)

    def restart(self, timeout_s=300):
        """A clean restart of the guest, until it is logged in again."""
        after = len(self.serial.lines)
        self.serial.send("systemctl reboot")
        self.serial.wait_for(r"^READY ", timeout_s, after)

    def run_start(self, command, network="/run/systemd/network", timeout_s=240):
        """Mounts the agent's disk in the guest and runs a command from it; the shell on the serial line
        must be free. Afterwards `devices` is known."""
        for attempt in range(3):    # an emulated serial line loses a character now and then
            after = len(self.serial.lines)
            # The machine has its site's time, which it would get by NTP.
            self.serial.send(f"date -us @{time.time():.3f} >/dev/null; mkdir -p {MOUNTED}; "
                             f"mountpoint -q {MOUNTED} || mount -r LABEL={LABEL} {MOUNTED}; "
                             f"{MOUNTED}/start {network} {command} || echo START-ENDED")
            _, found = self.serial.wait_for(r"^START-(DONE|FAILED|ENDED)", timeout_s, after)
            if found[1] == "DONE":
                said = [text for _, text in self.serial.lines[after:]]
                self.devices = dict(m.groups() for m in map(
                    re.compile(r"^DISK (\S+) (/dev/\S+)$").match, said) if m)
                if set(self.DISKS) <= self.devices.keys():
                    return
            if attempt == 2:
                tail = "\n  ".join(text for _, text in self.serial.lines[after:][-12:])
                raise guests.GuestError(f"the agent was not started in the guest. It says:\n  {tail}")
            self.serial.send("")

    def device_options(self):
        """What `farshore protect` is to capture: the root disk first."""
        return [word for name in self.DISKS for word in ("--device", self.devices[name])]


def prepare(guest, farshore, site, name, files=None):
    """The site's appliance for that guest, and the guest's disk with its token and `files` (name ->
    text). Before the guest's start; the vault runs."""
    farshore.start_site(site, ("appliance",))
    make_disk(guest.agent_disk, farshore.binary, {
        "ca.crt": farshore.authority.read_text(),
        "agent.token": farshore.new_token("agent") + "\n", **(files or {})})
    guest.agent_name = name
    guest.appliance = f"{HOST_IN_GUEST}:{farshore.replication_listen.rsplit(':', 1)[1]}"


def run_agent(guest):
    """For the time until the guest's end: a unit of systemd that is written nowhere. Its program stays
    on the agent's disk, its data directory is on the root disk, so is protected with it."""
    command = ["systemd-run", "--collect", "--unit=farshore-agent", "-p", "KillMode=process",
               "-p", "LimitMEMLOCK=infinity", "-p", "Restart=on-failure", "-p", "OOMScoreAdjust=-900",
               f"{MOUNTED}/farshore", "agent", "serve", "--data", DATA, "--name", guest.agent_name,
               "--appliance", guest.appliance, "--ca", f"{MOUNTED}/ca.crt",
               "--enrol-token-file", f"{MOUNTED}/agent.token"]
    guest.run_start("sh -c " + shlex.quote("systemctl -q is-active farshore-agent || exec " + shlex.join(command)))


def install_agent(guest):
    """For good, as a person does it: packaging/agent/install.sh, and a network that is configured."""
    command = [f"{MOUNTED}/install.sh", "--appliance", guest.appliance, "--ca", f"{MOUNTED}/ca.crt",
               "--token-file", f"{MOUNTED}/agent.token", "--name", guest.agent_name]
    guest.run_start("sh -c " + shlex.quote("systemctl -q enable systemd-networkd; exec " + shlex.join(command)),
                    "/etc/systemd/network", 600)


def wait_for_agent(guest, farshore, timeout_s=120):
    """Until the vault has it connected; returns the name that the vault gave it. The shell on the serial
    line must be free: what the agent logged is part of the error."""
    try:
        return farshore.wait_for("the agent in the guest is connected", lambda: next((
            agent["name"] for agent in farshore.call("agents")["agents"]
            if agent["kind"] == "agent" and agent.get("connected")), None), timeout_s)
    except FarshoreError as error:
        after = len(guest.serial.lines)
        guest.serial.send("journalctl -o cat --no-pager -n 20 -u farshore-agent; "
                          "echo LOG-END")
        guest.serial.wait_for("^LOG-END", 60, after)
        said = "\n  ".join(text for _, text in guest.serial.lines[after:])
        raise guests.GuestError(f"{error}. In the guest:\n  {said}") from error

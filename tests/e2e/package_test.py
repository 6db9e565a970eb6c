#!/usr/bin/env python3
"""The Debian packages: on a clean Debian, and in a machine where systemd runs what they brought.

  CleanRoot  packages are built, installed by apt in a fresh root, upgraded, removed and purged
  Guest      in a machine: installed, started, a disk protected, upgraded under way, read back and failed
             over, removed and purged
Both need root and a mirror of Debian, which the machine's own apt knows."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import package_guest
from support import BINARY, ROOT

BUILD = BINARY.parent.parent
OLD, NEW = "0.0.9", "0.1.0+test1"
NAMES = ("farshore", "farshore-vault", "farshore-appliance", "farshore-agent")
DATA_BYTES = 48 << 20


def build_packages(version, out):
    done = subprocess.run(["python3", str(ROOT / "packaging/deb/build.py"), str(BUILD), str(out)], check=True,
                          text=True, stdout=subprocess.PIPE, env={**os.environ, "FARSHORE_PACKAGE_VERSION": version})
    return [pathlib.Path(line) for line in done.stdout.split()]


class Packages(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="farshore-e2e-"))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        self.old = build_packages(OLD, self.work / "old")
        self.new = build_packages(NEW, self.work / "new")


class CleanRoot(Packages):
    def inside(self, *command, code=0):
        done = subprocess.run(["chroot", str(self.root), *command], text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive",
                                   "LC_ALL": "C.UTF-8"})
        self.assertEqual(code, done.returncode, f"{command}\n{done.stdout}")
        return done.stdout

    def install(self, packages):
        for package in packages:
            shutil.copy(package, self.root / "tmp")
        return self.inside("apt-get", "install", "-y", "-q", "--no-install-recommends",
                           *(f"/tmp/{package.name}" for package in packages))

    def test_installs_upgrades_and_goes(self):
        """Breaks when a dependency or a file is missing, a changed configuration is overwritten, a script
        fails, data are lost, or something is left behind that should have gone."""
        self.assertEqual([p.read_bytes() for p in self.new],
                         [p.read_bytes() for p in build_packages(NEW, self.work / "again")])
        self.root = self.work / "root"
        subprocess.run(["mmdebstrap", "--mode=root", "--variant=minbase", "--include=libc-bin,passwd", "--skip=cleanup/apt",
                        "--aptopt=Acquire::Languages \"none\"", "bookworm", str(self.root)],
                       check=True, capture_output=True)
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        before = self.files()

        self.install(self.old)
        self.assertEqual("farshore", self.inside("farshore", "--version").split()[0])
        for part in ("vault", "appliance", "agent"):
            self.assertEqual("ok\n", self.inside("farshore", part, "serve", "--config", f"/etc/farshore/{part}.toml",
                                                 "--check"))
        for user in ("farshore-vault", "farshore-appliance"):
            self.inside("getent", "passwd", user)
        # nbdkit loads the plugin: all that it links is there.
        self.inside("nbdkit", "/usr/lib/farshore/lib/nbdkit-farshore-plugin.so", "--dump-plugin")
        # The NBD front runs as far as its configuration, which is not there.
        self.inside("/usr/lib/farshore/bin/farshore-nbd-front", "/none", code=66)
        self.assertEqual("", self.inside("dpkg", "--verify", *NAMES))
        self.assertTrue((self.root / "usr/share/farshore/grafana/farshore.json").exists())

        config = self.root / "etc/farshore/vault.toml"
        config.write_text(config.read_text() + "\nlisten = \"127.0.0.1:18443\"\n")
        data = [self.root / place for place in ("var/lib/farshore/vault/key", "var/lib/farshore/appliance/identity.key",
                                                "var/lib/farshore-agent/identity.key")]
        for file in data:
            file.parent.mkdir(parents=True)
            file.write_text("of a site\n")
        self.install(self.new)
        self.assertIn(NEW, self.inside("dpkg-query", "-W", "farshore-agent"))
        self.assertIn("18443", config.read_text())

        self.inside("dpkg", "--remove", *reversed(NAMES))
        self.assertFalse((self.root / "usr/bin/farshore").is_symlink())
        self.assertIn("18443", config.read_text())
        self.assertTrue(all(file.exists() for file in data))
        said = self.inside("dpkg", "--purge", *reversed(NAMES))
        self.assertIn("/var/lib/farshore/vault stays", said)
        self.assertEqual([True, False, False], [file.exists() for file in data])
        left = {name for name in self.files() - before if "farshore" in name}
        self.assertEqual({"var/lib/farshore", "var/lib/farshore/vault", "var/lib/farshore/vault/key"}, left)

    def files(self):
        return {str(path.relative_to(self.root)) for place in ("etc", "usr", "lib", "var/lib")
                for path in (self.root / place).rglob("*") if "/var/lib/dpkg/" not in str(path)}


# Of the guest. Each says itself what is wrong: sh -eu ends at the first command that fails.
COMMON = """
export FARSHORE_DATA=/var/lib/farshore/vault
until_true() { n=0; until "$@"; do n=$((n + 1)); [ $n -lt 120 ] || { echo "never: $*"; exit 1; }; sleep 1; done; }
protected() { farshore item web | tee /run/item | grep -Eq '^State +protected'; }
of_user() { [ "$(stat -c %U "/proc/$(systemctl show -P MainPID "$1")")" = "$2" ]; }
users_of() { for p in /proc/[0-9]*; do [ "$(cat "$p/comm" 2>/dev/null)" != "$1" ] || stat -c %U "$p"; done; }
disk() { for d in /sys/block/vd*; do [ "$(cat "$d/serial")" != data ] || echo "/dev/${d##*/}"; done; }
write() { pattern "$1" | dd of="$(disk)" bs=1M seek="$2" conv=notrunc,fsync oflag=direct iflag=fullblock; }
pattern() { yes "$1" | head -c 4194304; }
"""
STEPS = {
    "install": """
dpkg -i /steps/old/*.deb
[ "$(dpkg-query -W -f '${Version}' farshore-vault)" = 0.0.9 ]
for part in vault appliance agent; do ! systemctl -q is-active farshore-$part; ! systemctl -q is-enabled farshore-$part; done
""",
    "start": """
systemctl enable --now farshore-vault
until_true farshore items
of_user farshore-vault farshore-vault
install -m 644 /var/lib/farshore/vault/authority.crt /etc/farshore/ca.crt
umask 077
farshore token create --kind appliance >/etc/farshore/appliance.token
farshore token create --kind agent >/etc/farshore/agent.token
umask 022
chown farshore-vault /etc/farshore/appliance.token
sed -i -e 's,^vault = .*,vault = "https://127.0.0.1:8443",' -e 's,^#ca,ca,' -e 's,^#enrol,enrol,' /etc/farshore/appliance.toml
sed -i -e 's,^appliance = .*,appliance = "127.0.0.1:9443",' -e 's,^#ca,ca,' -e 's,^#enrol,enrol,' \\
    -e 's,^#ring-mib = .*,ring-mib = 64,' -e 's,^#trace-ring-kib = .*,trace-ring-kib = 16384,' /etc/farshore/agent.toml
# Vault and appliance on one machine with the store in a directory (docs/operations/packages.md).
mkdir -p /etc/systemd/system/farshore-appliance.service.d
printf '%s\\n' '[Service]' User=farshore-vault Group=farshore-vault PrivateUsers=no \\
    ReadWritePaths=/var/lib/farshore/vault/store >/etc/systemd/system/farshore-appliance.service.d/one-machine.conf
systemctl daemon-reload
for part in appliance agent; do
    farshore $part serve --config /etc/farshore/$part.toml --check
    systemctl enable --now farshore-$part
done
agent() { farshore agents | grep -E '^[^ ]+ +agent ' ; }
until_true agent
""",
    "protect": """
write first 0
farshore protect web --device "$(disk)" --capture-wait 60
until_true protected
write second 8
farshore point web --bookmark before-upgrade
sha256sum <"$(disk)" >/var/lib/before
""",
    "upgrade": """
for part in vault appliance agent; do systemctl show -P MainPID farshore-$part; done >/run/pids
dpkg -i /steps/new/*.deb
[ "$(dpkg-query -W -f '${Version}' farshore-vault)" = '0.1.0+test1' ]
for part in vault appliance agent; do systemctl -q is-active farshore-$part; systemctl show -P MainPID farshore-$part; done >/run/pids.new
! grep -qxf /run/pids /run/pids.new
until_true farshore items
until_true protected
write third 16
farshore point web --bookmark after-upgrade
sha256sum <"$(disk)" >/var/lib/after
""",
    "read": """
for point in before after; do
    farshore materialise web --point $point-upgrade --disk 0 --to raw:/var/lib/farshore/vault/$point.img
    sha256sum </var/lib/farshore/vault/$point.img | cmp - /var/lib/$point
done
""",
    "fail-over": """
# The recovered machine is to have as much memory as this one, which does not use it.
echo 1 >/proc/sys/vm/overcommit_memory
farshore failover start web --point after-upgrade
until_true sh -c "farshore item web | grep -Eq '^State +failed-over'"
[ "$(users_of qemu-system-x86)" = farshore-vault ]
farshore failover commit web
""",
    "remove": """
dpkg --remove farshore-agent farshore-appliance farshore-vault farshore
! command -v farshore
for part in vault appliance agent; do ! systemctl -q is-active farshore-$part; done
! ls -d /sys/fs/bpf/farshore-*
[ -s /var/lib/farshore/vault/vault/key ]
[ -s /etc/farshore/vault.toml ]
# What the vault has started is somebody's machine: it goes on.
[ "$(users_of qemu-system-x86)" = farshore-vault ]
dpkg --purge farshore-agent farshore-appliance farshore-vault farshore
[ -s /var/lib/farshore/vault/vault/key ]
[ ! -e /var/lib/farshore-agent ]
[ ! -e /var/lib/farshore/appliance ]
""",
}


class Guest(Packages):
    def test_a_machine_runs_what_was_packaged(self):
        """Breaks when a unit may too little, an upgrade ends protection, a point is wrong, a failover does
        not start with the unit's rights, or a removal takes data or leaves services."""
        image = package_guest.ensure(self.new)
        tree = self.work / "steps"
        for name, packages in (("old", self.old), ("new", self.new)):
            (tree / name).mkdir(parents=True)
            for package in packages:
                shutil.copy(package, tree / name)
        for name, text in STEPS.items():
            (tree / name).write_text("set -x\n" + COMMON + text)
        steps = self.work / "steps.img"
        subprocess.run(["mkfs.ext4", "-q", "-F", "-L", "steps", "-O", "^has_journal", "-d", str(tree), str(steps),
                        "48M"], check=True)
        machine = self.work / "machine"
        machine.mkdir()
        with open(machine / "data.img", "wb") as disk:
            disk.truncate(DATA_BYTES)
        accelerator = package_guest.agent_guest.guests.pick_accelerator(image, package_guest.build_image.cache_directory())
        guest = package_guest.PackageGuest(image, machine, accelerator, steps)
        guest.start()
        self.addCleanup(guest.kill)
        guest.wait_ready(300)
        for name in STEPS:
            print(f"step {name}", flush=True)
            guest.step(name, 400)


if __name__ == "__main__":
    if not BINARY.exists():
        raise SystemExit(f"there is no {BINARY}: ./run build makes it")
    if os.geteuid() != 0:
        raise SystemExit("making roots and images needs root")
    unittest.main(verbosity=2)

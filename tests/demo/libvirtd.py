"""A real libvirtd of the caller's own: tests/e2e/private_libvirtd.sh."""
import pathlib
import signal
import subprocess
import time

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "e2e/private_libvirtd.sh"


class Libvirtd:
    """In a directory that lets everybody through."""

    def __init__(self, directory):
        self.directory = directory
        self.process = None
        self.start()

    @property
    def uri(self):
        return f"qemu+unix:///system?socket={self.directory}/sock/libvirt-sock"

    def start(self):
        log = open(f"{self.directory}.log", "ab")
        self.process = subprocess.Popen([SCRIPT, self.directory], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        self.wait(lambda: self.virsh("list", check=False).returncode == 0)

    def stop(self):
        """As a power cut: all that it runs ends as well."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.wait(lambda: self.daemon_pid() is None)

    def daemon_pid(self):
        found = subprocess.run(["pgrep", "-f", f"^libvirtd .*{self.directory}/"], check=False, capture_output=True,
                               text=True).stdout.split()
        return int(found[0]) if found else None

    def virsh(self, *words, check=True):
        return subprocess.run(["virsh", "-q", "-c", self.uri, *words], capture_output=True, text=True, check=check)

    def domains(self):
        return self.virsh("list", "--all", "--name").stdout.split()

    @staticmethod
    def wait(condition):
        until = time.monotonic() + 60
        while not condition():
            if time.monotonic() > until:
                raise RuntimeError("libvirtd does not do it")
            time.sleep(0.05)

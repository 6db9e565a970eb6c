"""What the fault tests share: servers with options of their own, file systems that are full, codes."""
import os
import pathlib
import subprocess
import threading
import time

from farshore import free_port
from support import BINARY, EndToEnd, FarshoreError

MIB = 1 << 20


class FaultTest(EndToEnd):
    def start_up(self, *options):
        """`up` with further options, on ports that stay when it is started again."""
        self.ports = [free_port(), free_port()]
        self.farshore.start_server(
            "up", "up", "--data", self.farshore.data, "--listen", f"127.0.0.1:{self.ports[0]}",
            "--replication-listen", f"127.0.0.1:{self.ports[1]}", *options)
        self.farshore.wait_until_serving()

    def restart_up(self):
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()

    def small_file_system(self, path, size_mib):
        """A tmpfs of that size at `path`, gone after the test."""
        path = pathlib.Path(path)
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=700", "tmpfs", path],
                       check=True)
        # Before the directory is removed, and after the servers have ended.
        self._cleanups.insert(self._cleanups.index(next(
            c for c in self._cleanups if c[0] == self.farshore.end)),
            (subprocess.run, (["umount", "-l", str(path)],), {"check": False}))
        return path

    def fill(self, path):
        """Takes what is free there; returns the file to remove."""
        hog = pathlib.Path(path) / "hog"
        with open(hog, "wb", buffering=0) as file:
            size = MIB
            while size >= 512:
                try:
                    if file.write(bytes(size)) < size:
                        size //= 2
                except OSError:
                    size //= 2
        return hog

    def keep_full(self, path):
        """Takes also what becomes free there, until the returned function is called."""
        hog, stop, full = pathlib.Path(path) / "hog", threading.Event(), threading.Event()

        def take():
            with open(hog, "ab", buffering=0) as file:
                while not stop.is_set():
                    for size in (MIB, 4096, 1):
                        try:
                            while file.write(bytes(size)) == size:
                                pass
                        except OSError:
                            continue
                    full.set()
                    stop.wait(0.005)

        taker = threading.Thread(target=take, daemon=True)
        taker.start()
        full.wait()

        def end():
            stop.set()
            taker.join()
            hog.unlink(missing_ok=True)
        self.addCleanup(end)
        return end

    def protect(self, model, name="web", *options):
        paths = model.make_files(self.work)
        arguments = [word for path in paths for word in ("--disk", path)]
        self.farshore.call("protect", name, *arguments, *options)
        self.wait_state(name, "protected")
        return paths

    def troubles(self, name="web"):
        return {trouble["code"]: trouble for trouble in self.farshore.call("item", name)["troubles"]}

    def wait_trouble(self, code, *words, name="web", timeout_s=40, on_poll=None):
        trouble = self.farshore.wait_for(
            f"health says {code}", lambda: self.troubles(name).get(code), timeout_s, on_poll=on_poll)
        for word in words:
            self.assertIn(word, trouble["cause"] + " " + trouble.get("remedy", ""))
        return trouble

    def wait_healthy(self, name="web", timeout_s=60):
        return self.farshore.wait_for(
            "it is healthy again",
            lambda: (item := self.farshore.call("item", name))["state"] == "protected" and
            not item["troubles"] and item, timeout_s)

    def bookmark(self, label, name="web", timeout_s=60):
        def make():
            try:
                return self.farshore.call("point", name, "--bookmark", label)
            except FarshoreError as error:
                if error.code == "already-exists":
                    return True
                raise
        return self.farshore.wait_for(f"the bookmark {label} is stored", make, timeout_s)

    def refused(self, *verb, data=None):
        """(code, words) of a verb that must fail."""
        with self.assertRaises(FarshoreError) as error:
            if data is None:
                self.farshore.call(*verb)
            else:
                self.run_cli(*verb, "--data", data)
        return error.exception.code, str(error.exception)

    def run_program(self, *words, timeout_s=60):
        """(exit code, standard error) of a program that is expected to end."""
        done = subprocess.run([str(BINARY), *map(str, words)], capture_output=True, text=True,
                              timeout=timeout_s, env=self.farshore.environment, check=False)
        return done.returncode, done.stderr

    def log_of(self, name):
        return (self.work / "logs" / f"{name}.log").read_text(errors="replace")


def rss_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def settle(read, quiet_s=1.0, timeout_s=15):
    """The value of `read` once it has not changed for a while."""
    deadline = time.monotonic() + timeout_s
    last, since = read(), time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < quiet_s:
        time.sleep(0.1)
        now = read()
        if now != last:
            last, since = now, time.monotonic()
    return last

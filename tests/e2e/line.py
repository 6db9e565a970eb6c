"""A line between source and recovery site that can be cut: the agent in a network namespace."""
import os
import subprocess

from support import EndToEnd


def run(*command):
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


class CutLine(EndToEnd):
    def make_line(self):
        """A veth pair: 10.219.N.1 here, .2 in the namespace."""
        self.space = f"fs-{os.getpid()}"
        self.outside, inside = f"fso{os.getpid()}", f"fsi{os.getpid()}"
        network = f"10.219.{os.getpid() % 250}"
        run("ip", "netns", "add", self.space)
        self.addCleanup(subprocess.run, ["ip", "netns", "del", self.space], check=False)
        run("ip", "link", "add", self.outside, "type", "veth", "peer", "name", inside, "netns", self.space)
        self.addCleanup(subprocess.run, ["ip", "link", "del", self.outside], check=False, capture_output=True)
        run("ip", "addr", "add", f"{network}.1/24", "dev", self.outside)
        run("ip", "link", "set", self.outside, "up")
        for command in (("addr", "add", f"{network}.2/24", "dev", inside), ("link", "set", inside, "up"),
                        ("link", "set", "lo", "up")):
            run("ip", "-n", self.space, *command)
        self.farshore.prefixes["agent"] = ["ip", "netns", "exec", self.space]
        # Cleanups run backwards: the agent ends before its namespace goes.
        self.addCleanup(self.farshore.end)
        return f"{network}.1"

    def cut_line(self):
        run("ip", "link", "set", self.outside, "down")

    def mend_line(self):
        run("ip", "link", "set", self.outside, "up")

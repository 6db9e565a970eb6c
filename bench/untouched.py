#!/usr/bin/env python3
"""What test failovers cost the machine that is protected: its writes through the tap and its RPO with three
test failovers at three points, each of which has booted and runs, beside the same without any, in turn, who
goes first changing each round. Ratios of the rounds, their medians count (`bench/README.md`)."""
import argparse
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench")]
from run import GIB, MIB, Site  # noqa: E402
from tools import fio  # noqa: E402

BOOT_SECTOR = ROOT / "tests/e2e/bootsector/bootsector.bin"
POINTS = ("one", "two", "three")
SETTLED = itertools.count()


class WorstRpo:
    """Of the item, looked at ten times a second while the block runs."""

    def __init__(self, farshore):
        self.farshore, self.worst_s, self.over = farshore, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.over.wait(0.1):
            self.worst_s = max(self.worst_s, self.farshore.call("item", "web")["rpo_s"])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def measured(site, uri, seconds):
    """Requests a second at depth 32, latency at depth 1, and the worst RPO under the first."""
    with WorstRpo(site.farshore) as rpo:
        deep = fio(uri, "randwrite", "4k", 32, GIB - MIB, offset=MIB, seconds=seconds)
    shallow = fio(uri, "randwrite", "4k", 1, GIB - MIB, offset=MIB, seconds=seconds)
    site.farshore.call("point", "web", "--bookmark", f"settled-{next(SETTLED)}")
    return {"iops": deep.iops, "p99_us": shallow.p99_us, "rpo_s": rpo.worst_s}


def with_tests(site, uri, seconds):
    for label in POINTS:
        site.farshore.call("failover", "test", "web", "--point", label)
    running = [one for one in site.farshore.call("failover", "list", "web")["failovers"]
               if one["state"] == "running"]
    if len(running) != len(POINTS):
        raise SystemExit(f"not all of them run: {running}")
    result = measured(site, uri, seconds)
    site.farshore.call("failover", "cleanup", "web", "--all")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default=os.environ.get("TMPDIR", "/tmp"))
    options = parser.parse_args()
    alone, tested = [], []
    with tempfile.TemporaryDirectory(dir=options.directory) as work, Site(work) as site:
        disk = pathlib.Path(work) / "disk.img"
        with open(disk, "wb") as image:
            image.truncate(GIB)
            image.write(BOOT_SECTOR.read_bytes())
        uri = site.protect_disk("web", disk)
        fio(uri, "write", "1m", 4, GIB - MIB, offset=MIB)
        for label in POINTS:
            site.farshore.call("point", "web", "--bookmark", label)
        for number in range(options.rounds):
            sides = [(alone, measured), (tested, with_tests)]
            for results, measure in sides if number % 2 == 0 else reversed(sides):
                results.append(measure(site, uri, options.seconds))
            print(f"round {number + 1}: alone {alone[-1]}, with tests {tested[-1]}", flush=True)
    for what in ("iops", "p99_us", "rpo_s"):
        ratios = sorted(b[what] / a[what] for a, b in zip(alone, tested) if a[what])
        print(f"{what}: alone {statistics.median(r[what] for r in alone):.1f}, with three tests "
              f"{statistics.median(r[what] for r in tested):.1f}, ratio {statistics.median(ratios):.2f} "
              f"({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()

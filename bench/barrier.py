#!/usr/bin/env python3
"""How long writes wait for a shared point: a replication group of machines in path, each written by a
client of its own, and points one after the other. The time is the vault's, from its order to hold until
the last machine's point was heard of: no write waits longer. docs/design/groups.md §1.7."""
import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/demo"), str(ROOT / "tests/e2e")]

from farshore import Farshore  # noqa: E402
from support import NbdClient  # noqa: E402

BIN = pathlib.Path(os.environ.get("FARSHORE_BENCH_BUILD") or ROOT / "build/release") / "bin"
AIM_MS = 50


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def write_until(ended, path, export, pause_s):
    client = NbdClient(path, export)
    number = 0
    while not ended.wait(pause_s):
        number += 1
        client.write(number % 200 * 4096, number.to_bytes(8, "little") * 512)
    client.close()


def measure(site, members, points, pause_s, work):
    names = [f"m{number}" for number in range(members)]
    for name in names:
        disk = work / f"{name}.img"
        disk.write_bytes(bytes(1 << 20))
        site.call("protect", name, "--disk", disk)
    for name in names:
        site.wait_for(f"{name} is protected",
                      lambda name=name: site.call("item", name)["state"] == "protected", 120)
    ended = threading.Event()
    writers = []
    for name in names:
        item = site.call("item", name)
        writers.append(threading.Thread(target=write_until,
                                        args=(ended, item["nbd_socket"], "0", pause_s)))
        writers[-1].start()
    try:
        site.call("group", "create", "bench", *names, "--crash-interval", 0)
        taken = []
        for _ in range(points):
            point = site.call("group", "point", "bench")
            taken.append(point["barrier_us"] / 1000)
            print(f"{taken[-1]:8.1f} ms", file=sys.stderr, flush=True)
        return taken
    finally:
        ended.set()
        for writer in writers:
            writer.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--pause-ms", type=float, default=5, help="between two writes of a machine")
    parser.add_argument("--json", help="write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="farshore-bench-") as directory:
        work = pathlib.Path(directory)
        site = Farshore(BIN / "farshore", work / "data", work / "logs", {})
        try:
            site.start_up()
            taken = measure(site, options.members, options.points, options.pause_ms / 1000, work)
        finally:
            site.end()
    figures = {"members": options.members, "points": len(taken), "median_ms": statistics.median(taken),
               "p99_ms": percentile(taken, 0.99), "most_ms": max(taken), "aim_p99_ms": AIM_MS}
    print(f"barrier of {figures['members']} members, {figures['points']} points: median "
          f"{figures['median_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms, most {figures['most_ms']:.1f} ms "
          f"(aim: p99 below {AIM_MS} ms)")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()

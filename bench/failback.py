#!/usr/bin/env python3
"""What the way home moves: a machine of 100 GiB is failed over without loss, 1 GiB of it is changed at the
recovery site, and it is brought home. Counted is what its home fetched, and the time of each step
(`bench/README.md`)."""
import argparse
import json
import os
import pathlib
import random
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/e2e"), str(ROOT / "tests/demo")]
from farshore import in_document  # noqa: E402
from materialise import text_like  # noqa: E402
from run import GIB, MIB, Site  # noqa: E402
from support import BOOT_SECTOR, NbdClient  # noqa: E402


def make_disk(path, gib, written_mib, rng):
    """Sparse; what is written lies all over it, and it boots."""
    with open(path, "wb") as image:
        image.truncate(gib * GIB)
        for _ in range(written_mib // 16):
            image.seek(rng.randrange(1, gib * GIB // (16 * MIB)) * 16 * MIB)
            image.write(text_like(16 * MIB, rng))
        image.seek(0)
        image.write(BOOT_SECTOR.read_bytes())


def change(socket, gib, mib, rng):
    """Whole pieces of 1 MiB, all over the disk, none twice; what cannot be compressed."""
    client = NbdClient(socket, "0")
    for piece in rng.sample(range(64, gib * GIB // MIB), mib):
        client.write(piece * MIB, rng.randbytes(MIB))
    client.flush()
    client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=int, default=100)
    parser.add_argument("--written-mib", type=int, default=2048)
    parser.add_argument("--changed-mib", type=int, default=1024)
    parser.add_argument("--directory", default=os.environ.get("TMPDIR", "/tmp"))
    options = parser.parse_args()
    rng = random.Random(1)
    seconds = {}

    def timed(what, *words):
        began = time.monotonic()
        answer = site.farshore.call(*words, timeout_s=3600)
        seconds[what] = round(time.monotonic() - began, 1)
        return answer

    with tempfile.TemporaryDirectory(prefix="failback-", dir=options.directory) as work:
        work = pathlib.Path(work)
        with Site(work) as site:
            disk = work / "disk.img"
            make_disk(disk, options.gib, options.written_mib, rng)
            site.protect_disk("web", disk)
            job = timed("planned failover", "failover", "start", "web", "--planned")
            socket = in_document([job], "nbd_socket")
            site.farshore.call("failover", "commit", "web")
            timed("reprotect", "reprotect", "web")
            change(socket, options.gib, options.changed_mib, rng)
            timed("failback", "failback", "start", "web", "--power-off", "--shut-down-timeout", "1")
            home = site.farshore.call("item", "web")["way_home"]["home"]
            moved = home["written_bytes"]
            site.farshore.call("failback", "commit", "web")
    changed = options.changed_mib * MIB
    print(json.dumps({"disk_gib": options.gib, "changed_mib": options.changed_mib,
                      "moved_mib": round(moved / MIB, 1), "moved_of_changed": round(moved / changed, 3),
                      "aim": "<= 1.1", "met": moved <= 1.1 * changed, "home": home, "seconds": seconds,
                      "load": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()

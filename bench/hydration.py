#!/usr/bin/env python3
"""How fast a failed-over machine's disk becomes its own while the machine runs: `farshore failover
hydrate` beside `qemu-img convert` from an export of the same point, in one run. Who goes first changes each
round; before each side the store leaves the page cache. Medians; what counts is the median of the rounds'
ratios (`bench/README.md`)."""
import argparse
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench")]
from materialise import export, make_disk, peer, spread  # noqa: E402
from run import MIB, Site  # noqa: E402
from tools import out_of_page_cache  # noqa: E402

BOOT_SECTOR = ROOT / "tests/e2e/bootsector/bootsector.bin"


def make_bootable(path, mib, rng):
    """A machine that boots and idles."""
    make_disk(path, mib, rng)
    with open(path, "r+b") as image:
        image.write(BOOT_SECTOR.read_bytes())


def written_mb(mib):
    return sum(16 for at in range(0, mib, 16) if at // 16 % 3 != 2) * MIB / 1e6


def ours(site, into):
    """Seconds, of a machine that was failed over and committed just before; and how long the guest was held when its
    disk became a file."""
    site.farshore.call("failover", "start", "web", "--point", "here")
    site.farshore.call("failover", "commit", "web")
    os.sync()
    out_of_page_cache(site.farshore.data / "store")
    words = ["--into", site.farshore.data.parent, "--format", into] if into else []
    job = site.farshore.call("failover", "hydrate", "web", *words, timeout_s=1800)
    state = site.farshore.call("failover", "list", "web")["failovers"][0]
    if not state["hydrated"]:
        raise SystemExit(f"it is not hydrated: {state}")
    for file in state.get("files", []):
        pathlib.Path(file["path"]).unlink()
    return job["result"]["took_s"], job["result"].get("longest_hold_ms")


def theirs(site, work, number):
    image, socket = work / "image.raw", work / f"export{number}.sock"
    os.sync()
    out_of_page_cache(site.farshore.data / "store")
    process = export(site, socket)
    seconds = peer(socket, image, "raw")
    process.terminate()
    process.wait()
    image.unlink()
    return seconds


def round_of(work, options, number):
    """A site for each: a committed failover is not taken back."""
    with Site(work) as site:
        disk = work / f"disk{number}.img"
        make_bootable(disk, options.mib, random.Random(1))
        site.protect_disk("web", disk)
        site.farshore.call("point", "web", "--bookmark", "here")
        if number % 2 == 0:
            (mine, held), other = ours(site, options.into), theirs(site, work, number)
        else:
            other, (mine, held) = theirs(site, work, number), ours(site, options.into)
        disk.unlink()
        return mine, other, held


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--into", choices=["raw", "qcow2"], help="files of the host's own, of that format")
    parser.add_argument("--directory", default=os.environ.get("TMPDIR", "/tmp"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hydration-", dir=options.directory) as work:
        rounds = [round_of(pathlib.Path(work), options, number) for number in range(options.rounds)]
    mb = written_mb(options.mib)
    ratios = [other / mine for mine, other, _ in rounds]
    held = {"held_ms": spread([held for _, _, held in rounds])} if options.into else {}
    print(json.dumps({**held, "rounds": options.rounds, "written_mb": round(mb),
                      "hydrate_mb_per_s": spread([mb / mine for mine, _, _ in rounds]),
                      "qemu_img_mb_per_s": spread([mb / other for _, other, _ in rounds]),
                      "ratio": spread(ratios), "aim": ">= 0.7",
                      "met": statistics.median(ratios) >= 0.7, "load": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How fast a point becomes an image: `farshore materialise` beside `qemu-img convert` from the exported
point, in one run. Who goes first changes each round; before each side the store leaves the page cache
(`--warm`: stays there), and what the side before wrote is on the disk. Medians; what counts is the
median of the rounds' ratios (`bench/README.md`)."""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/demo"), str(ROOT / "bench")]
from run import BIN, MIB, Site  # noqa: E402
from tools import out_of_page_cache  # noqa: E402


def text_like(size, rng):
    """Compresses about as well as files of a machine do."""
    words = [rng.randbytes(rng.randrange(3, 12)) for _ in range(4000)]
    out = bytearray()
    while len(out) < size:
        out += b"".join(rng.choices(words, k=2000))
    return bytes(out[:size])


def make_disk(path, mib, rng):
    """Two thirds written, in runs of 16 MiB."""
    with open(path, "wb") as image:
        image.truncate(mib * MIB)
        for at in range(0, mib, 16):
            if at // 16 % 3 != 2:
                image.seek(at * MIB)
                image.write(text_like(16 * MIB, rng))


def export(site, socket):
    process = subprocess.Popen([str(BIN / "farshore"), "export", "web", "--point", "here", "--disk", "0", "--socket",
                                str(socket), "--data", str(site.farshore.data), "--json"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, text=True)
    json.loads(process.stdout.readline())
    return process


def ours(site, image, kind):
    """Seconds of the copy with its fsync, and of reading it back."""
    job = site.farshore.call("materialise", "web", "--point", "here", "--to", f"{kind}:{image}", timeout_s=1800)
    return job["result"]["copy_s"], job["result"]["verify_s"], job["result"]["written_bytes"] / 1e6


def peer(socket, image, kind):
    """Seconds of qemu-img convert and an fsync."""
    began = time.monotonic()
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, f"nbd+unix:///?socket={socket}", image], check=True)
    with open(image, "rb") as written:
        os.fsync(written.fileno())
    return time.monotonic() - began


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measure(site, work, kind, options):
    mine, verified, theirs, ratios = [], [], [], []
    store = site.farshore.data / "store"
    for number in range(options.rounds):
        seconds = {}
        for side in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
            image = work / f"image.{kind}"
            os.sync()
            if not options.warm:
                out_of_page_cache(store)
            if side == "ours":
                seconds[side], reading, mb = ours(site, image, kind)
            else:
                # A new one each time: its cache of decoded chunks is empty, as ours is.
                socket = work / f"export{kind}{number}.sock"
                process = export(site, socket)
                seconds[side] = peer(socket, image, kind)
                process.terminate()
                process.wait()
            image.unlink()
        mine.append(mb / seconds["ours"])
        verified.append(mb / (seconds["ours"] + reading))
        theirs.append(mb / seconds["peer"])
        ratios.append(seconds["peer"] / seconds["ours"])
    return {"kind": kind, "rounds": options.rounds, "store": "warm" if options.warm else "cold",
            "materialise_mb_per_s": spread(mine), "read_back_as_well_mb_per_s": spread(verified),
            "qemu_img_mb_per_s": spread(theirs), "ratio": spread(ratios), "aim": ">= 0.8",
            "met": statistics.median(ratios) >= 0.8, "load": os.getloadavg()[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--kinds", default="raw,qcow2")
    parser.add_argument("--warm", action="store_true", help="leave the store in the page cache")
    parser.add_argument("--directory", default=os.environ.get("TMPDIR", "/tmp"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="materialise-", dir=options.directory) as work:
        work = pathlib.Path(work)
        with Site(work) as site:
            disk = work / "disk.img"
            make_disk(disk, options.mib, random.Random(1))
            site.protect_disk("web", disk)
            site.farshore.call("point", "web", "--bookmark", "here")
            for kind in options.kinds.split(","):
                print(json.dumps(measure(site, work, kind, options), indent=1), flush=True)


if __name__ == "__main__":
    main()

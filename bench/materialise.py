#!/usr/bin/env python3
"""How fast a point becomes an image: `farshore materialise` beside `qemu-img convert` from the exported
point, in turn, in one run. Medians; the ratio counts (`bench/README.md`)."""
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", default=os.environ.get("TMPDIR", "/tmp"))
    options = parser.parse_args()
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="materialise-", dir=options.directory) as work:
        work = pathlib.Path(work)
        with Site(work) as site:
            disk = work / "disk.img"
            make_disk(disk, options.mib, rng)
            site.protect_disk("web", disk)
            site.farshore.call("point", "web", "--bookmark", "here")
            for kind in ("raw", "qcow2"):
                ours, verified, peers = [], [], []
                for number in range(options.rounds):
                    image = work / f"image.{kind}"
                    job = site.farshore.call("materialise", "web", "--point", "here", "--to", f"{kind}:{image}")
                    mb = job["result"]["written_bytes"] / 1e6
                    ours.append(mb / job["result"]["copy_s"])
                    verified.append(mb / (job["result"]["copy_s"] + job["result"]["verify_s"]))
                    image.unlink()
                    socket = work / f"export{kind}{number}.sock"
                    process = export(site, socket)
                    began = time.monotonic()
                    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, f"nbd+unix:///?socket={socket}",
                                    image], check=True)
                    with open(image, "rb") as written:
                        os.fsync(written.fileno())
                    peers.append(mb / (time.monotonic() - began))
                    process.terminate()
                    process.wait()
                    image.unlink()
                ratio = statistics.median(ours) / statistics.median(peers)
                print(f"{kind}: materialise {statistics.median(ours):.0f} MB/s "
                      f"({min(ours):.0f} to {max(ours):.0f}), read back as well {statistics.median(verified):.0f}; "
                      f"qemu-img convert {statistics.median(peers):.0f} ({min(peers):.0f} to {max(peers):.0f}); "
                      f"ratio {ratio:.2f} (aim 0.8)", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What a store is asked for, for each GB that a machine writes: real programs, a disk in the path, the
store in Azurite (or with --directory in a directory), the vault's own counters before and after. And how
fast that went, beside plain puts of 8 MiB to the same service.

    bench/store_cost.py [--gb N] [--directory] [--idle-s N]      one JSON document

docs/operations/cost.md has a table made of it."""
import argparse
import concurrent.futures
import json
import pathlib
import random
import re
import shutil
import ssl
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/services"), str(ROOT / "tests/e2e"), str(ROOT / "tests/demo")]

from azurite import Azurite  # noqa: E402
from farshore import Farshore  # noqa: E402
from support import BINARY, NbdClient  # noqa: E402

DISK_BYTES = 256 << 20


def counters(farshore):
    server = json.loads((farshore.data / "server.json").read_text())
    token = (farshore.data / server["token_file"]).read_text().strip()
    context = ssl.create_default_context(cafile=str(farshore.data / server["ca"]))
    request = urllib.request.Request(server["address"] + "/metrics",
                                     headers={"Authorization": f"Bearer {token}"})
    text = urllib.request.urlopen(request, context=context, timeout=30).read().decode()
    return {"_".join(filter(None, found.groups()[:2])): int(found[3]) for found in re.finditer(
        r'^farshore_store_(\w+?)_total(?:\{\w+="(\w+)"\})? (\d+)$', text, re.MULTILINE)}


def difference(after, before):
    return {name: after[name] - before.get(name, 0) for name in after}


def plain_puts(azurite, threads=4, each=8, size=8 << 20):
    """MB/s of puts of 8 MiB side by side, by a client of Python's own."""
    data = random.Random(2).randbytes(size)

    def put(thread):
        for number in range(each):
            azurite.expect(201, "PUT", f"cost/plain-{thread}-{number}",
                           headers={"x-ms-blob-type": "BlockBlob"}, body=data)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(put, range(threads)))
    return threads * each * size / 1e6 / (time.monotonic() - began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--directory", action="store_true")
    parser.add_argument("--idle-s", type=int, default=60)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="farshore-cost-"))
    farshore = Farshore(BINARY, work / "data", work / "logs")
    azurite = None
    try:
        arguments = []
        if not options.directory:
            azurite = Azurite(work / "azurite").start()
            azurite.make_container("cost")
            settings = work / "store.json"
            settings.write_text(json.dumps(azurite.settings()))
            settings.chmod(0o600)
            arguments = ["--store", f"azure://{azurite.account}/cost", "--store-settings", settings]
        farshore.start_up(*arguments)
        rng = random.Random(1)
        disk = work / "disk.img"
        with open(disk, "wb") as out:
            for _ in range(DISK_BYTES >> 20):
                out.write(rng.randbytes(1 << 20))
        start = counters(farshore)
        farshore.call("protect", "web", "--disk", disk)
        farshore.wait_for("it is protected",
                          lambda: farshore.call("item", "web")["state"] == "protected", 300)
        farshore.call("point", "web", "--bookmark", "copied")
        copied = counters(farshore)
        item = farshore.call("item", "web")
        uri = item["disks"][0].get("nbd_uri") or ""
        client = NbdClient(uri.split("socket=", 1)[1], uri.split("///", 1)[1].split("?")[0])
        began = time.monotonic()
        written = 0
        while written < options.gb * 1e9:
            # Half of it random, half of it text-like: what compresses by about two.
            data = rng.randbytes(32 << 10) + b"harbour " * (4 << 10)
            client.write(rng.randrange(DISK_BYTES // len(data)) * len(data), data)
            written += len(data)
        farshore.call("point", "web", "--bookmark", "written", timeout_s=600)
        wrote_s = time.monotonic() - began
        after = counters(farshore)
        client.close()
        time.sleep(options.idle_s)
        idle = counters(farshore)
        plain = round(plain_puts(azurite), 1) if azurite else None
        print(json.dumps({"store": "directory" if options.directory else "azurite",
                          "disk_bytes": DISK_BYTES, "first_copy": difference(copied, start),
                          "written_bytes": written, "seconds": round(wrote_s, 1),
                          "load": difference(after, copied),
                          "stored_mb_s": round(difference(after, copied)["bytes_out"] / 1e6 / wrote_s, 1),
                          "plain_puts_mb_s": plain, "idle_s": options.idle_s,
                          "idle": difference(idle, after)}, indent=1))
    finally:
        farshore.end()
        if azurite is not None:
            azurite.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()

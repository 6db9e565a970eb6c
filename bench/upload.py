#!/usr/bin/env python3
"""How fast one item's log goes into radosgw and into Azurite, beside plain puts of 8 MiB side by side, in
turn: upload_bench against each. Prints one JSON document, or a line a store.

    bench/upload.py [--store s3|azure] [--rounds N] [--mb N] [--data noise|text] [--puts N] [--json]

docs/design/core.md §3 has the figures."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/services")]

from azurite import Azurite  # noqa: E402
from radosgw import Radosgw  # noqa: E402
from s3 import S3  # noqa: E402

BUILD = pathlib.Path(os.environ.get("FARSHORE_BENCH_BUILD") or ROOT / "build/release")


def measure(location, settings, work, options):
    file = work / "store.json"
    file.write_text(json.dumps(settings))
    file.chmod(0o600)
    done = subprocess.run([BUILD / "bin/upload_bench", location, file, work / "appliance",
                           str(options.rounds), str(options.mb), options.data, str(options.puts)],
                          capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


def into_s3(work, options):
    with Radosgw(work / "radosgw") as service:
        S3(service.endpoint, service.key, service.secret, str(service.ca)).make_bucket("upload")
        return measure("s3://upload", {"endpoint": service.endpoint, "ca_file": str(service.ca),
                                       "access_key_id": service.key,
                                       "secret_access_key": service.secret}, work, options)


def into_azure(work, options):
    with Azurite(work / "azurite") as service:
        service.make_container("upload")
        return measure(f"azure://{service.account}/upload", service.settings(), work, options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", choices=["s3", "azure"], action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mb", type=int, default=512)
    parser.add_argument("--data", choices=["noise", "text"], default="noise")
    parser.add_argument("--puts", type=int, default=12, help="of the item at once: 1 is one after the other")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {}
    for store in options.store or ["s3", "azure"]:
        with tempfile.TemporaryDirectory(prefix="farshore-upload-", dir=BUILD) as directory:
            into = into_s3 if store == "s3" else into_azure
            found[store] = into(pathlib.Path(directory), options)
    if options.json:
        print(json.dumps(found))
        return
    for store, result in found.items():
        rounds = result["rounds"]

        def row(name, rounds=rounds):
            values = sorted(one[name] for one in rounds)
            return f"{statistics.median(values):.4g} ({values[0]:.4g} … {values[-1]:.4g})"
        print(f"{store}, {result['data']}: one item {row('item_object_mb_per_s')} MB/s of objects, "
              f"{row('item_mb_per_s')} MB/s written; plain puts x4 {row('plain4_mb_per_s')}, "
              f"x8 {row('plain8_mb_per_s')}; ratio {row('ratio')}; ns of processor a byte "
              f"{row('item_cpu_ns_per_byte')} beside {row('plain_cpu_ns_per_byte')}")


if __name__ == "__main__":
    main()

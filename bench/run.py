#!/usr/bin/env python3
"""./run bench: one table of the measures M3 to M8 and M10, each beside a peer of the same run.

Every figure is the median of several rounds, with its smallest and largest; the machine is noisy, so
ratios count. Options: --json FILE, --rounds N, --only M3,M5, --quick (short rounds, to try it out)."""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/demo")]
from farshore import Farshore  # noqa: E402

BIN = pathlib.Path(os.environ.get("FARSHORE_BENCH_BUILD") or ROOT / "build/release") / "bin"
GIB = 1 << 30
MIB = 1 << 20


class Server:
    """A peer's process that is ended with the block."""

    def __init__(self, *command, socket):
        self._command, self._socket = command, pathlib.Path(socket)

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        while not self._socket.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._command[0]} ended with {self._process.returncode}")
            time.sleep(0.02)
        return f"nbd+unix:///?socket={self._socket}"

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()


def fio(uri, kind, block, depth, seconds, size):
    command = ["fio", "--name=b", "--ioengine=nbd", f"--uri={uri}", f"--rw={kind}", f"--bs={block}",
               f"--iodepth={depth}", f"--size={size}", "--time_based", f"--runtime={seconds}",
               "--output-format=json", "--refill_buffers", "--buffer_compress_percentage=60"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tempfile.gettempdir())
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    return job["write" if "write" in kind else "read"]


class Bench:
    def __init__(self, options):
        self.options = options
        self.rows = []
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="farshore-bench-", dir=options.directory))
        self.seconds = 2 if options.quick else 8

    def row(self, measure, what, values, unit, peer, peers, aim, met=None):
        middle = statistics.median(values)
        entry = {"id": measure, "what": what, "unit": unit, "median": middle, "min": min(values),
                 "max": max(values), "peer": peer, "aim": aim}
        if peers:
            ratios = sorted(v / p for v, p in zip(values, peers) if p)
            entry.update(peer_median=statistics.median(peers), ratio=statistics.median(ratios),
                         ratio_min=ratios[0], ratio_max=ratios[-1])
        entry["met"] = met(entry) if met else None
        self.rows.append(entry)
        print(self.line(entry), flush=True)

    @staticmethod
    def line(entry):
        ratio = (f"{entry['ratio']:.2f} ({entry['ratio_min']:.2f}-{entry['ratio_max']:.2f})"
                 if "ratio" in entry else "-")
        beside = f"{entry['peer_median']:.4g}" if "peer_median" in entry else "-"
        met = {True: "met", False: "not met", None: ""}[entry["met"]]
        return (f"{entry['id']:<4} {entry['what']:<44} {entry['median']:>10.4g} "
                f"({entry['min']:.4g}-{entry['max']:.4g}) {entry['unit']:<7} "
                f"{entry['peer']:<26} {beside:>9}  {ratio:<18} {entry['aim']:<22} {met}")

    # --- M3 ---------------------------------------------------------------------------------------

    def m3(self):
        size = GIB
        for kind, block, depth, what in (("randwrite", "4k", 32, "4 KiB random write, depth 32"),
                                         ("write", "1m", 4, "1 MiB write, depth 4")):
            ours, kit, qemu = [], [], []
            for number in range(self.options.rounds):
                peer = self.work / "peer.img"
                with open(peer, "wb") as image:
                    image.truncate(size)
                with Server("nbdkit", "-f", "-U", f"{self.work}/kit{number}{block}", "file", str(peer),
                            socket=self.work / f"kit{number}{block}") as uri:
                    kit.append(fio(uri, kind, block, depth, self.seconds, size)["bw_bytes"] / 1e6)
                with Server("qemu-nbd", "-f", "raw", "--cache=writeback", "-t", "-e", "8", "-k",
                            f"{self.work}/qn{number}{block}", str(peer),
                            socket=self.work / f"qn{number}{block}") as uri:
                    qemu.append(fio(uri, kind, block, depth, self.seconds, size)["bw_bytes"] / 1e6)
                with self.site() as (farshore, _):
                    disk = self.work / "own.img"
                    with open(disk, "wb") as image:
                        image.truncate(size)
                    uri = self.protect(farshore, "m3", disk)
                    ours.append(fio(uri, kind, block, depth, self.seconds, size)["bw_bytes"] / 1e6)
            self.row("M3", f"tap, {what}", ours, "MB/s", "nbdkit file", kit, ">= 0.8",
                     lambda e: e["ratio"] >= 0.8)
            self.row("M3", f"tap, {what}", ours, "MB/s", "qemu-nbd writeback", qemu, ">= 1.0",
                     lambda e: e["ratio"] >= 1.0)

    # --- M4, M5, M10 ------------------------------------------------------------------------------

    def pipeline(self, *arguments):
        directory = self.work / "pipeline"
        shutil.rmtree(directory, ignore_errors=True)
        done = subprocess.run([BIN / "pipeline_bench", directory, *map(str, arguments)],
                              capture_output=True, text=True, check=True)
        shutil.rmtree(directory, ignore_errors=True)
        return json.loads(done.stdout)

    def m4(self):
        rounds = [self.pipeline(self.seconds * 1.5, 65536) for _ in range(self.options.rounds)]
        speeds = [r["mb_per_s"] for r in rounds]
        self.row("M4", "ring to store, 64 KiB records", speeds, "MB/s", "zstd -1 alone, 2 threads",
                 [r["zstd_alone_mb_per_s"] for r in rounds], ">= 250 MB/s, >= 0.8",
                 lambda e: e["median"] >= 250 and e["ratio"] >= 0.8)
        self.row("M4", "memory of the whole pipeline at that", [r["max_rss_mib"] for r in rounds],
                 "MiB", "", [], "ring counted 4 times")
        self.row("M10", "bytes stored / written, compressed",
                 [r["stored_bytes"] / r["written_bytes"] for r in rounds], "", "", [], "")

    def m5(self):
        for rate, aim in ((54, 1000), (200, 5000)):
            rounds = [self.pipeline(self.seconds * 2.5, 65536, rate) for _ in range(self.options.rounds)]
            self.row("M5", f"RPO p50 at {rate} MB/s", [r["lag_p50_ms"] for r in rounds], "ms", "", [], "")
            self.row("M5", f"RPO p99 at {rate} MB/s", [r["lag_p99_ms"] for r in rounds], "ms", "", [],
                     f"< {aim} ms", lambda e, limit=aim: e["median"] < limit)

    # --- with a whole site ------------------------------------------------------------------------

    def site(self):
        bench = self

        class Site:
            def __enter__(self):
                self.data = pathlib.Path(tempfile.mkdtemp(prefix="site-", dir=bench.work))
                self.farshore = Farshore(str(BIN / "farshore"), self.data / "data", self.data)
                self.farshore.start_up()
                return self.farshore, self.data

            def __exit__(self, *_):
                self.farshore.end()
                self.farshore.kill_descendants()
                shutil.rmtree(self.data, ignore_errors=True)

        return Site()

    def protect(self, farshore, name, disk):
        farshore.call("protect", name, "--disk", str(disk))
        farshore.wait_for("protected", lambda: farshore.call("item", name)["state"] == "protected", 900)
        return farshore.call("item", name)["disks"][0]["nbd_uri"]

    def m6(self):
        boot = (ROOT / "tests/e2e/bootsector/bootsector.bin").read_bytes()
        first = None
        for size, words in ((GIB, "1 GiB"), (100 * GIB, "100 GiB"), (1024 * GIB, "1 TiB")):
            values = []
            with self.site() as (farshore, _):
                disk = self.work / "boot.img"
                with open(disk, "wb") as image:
                    image.write(boot)
                    image.truncate(size)
                self.protect(farshore, "m6", disk)
                for _ in range(max(3, self.options.rounds)):
                    job = farshore.call("failover", "test", "m6", "--point", "latest-processed")
                    timings = find(job, "timings")
                    values.append(float(timings["first_read_ms"]))
                    farshore.call("failover", "cleanup", "m6")
                disk.unlink()
            self.row("M6", f"request to the guest's first read, {words}", values, "ms",
                     "the 1 GiB disk" if first else "", [first] * len(values) if first else [],
                     "< 1000 ms, flat", lambda e: e["median"] < 1000)
            first = first or statistics.median(values)

    def m7(self):
        size = 512 * MIB
        with self.site() as (farshore, data):
            disk = self.work / "m7.img"
            with open(disk, "wb") as image:
                image.truncate(size)
            uri = self.protect(farshore, "m7", disk)
            fio(uri, "write", "1m", 4, self.seconds, size)
            farshore.call("point", "m7", "--bookmark", "m7")
            socket = self.work / "m7.sock"
            export = subprocess.Popen(
                [str(BIN / "farshore"), "export", "m7", "--point", "m7", "--disk", "0", "--socket",
                 str(socket), "--data", str(data / "data")], stdout=subprocess.DEVNULL)
            try:
                farshore.wait_for("the export", socket.exists, 60)
                for kind, block, depth in (("randread", "4k", 16), ("read", "1m", 4)):
                    ours, peers = [], []
                    for number in range(self.options.rounds):
                        with Server("nbdkit", "-f", "-U", f"{self.work}/k7{number}{block}", "file",
                                    str(disk), socket=self.work / f"k7{number}{block}") as peer:
                            peers.append(fio(peer, kind, block, depth, self.seconds, size)["bw_bytes"] / 1e6)
                        ours.append(fio(f"nbd+unix:///0?socket={socket}", kind, block, depth,
                                        self.seconds, size)["bw_bytes"] / 1e6)
                    self.row("M7", f"replica {kind} {block}", ours, "MB/s", "nbdkit file", peers, ">= 0.5",
                             lambda e: e["ratio"] >= 0.5)
            finally:
                export.terminate()
                export.wait()

    def m8(self):
        done = subprocess.run([BIN / "replica_bench", "--benchmark_format=json",
                               "--benchmark_filter=Open|ExtentMap|LoadAll"],
                              capture_output=True, text=True, check=True)
        for result in json.loads(done.stdout)["benchmarks"]:
            value, unit = result["real_time"], result["time_unit"]
            opening = result["name"].startswith("BM_Open")
            self.row("M8", result["name"], [value], unit, "", [], "< 1000 ms" if opening else "",
                     (lambda e: e["median"] < 1000) if opening else None)


def find(document, key):
    if isinstance(document, dict):
        if key in document:
            value = document[key]
            return json.loads(value) if isinstance(value, str) else value
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            found = find(part, key)
            if found is not None:
                return found
    return None


def main():
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="M3,M4,M5,M6,M7,M8")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--directory", default=os.environ.get("FARSHORE_BENCH_DIRECTORY") or str(ROOT / "build"))
    options = parser.parse_args()
    bench = Bench(options)
    failed = False
    try:
        for measure in options.only.split(","):
            try:
                getattr(bench, measure.strip().lower())()
            except Exception as error:  # one measure that breaks must not hide the others
                failed = True
                detail = getattr(error, "stderr", "") or ""
                print(f"{measure}: failed: {error} {detail[-400:]}", flush=True)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    print("\nMedian (min-max) of each; peers ran in turn with it in the same run.")
    for entry in bench.rows:
        print(Bench.line(entry))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(bench.rows, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

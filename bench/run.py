#!/usr/bin/env python3
"""./run bench: one table of the measures M1 to M11 (M2b, too), each beside a peer of the run.

Every figure is the median of several rounds with its smallest and largest, and so is every ratio: the
machine is noisy, so ratios count. bench/README.md says what each row is."""
import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/demo"), str(ROOT / "tests/services"), str(ROOT / "bench")]
from farshore import Farshore  # noqa: E402
from postgres import Postgres  # noqa: E402
from tools import (GIB, MIB, LoopDisk, Qmp, Server, cpu_seconds, fio, find,  # noqa: E402
                   memory_mib, out_of_page_cache, rsync, wire_bytes, written_image)

BIN = pathlib.Path(os.environ.get("FARSHORE_BENCH_BUILD") or ROOT / "build/release") / "bin"
MEASURES = ("m1", "m2b", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11", "memory")
# What the process server holds for one item at most (src/replicate/limits.h): window 32, queue 48,
# three built segments and one being built of 16 each; the program itself beside it.
PROCESS_SERVER_BOUND_MIB = 32 + 48 + 4 * 16
PROGRAM_MIB = 64


class Site:
    """farshore in one process or in three, in a directory of its own, ended with the block."""

    def __init__(self, parent, split=False, marks=True):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="site-", dir=parent))
        self.farshore = Farshore(BIN / "farshore", self.directory / "data", self.directory,
                                 {} if marks else {"PATH": self._without_dirty_map()})
        self._split = split

    def __enter__(self):
        try:
            if self._split:
                self.farshore.start_split(self.directory / "source")
            else:
                self.farshore.start_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.farshore.end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _without_dirty_map(self):
        """Where a stand-in for nbdkit is, which asks for a tap that marks nothing: the agent has no
        such setting."""
        stand_in = self.directory / "programs/nbdkit"
        stand_in.parent.mkdir()
        stand_in.write_text('#!/bin/sh\nfor word; do case $word in *farshore-plugin.so)\n'
                            f'exec {shutil.which("nbdkit")} "$@" bench-without-dirty-map=true;;\n'
                            f'esac; done\nexec {shutil.which("nbdkit")} "$@"\n')
        stand_in.chmod(0o755)
        return f"{stand_in.parent}:{os.environ['PATH']}"

    def protect(self, name, *how, state="protected"):
        self.farshore.call("protect", name, *how)
        self.farshore.wait_for(state, lambda: self.farshore.call("item", name)["state"] == state, 900)

    def protect_disk(self, name, disk):
        self.protect(name, "--disk", disk)
        return self.farshore.call("item", name)["disks"][0]["nbd_uri"]

    def pid_of(self, word):
        """The one process that this site started whose command line has `word`."""
        return next(pid for pid, command in self.farshore.descendants() if word in command)


class Machine:
    """A QEMU without a guest whose disk is written through an NBD export of its own: the way of a
    guest's writes below the virtual controller, mirror included when it is there."""

    def __init__(self, directory, disk, direct):
        self.directory = pathlib.Path(directory)
        self.socket = self.directory / "qmp.sock"
        self._process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none",
             "-S", "-name", "bench",
             "-qmp", f"unix:{self.socket},server=on,wait=off",
             "-qmp", f"unix:{self.directory}/own.sock,server=on,wait=off",
             "-blockdev", json.dumps({
                 "driver": "raw", "node-name": "disk", "cache": {"direct": direct},
                 "file": {"driver": "file", "filename": str(disk), "cache": {"direct": direct},
                          "aio": "io_uring" if direct else "threads"}}),
             "-device", "virtio-blk-pci,drive=disk,id=disk0,serial=bench,share-rw=on"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._qmp = None

    def __enter__(self):
        deadline = time.monotonic() + 30
        while self._qmp is None:
            try:
                self._qmp = Qmp(self.directory / "own.sock")
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise
                time.sleep(0.05)
        return self

    def __exit__(self, *_):
        if self._qmp is not None:
            self._qmp.close()
        self._process.kill()
        self._process.wait()

    def export(self, site=None):
        """An address where the disk is written: above the mirror when it has one."""
        node = "disk"
        if site is None:
            server = self.directory / "guest.sock"
            self._qmp.execute("nbd-server-start",
                              addr={"type": "unix", "data": {"path": str(server)}})
        else:
            # QEMU runs one NBD server, and the agent has started it.
            server = next((site.directory / "data/agent").rglob("source.sock"))
            node = next(entry["node-name"] for entry in self._qmp.execute("query-named-block-nodes")
                        if entry["drv"] == "mirror_top")
        self._qmp.execute("block-export-add", **{"type": "nbd", "id": "bench", "node-name": node,
                                                 "name": "bench", "writable": True})
        return f"nbd+unix:///bench?socket={server}"


class Bench:
    def __init__(self, options):
        self.options = options
        self.rows = []
        # Unix sockets are made below it: their paths are short.
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=options.directory))
        self.seconds = 2 if options.quick else 8

    def row(self, measure, what, values, unit, peer, peers, aim, met=None, **more):
        entry = {"id": measure, "what": what, "unit": unit, "median": statistics.median(values),
                 "min": min(values), "max": max(values), "rounds": len(values), "peer": peer,
                 "aim": aim, **more}
        if peers:
            ratios = sorted(v / p for v, p in zip(values, peers) if p)
            entry.update(peer_median=statistics.median(peers), ratio=statistics.median(ratios),
                         ratio_min=ratios[0], ratio_max=ratios[-1])
        entry["met"] = bool(met(entry)) if met else None
        self.rows.append(entry)
        print(self.line(entry), flush=True)

    @staticmethod
    def heading():
        return (f"{'id':<4} {'what':<46} {'figure':>9} {'unit':<7} {'spread':<17} {'peer':<22} "
                f"{'figure':>9}  {'ratio':<5} {'spread':<11} {'aim':<18} met?")

    @staticmethod
    def line(entry):
        number = "{:.4g}".format if abs(entry["median"]) < 1000 else "{:.0f}".format
        ratio = f"{entry['ratio']:.2f}" if "ratio" in entry else ""
        ratios = f"{entry['ratio_min']:.2f}-{entry['ratio_max']:.2f}" if "ratio" in entry else ""
        beside = number(entry["peer_median"]) if "peer_median" in entry else ""
        met = {True: "met", False: "NOT MET", None: ""}[entry["met"]]
        spread = f"{number(entry['min'])}-{number(entry['max'])}"
        return (f"{entry['id']:<4} {entry['what']:<46} {number(entry['median']):>9} "
                f"{entry['unit']:<7} {spread:<17} {entry['peer']:<22} {beside:>9}  {ratio:<5} "
                f"{ratios:<11} {entry['aim']:<18} {met}").rstrip()

    def file_server(self, disk):
        """The peer of most rows: nbdkit with the plain file."""
        socket = self.work / "kit.sock"
        return Server("nbdkit", "-f", "-U", socket, "file", disk, socket=socket)

    def image(self, name, size):
        path = self.work / name
        with open(path, "wb") as image:
            image.truncate(size)
        return path

    # --- M1, M2: what a machine in QEMU pays ------------------------------------------------------

    def m1(self):
        size = 256 * MIB if self.options.quick else GIB
        for direct, words in ((True, "cache=none"), (False, "cache=writeback")):
            plain, ours = {32: [], 1: []}, {32: [], 1: []}
            disk = self.work / "m1.img"
            written_image(disk, size)
            for number in range(self.options.rounds):
                for protected in ((False, True) if number % 2 == 0 else (True, False)):
                    directory = pathlib.Path(tempfile.mkdtemp(prefix="qemu-", dir=self.work))
                    with Machine(directory, disk, direct) as machine:
                        if not protected:
                            self._guest_writes(machine.export(), size, plain)
                            continue
                        with Site(self.work) as site:
                            site.protect("m1", "--qmp", machine.socket)
                            self._guest_writes(machine.export(site), size, ours)
                            state = site.farshore.call("item", "m1")["state"]
                            if state != "protected":
                                raise RuntimeError(f"the machine is {state} after the load")
            disk.unlink()
            self.row("M1", f"QEMU 4 KiB random write, depth 32, {words}",
                     [r.iops for r in ours[32]], "IOPS", "unprotected",
                     [r.iops for r in plain[32]], ">= 0.85", lambda e: e["ratio"] >= 0.85)
            for name, limit in (("p50_us", 1.3), ("p99_us", 1.5)):
                self.row("M2", f"the same at depth 1, {name[:3]}, {words}",
                         [getattr(r, name) for r in ours[1]], "us", "unprotected",
                         [getattr(r, name) for r in plain[1]], f"<= {limit}",
                         lambda e, most=limit: e["ratio"] <= most)

    def _guest_writes(self, uri, size, out):
        for depth, results in out.items():
            results.append(fio(uri, "randwrite", "4k", depth, size, seconds=self.seconds))

    # --- M2b: what a machine pays that is captured inside ----------------------------------------

    def m2b(self):
        size = 256 * MIB if self.options.quick else GIB
        disk = self.work / "m2b.img"
        written_image(disk, size)
        for direct, words in ((False, "page cache"), (True, "direct")):
            cases = (("randwrite", "4k", 1, "4 KiB write, depth 1", 0.90),
                     ("randwrite", "4k", 32, "4 KiB write, depth 32", 0.70),
                     ("write", "1m", 4, "1 MiB write, depth 4", 0.85))
            plain, ours, taps = ([[] for _ in cases] for _ in range(3))
            parts = {"capture": [], "agent": [], "appliance": []}
            gaps = [[] for _ in cases]
            for number in range(self.options.rounds):
                for captured in ((False, True) if number % 2 == 0 else (True, False)):
                    with LoopDisk(disk, direct) as device:
                        if captured:
                            self._captured_writes(device, cases, size, ours, gaps, parts)
                        else:
                            self._writes(device, cases, size, plain)
                if not direct:
                    with Site(self.work) as site:
                        self._writes(site.protect_disk("m2b", disk), cases, size, taps)
            for (_, block, _, what, aim), mine, peers, beside, lost in zip(cases, ours, plain, taps, gaps):
                figure, unit = (("iops", "IOPS") if block == "4k" else ("mb_per_s", "MB/s"))
                values = [getattr(r, figure) for r in mine]
                self.row("M2b", f"captured, {what}, {words}", values, unit, "not captured",
                         [getattr(r, figure) for r in peers], f">= {aim}",
                         lambda e, least=aim: e["ratio"] >= least)
                if beside:
                    self.row("M2b", f"  the same, {words}", values, unit, "our tap in the path",
                             [getattr(r, figure) for r in beside], "")
                self.row("M2b", "  gaps while that ran", lost, "", "", [], "0",
                         lambda e: e["max"] == 0)
            for part, values in parts.items():
                self.row("M2b", f"  processor time at depth 32: {part}", values, "us/req", "", [], "")
        with LoopDisk(disk, False) as device, self._captured(device) as site:
            time.sleep(3)
            idle = []
            for _ in range(self.options.rounds):
                before = self._used(site)
                time.sleep(10)
                after = self._used(site)
                idle.append(10 * sum(after[part] - before[part] for part in ("capture", "agent")))
        self.row("M2b", "idle: capture process and agent", idle, "% core", "", [], "< 2 %",
                 lambda e: e["median"] < 2)
        disk.unlink()

    def _writes(self, where, cases, size, out):
        for (kind, block, depth, _, _), results in zip(cases, out):
            os.sync()
            results.append(fio(where, kind, block, depth, size, seconds=self.seconds))

    def _captured_writes(self, device, cases, size, out, gaps, parts):
        """Each case begins with an empty log."""
        with self._captured(device) as site:
            for (kind, block, depth, _, _), results, lost in zip(cases, out, gaps):
                os.sync()
                gaps_before = self._gaps(site)
                before = self._used(site)
                results.append(fio(device, kind, block, depth, size, seconds=self.seconds))
                label = f"{block}-{depth}"
                site.farshore.wait_for("the log is drained", lambda name=label: site.farshore.call(
                    "point", "m2b", "--bookmark", name)["state"] == "stored", 300)
                after = self._used(site)
                if depth == 32:
                    for part, values in parts.items():
                        values.append((after[part] - before[part]) * 1e6 / results[-1].requests)
                lost.append(self._gaps(site) - gaps_before)

    @staticmethod
    def _gaps(site):
        return len(site.farshore.call("points", "m2b", "--limit", 1000)["gaps"])

    @contextlib.contextmanager
    def _captured(self, device):
        with Site(self.work, split=True) as site:
            try:
                site.protect("m2b", "--device", device)
                yield site
            finally:
                # The kernel keeps its program otherwise.
                site.farshore.call("unprotect", "m2b")

    @staticmethod
    def _used(site):
        """Processor time of the programs so far."""
        pids = {name: site.farshore.servers[name].pid for name in ("agent", "appliance")}
        return {part: cpu_seconds(pid) for part, pid in
                {**pids, "capture": site.pid_of("capture serve")}.items()}

    # --- M3 ---------------------------------------------------------------------------------------

    def m3(self):
        size = GIB
        for kind, block, depth, what in (("randwrite", "4k", 32, "4 KiB random write, depth 32"),
                                         ("write", "1m", 4, "1 MiB write, depth 4")):
            ours, kit, qemu = [], [], []
            for _ in range(self.options.rounds):
                peer = self.image("peer.img", size)
                with self.file_server(peer) as server:
                    kit.append(fio(server.uri, kind, block, depth, size, seconds=self.seconds))
                socket = self.work / "qemu.sock"
                with Server("qemu-nbd", "-f", "raw", "--cache=writeback", "-t", "-e", "8", "-k",
                            socket, peer, socket=socket) as server:
                    qemu.append(fio(server.uri, kind, block, depth, size, seconds=self.seconds))
                with Site(self.work) as site:
                    uri = site.protect_disk("m3", self.image("own.img", size))
                    ours.append(fio(uri, kind, block, depth, size, seconds=self.seconds))
            for peer, peers, aim in (("nbdkit file", kit, 0.8), ("qemu-nbd writeback", qemu, 1.0)):
                self.row("M3", f"tap, {what}", [r.mb_per_s for r in ours], "MB/s", peer,
                         [r.mb_per_s for r in peers], f">= {aim}",
                         lambda e, least=aim: e["ratio"] >= least)
            self._m3_marks(kind, block, depth, what, size)

    def _m3_marks(self, kind, block, depth, what, size):
        """The same load with and without the dirty map, and the fdatasyncs that it waited for."""
        results, syncs = {True: [], False: []}, []
        for number in range(self.options.rounds):
            for marks in ((False, True) if number % 2 == 0 else (True, False)):
                with Site(self.work, marks=marks) as site:
                    uri = site.protect_disk("m3", self.image("own.img", size))

                    def count(site=site):
                        return site.farshore.call("item", "m3")["dirty_map_syncs"]

                    # What the first copy had marked is let go of.
                    if marks:
                        site.farshore.wait_for("clean dirty map", lambda site=site: site.farshore.call(
                            "item", "m3")["dirty_regions"] == 0, 120)
                    before = count()
                    results[marks].append(fio(uri, kind, block, depth, size, seconds=self.seconds))
                    if marks:
                        time.sleep(2)  # the agent says it once a second
                        syncs.append(count() - before)
                    elif count() != 0:
                        raise RuntimeError("the tap marks though it was asked not to")
        self.row("M3", f"tap, {what}", [r.mb_per_s for r in results[True]], "MB/s",
                 "without dirty map", [r.mb_per_s for r in results[False]], ">= 0.95",
                 lambda e: e["ratio"] >= 0.95)
        self.row("M3", f"  fdatasyncs for {size // MIB} regions, {self.seconds} s", syncs, "", "",
                 [], "")

    # --- M4, M5 -----------------------------------------------------------------------------------

    def driver(self, program, *arguments):
        done = subprocess.run([BIN / program, *map(str, arguments)], capture_output=True, text=True,
                              check=True)
        return json.loads(done.stdout)

    def driver_in_room(self, program, *arguments):
        """One that takes a directory of its own."""
        directory = self.work / program
        shutil.rmtree(directory, ignore_errors=True)
        try:
            return self.driver(program, directory, *arguments)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def pipeline(self, *arguments):
        return self.driver_in_room("pipeline_bench", *arguments)

    def m4(self):
        rounds = [self.pipeline(self.seconds * 1.5, 65536) for _ in range(self.options.rounds)]
        peers = [r["zstd_alone_mb_per_s"] for r in rounds]
        self.row("M4", "ring to store, 64 KiB records", [r["mb_per_s"] for r in rounds], "MB/s",
                 "zstd -1, 2 threads", peers, ">= 250, >= 0.8",
                 lambda e: e["median"] >= 250 and e["ratio"] >= 0.8)
        self.row("M4", "  processor time of all of it", [r["cpu_ns_per_byte"] for r in rounds],
                 "ns/byte", "", [], "")
        self.row("M10", "bytes stored / written, text-like, compressed",
                 [r["stored_bytes"] / r["written_bytes"] for r in rounds], "", "", [], "")

    def m5(self):
        short = self.seconds * 2.5
        for rate, aim, lengths in ((200, 5000, [short] * self.options.rounds),
                                   (54, 1000, [self.options.minutes * 60])):
            rounds = [self.pipeline(seconds, 65536, rate) for seconds in lengths]
            words = f"{rate} MB/s for {lengths[0] / 60:.0f} min" if rate == 54 else f"{rate} MB/s"
            # Without the time that the last records take to be stored after the producer's end.
            reached = min(r["written_bytes"] / s / 1e6 for r, s in zip(rounds, lengths))
            self.row("M5", f"RPO p50 at {words}", [r["lag_p50_ms"] for r in rounds], "ms", "", [], "")
            self.row("M5", f"RPO p99 at {words}", [r["lag_p99_ms"] for r in rounds], "ms", "", [],
                     f"< {aim} ms at that rate",
                     lambda e, most=aim, least=0.95 * rate: e["max"] < most and reached >= least,
                     mb_per_s=reached)

    # --- M6 ---------------------------------------------------------------------------------------

    def m6(self):
        boot = (ROOT / "tests/e2e/bootsector/bootsector.bin").read_bytes()
        first = None
        for size, words in ((GIB, "1 GiB"), (100 * GIB, "100 GiB"), (1024 * GIB, "1 TiB")):
            values = []
            with Site(self.work) as site:
                disk = self.image("boot.img", size)
                with open(disk, "r+b") as image:
                    image.write(boot)
                site.protect_disk("m6", disk)
                for _ in range(max(3, self.options.rounds)):
                    job = site.farshore.call("failover", "test", "m6", "--point", "latest-processed")
                    values.append(float(find(job, "timings")["first_read_ms"]))
                    site.farshore.call("failover", "cleanup", "m6")
                disk.unlink()
            self.row("M6", f"request to the guest's first read, {words}", values, "ms",
                     "the 1 GiB disk" if first else "", [first] * len(values) if first else [],
                     "< 1000 ms, flat", lambda e: e["median"] < 1000)
            first = first or statistics.median(values)

    # --- M7 ---------------------------------------------------------------------------------------

    def m7(self):
        size = 512 * MIB if self.options.quick else GIB
        # Fits into the default cache of 64 MiB, as a machine's working set may.
        hot = 32 * MIB
        with Site(self.work) as site:
            disk = self.image("m7.img", size)
            uri = site.protect_disk("m7", disk)
            fio(uri, "write", "1m", 4, size)
            site.farshore.call("point", "m7", "--bookmark", "m7")
            store = site.directory / "data/store"
            cases = (("cold", "randread", "4k", 32, 0.5), ("cold", "read", "1m", 4, 0.5),
                     ("cached", "randread", "4k", 32, 0.9), ("cached", "read", "1m", 4, 0.9))
            for warmth, kind, block, depth, aim in cases:
                ours, peers = [], []
                for number in range(self.options.rounds):
                    def measure(server, pid):
                        if warmth == "cold":
                            return fio(server.uri, kind, block, depth, size, pid=pid, seed=number,
                                       total=size // 4 if kind == "randread" else size)
                        fio(server.uri, "read", "1m", 4, hot)
                        fio(server.uri, "read", "1m", 4, hot)
                        return fio(server.uri, kind, block, depth, hot, seconds=self.seconds, pid=pid)

                    out_of_page_cache(disk, store)
                    with self.file_server(disk) as server:
                        peers.append(measure(server, server.pid))
                    out_of_page_cache(disk, store)
                    socket = self.work / "m7.sock"
                    with Server(BIN / "farshore", "export", "m7", "--point", "m7", "--disk", "0",
                                "--socket", socket, "--data", site.directory / "data",
                                socket=socket) as server:
                        server.uri = f"nbd+unix:///0?socket={socket}"
                        ours.append(measure(server, site.pid_of(str(socket) + " -t")))
                what = "4 KiB random" if kind == "randread" else "1 MiB sequential"
                self.row("M7", f"replica read, {what}, {warmth}", [r.mb_per_s for r in ours], "MB/s",
                         "nbdkit file", [r.mb_per_s for r in peers], f">= {aim}",
                         lambda e, least=aim: e["ratio"] >= least)
                self.row("M7", "  the server's processor time", [r.cpu_us for r in ours],
                         "us/req", "nbdkit file", [r.cpu_us for r in peers], "")

    # --- M8 ---------------------------------------------------------------------------------------

    def m8(self):
        for result in self._google_bench("replica_bench", "Open|ExtentMap|LoadAll|Checkpoint"):
            opening = result["name"].startswith("BM_Open")
            self.row("M8", result["name"], [result["real_time"]], result["time_unit"], "", [],
                     "< 1000 ms" if opening else "",
                     (lambda e: e["median"] < 1000) if opening else None)
            if "bytes_per_extent" in result and "Insert" in result["name"]:
                self.row("M8", "  memory of an extent", [result["bytes_per_extent"]], "bytes", "", [],
                         "<= 40", lambda e: e["median"] <= 40)
        self._m8_opening()
        for result in self._google_bench("vault_bench", "^BM_Points"):
            # All of them in pages is for context.
            page = "AllPages" not in result["name"]
            self.row("M8", result["name"], [result["real_time"]], result["time_unit"], "", [],
                     "< 50 ms" if page else "", (lambda e: e["median"] < 50) if page else None)

    def _m8_opening(self):
        """A process of its own that opens a point of ten million extents, out of the page cache."""
        millions = 1 if self.options.quick else 10
        for kind, words in (("checkpoint", "checkpoints"), ("log", "log alone")):
            store = self.work / f"m8-{kind}"
            subprocess.run([BIN / "opening_bench", "make", store, str(millions * 1_000_000), "64", kind],
                           capture_output=True, check=True)
            results = []
            for _ in range(self.options.rounds):
                out_of_page_cache(store)
                results.append(self.driver("opening_bench", "open", store))
            whole = self.driver("opening_bench", "open", store, "all")
            shutil.rmtree(store)
            name = f"{millions} M extents, {words}"
            self.row("M8", f"{name}: open and read", [r["open_and_read_ms"] for r in results], "ms",
                     "", [], *(("< 1000 ms", lambda e: e["median"] < 1000) if kind == "checkpoint"
                               else ("", None)))
            self.row("M8", "  processor time", [r["cpu_ms"] for r in results], "ms", "", [], "")
            for label, figures in (("  memory", [r["peak_mib"] for r in results]),
                                   ("  memory, all of its map read", [whole["peak_mib"]])):
                self.row("M8", label, figures, "MiB", "", [], "<= 512", lambda e: e["max"] <= 512)

    @staticmethod
    def _google_bench(program, wanted, **environment):
        done = subprocess.run([BIN / program, "--benchmark_format=json",
                               f"--benchmark_filter={wanted}"],
                              env={**os.environ, **environment},
                              capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["benchmarks"]

    # --- M9 ---------------------------------------------------------------------------------------

    def m9(self):
        size = 512 * MIB if self.options.quick else 4 * GIB
        block, place = 64 << 10, 4096
        blocks = size // block
        cases = (("nothing changed", 0, block), ("0.1 % of blocks changed", blocks // 1000, block),
                 ("1 % of blocks changed", blocks // 100, block),
                 ("10 % of blocks changed", blocks // 10, block),
                 ("4 KiB in 1 % of blocks", blocks // 100, place))
        ours, peers, copies = ([[] for _ in cases] for _ in range(3))
        source, beside = self.work / "m9.img", self.work / "m9-peer.img"
        self._filled(source, size)
        shutil.copyfile(source, beside)
        with Site(self.work, split=True) as site:
            site.protect_disk("m9", source)
            for number in range(self.options.rounds):
                for (_, count, length), mine, theirs, whole in zip(cases, ours, peers, copies):
                    self._change(source, random.Random(number).sample(range(blocks), count), length)
                    mine.append(self._resync(site, "m9"))
                    theirs.append(rsync(source, beside))
                    if count == blocks // 100 and length == block:
                        with self.file_server(source) as server:
                            began = time.monotonic()
                            subprocess.run(["nbdcopy", server.uri, beside], check=True)
                            whole.append(size / 1e6 / (time.monotonic() - began))
        beside.unlink()
        for (words, count, length), mine, theirs, whole in zip(cases, ours, peers, copies):
            speed = [size / 1e6 / r["seconds"] for r in mine]
            self.row("M9", f"resync, {words}", speed, "MB/s", "rsync --inplace",
                     [size / 1e6 / r["seconds"] for r in theirs], "")
            if whole:
                self.row("M9", "  the same", speed, "MB/s", "nbdcopy of all of it", whole, "")
            for part, aim in (("tap", ">= 1"), ("vault", ">= 1"), ("agent and appliance", "")):
                self.row("M9", f"  compared by a core: {part}",
                         [r["compared"] / 1e9 / max(0.01, r["cpu_s"][part]) for r in mine], "GB/s",
                         "rsync, both sides" if part == "tap" else "",
                         [size / 1e9 / r["cpu_s"] for r in theirs] if part == "tap" else [], aim,
                         (lambda e: e["median"] >= 1) if aim else None)
            self.row("M9", "  bytes on the wire", [r["wire"] / 1e6 for r in mine], "MB", "rsync",
                     [r["wire"] / 1e6 for r in theirs], "")
            if count != 0:
                self.row("M9", "  bytes sent / changed 64 KiB blocks",
                         [r["sent"] / (count * block) for r in mine], "", "rsync's content",
                         [r["sent"] / (count * block) for r in theirs], "<= 1.1",
                         lambda e: e["max"] <= 1.1)
        source.unlink()
        self._m9_sparse()

    def _m9_sparse(self):
        """A disk of 1 TiB of which little is allocated, beside a full disk of that much."""
        used = 256 * MIB if self.options.quick else GIB
        small, large = self.work / "m9-full.img", self.work / "m9-sparse.img"
        self._filled(small, used)
        with open(small, "rb") as full, open(large, "wb") as sparse:
            sparse.truncate(1024 * GIB)
            for number in range(used // MIB):
                sparse.seek(number * 1024 * GIB // (used // MIB) // MIB * MIB)
                sparse.write(full.read(MIB))
        seconds = {}
        for disk in (small, large):
            with Site(self.work, split=True) as site:
                site.protect_disk("m9", disk)
                seconds[disk] = [self._resync(site, "m9")["seconds"] for _ in range(self.options.rounds)]
            disk.unlink()
        self.row("M9", f"resync of 1 TiB, {used // MIB} MiB allocated", seconds[large], "s",
                 "a full disk of that", seconds[small], "<= 2",
                 lambda e: e["ratio"] <= 2)

    def _filled(self, path, size):
        with open(path, "wb") as image:
            image.truncate(size)
        with self.file_server(path) as server:
            fio(server.uri, "write", "1m", 4, size)

    @staticmethod
    def _change(path, chosen, length):
        """Past the tap: it does not see these writes."""
        with open(path, "r+b") as image:
            for number in chosen:
                image.seek(number * (64 << 10))
                image.write(os.urandom(length))

    @staticmethod
    def _resync(site, name):
        """Each side's processor time, the bytes between them, and what the verb says."""
        pids = {kind: site.farshore.servers[kind].pid for kind in ("agent", "appliance", "vault")}
        pids["tap"] = site.pid_of("nbdkit")
        used = {kind: cpu_seconds(pid) for kind, pid in pids.items()}
        wire, began = wire_bytes(pids["agent"]), time.monotonic()
        found = site.farshore.call("resync", name, timeout_s=900)
        seconds = time.monotonic() - began
        used = {kind: cpu_seconds(pid) - used[kind] for kind, pid in pids.items()}
        if found["state"] != "done" or found["verify_failures"] != 0:
            raise RuntimeError(f"the comparison ended as {found}")
        used["agent and appliance"] = used["agent"] + used["appliance"]
        return {"seconds": seconds, "sent": found["sent_bytes"], "cpu_s": used,
                "compared": found["compared_bytes"] + found["verified_bytes"],
                "wire": wire_bytes(pids["agent"]) - wire}

    # --- M10 --------------------------------------------------------------------------------------

    def m10(self):
        windows = 3 if self.options.quick else 6
        for block, words in ((4096, "4 KiB"), (65536, "64 KiB")):
            # The same every time: one round is all of them.
            result = self.driver("amplification_bench", block, windows)
            written = result["written_bytes"]
            self.row("M10", f"bytes stored / written, {words}, log alone",
                     [result["log_bytes"] / written], "", "", [], "<= 1.05",
                     lambda e: e["median"] <= 1.05)
            self.row("M10", f"bytes stored / written, {words}, with folding",
                     [result["all_bytes"] / written], "", "", [], "<= 1.5",
                     lambda e: e["median"] <= 1.5, **result)
            self.row("M10", "  space held / (window + disk)",
                     [result["most_stored_bytes"] / (result["window_bytes"] + result["disk_bytes"])],
                     "", "", [], "")

    # --- M11 --------------------------------------------------------------------------------------

    def m11(self):
        self._m11_appliance()
        self._m11_on("SQLite")
        os.chmod(self.work, 0o755)  # the server is another user's
        with Postgres(self.work / "m11-pg", durable=True) as database:
            self._m11_on("PostgreSQL", FARSHORE_SCALE_DATABASE=database.connection)

    def _m11_appliance(self):
        """One appliance with a thousand disks that are idle and a hundred that are written."""
        idle, busy, rate = (100, 10, 1) if self.options.quick else (1000, 100, 10)
        seconds = 10 if self.options.quick else 60
        result = self.driver_in_room("appliance_bench", idle, busy, rate, seconds)
        self.row("M11", f"appliance: memory of an idle disk, {idle + busy} of them",
                 [result["kib_per_idle_disk"]], "KiB", "", [], "", None, **result)
        self.row("M11", "  grown while all are idle", [result["idled_mib"] - result["quiet_mib"]],
                 "MiB", "", [], "<= 1", lambda e: e["median"] <= 1)
        self.row("M11", f"  grown while {busy} are written", [result["last_mib"] - result["wrote_mib"]],
                 "MiB", "", [], "<= 8", lambda e: e["median"] <= 8)
        self.row("M11", "  processor, all idle", [result["idle_core_percent"]], "% core", "", [], "")
        self.row("M11", f"  processor, {rate} MB/s into {busy}", [result["busy_core_percent"]],
                 "% core", "", [], "")
        self.row("M11", "  RPO p99 of the writes", [result["lag_p99_ms"] / 1e3], "s", "", [], "")

    def _m11_on(self, kind, **environment):
        """A vault of ten thousand items (a tenth of all with --quick), filled anew."""
        part = 10 if self.options.quick else 1
        agents, appliances = 10_000 // part, 1000 // part
        for result in self._google_bench(
                "vault_bench", "^BM_Scale", FARSHORE_SCALE_ITEMS=str(agents),
                FARSHORE_SCALE_POINTS="1000", FARSHORE_SCALE_EVENTS=str(1_000_000 // part),
                FARSHORE_SCALE_APPLIANCES=str(appliances),
                FARSHORE_SCALE_SECONDS="10" if self.options.quick else "120",
                FARSHORE_SCALE_WARM_SECONDS="0" if self.options.quick else "90", **environment):
            name = result["name"].split("/")[0]
            if name == "BM_ScalePage":
                self.row("M11", f"{kind}: {result['label']}"[:46], [result["real_time"]], "ms", "", [],
                         "< 50 ms", lambda e: e["median"] < 50)
            elif name == "BM_ScaleHeartbeat":
                self.row("M11", f"{kind}: heartbeats of {agents} agents each 10 s",
                         [result["cpu_time"] * agents / 10 / 1e4], "% core", "", [], "< 20 %",
                         lambda e: e["median"] < 20)
            elif name == "BM_ScaleApplianceHeartbeat":
                self.row("M11", f"  of {appliances} appliances each second",
                         [result["cpu_time"] * appliances / 1e4], "% core", "", [], "")
            elif name == "BM_ScaleTenderRound":
                self.row("M11", f"{kind}: a round of the tender", [result["real_time"]], "ms", "", [],
                         "")
            else:
                self.row("M11", f"{kind}: 100 people, a page a second, p99", [result["p99_ms"]], "ms",
                         "", [], "< 50 ms", lambda e: e["median"] < 50)
                self.row("M11", "  heartbeats of agents reached", [result["heartbeats_per_s"]], "/s", "",
                         [], f">= {agents // 10 * 0.95:.0f}",
                         lambda e: e["median"] >= agents // 10 * 0.95)
                self.row("M11", "  p50", [result["p50_ms"]], "ms", "", [], "")
                self.row("M11", "  memory, clients included", [result["memory_mib"]], "MiB", "", [], "",
                         None, begun=result["memory_mib_before"])

    # --- memory under load ------------------------------------------------------------------------

    def memory(self):
        """The process server stands still while the machine writes more than a ring, then drains."""
        size, ring = GIB, 256
        agents, servers = [], []
        for _ in range(1 if self.options.quick else self.options.rounds):
            with Site(self.work, split=True) as site:
                uri = site.protect_disk("memory", self.image("memory.img", size))
                agent, server = (site.farshore.servers[name].pid for name in ("agent", "appliance"))
                tap = site.pid_of("nbdkit")
                most, stop = {"agent": 0.0, "server": 0.0}, threading.Event()

                def watch():
                    while not stop.wait(0.05):
                        try:
                            own, beside = memory_mib(agent), memory_mib(tap)
                            most["agent"] = max(most["agent"], own["Pss_Anon"] + own["Pss_File"] +
                                                own["Pss_Shmem"] + beside["Pss_Shmem"])
                            most["server"] = max(most["server"], memory_mib(server)["Pss"])
                        except OSError:
                            return

                watcher = threading.Thread(target=watch)
                watcher.start()
                try:
                    os.kill(server, signal.SIGSTOP)
                    try:
                        fio(uri, "write", "1m", 4, size, total=768 * MIB)
                        time.sleep(1)
                    finally:
                        os.kill(server, signal.SIGCONT)
                    site.farshore.wait_for("the log is drained", lambda: site.farshore.call(
                        "point", "memory", "--bookmark", f"drained-{time.monotonic()}"), 300)
                finally:
                    stop.set()
                    watcher.join()
                agents.append(most["agent"])
                servers.append(most["server"])
        self.row("mem", "agent with its ring, server stalled, drained", agents, "MiB", "", [],
                 f"<= {ring} + 64 MiB", lambda e: e["max"] <= ring + 64)
        bound = PROCESS_SERVER_BOUND_MIB + PROGRAM_MIB
        self.row("mem", "process server at that", servers, "MiB", "", [],
                 f"<= {PROCESS_SERVER_BOUND_MIB} + {PROGRAM_MIB} MiB", lambda e: e["max"] <= bound)


def main():
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the table there, too")
    parser.add_argument("--rounds", type=int, help="of each figure (3; 2 with --quick)")
    parser.add_argument("--minutes", type=float, help="of the long M5 (10; 1 with --quick)")
    parser.add_argument("--only", default=",".join(MEASURES),
                        help="some of " + ",".join(MEASURES) + " (m1 is M1 and M2)")
    parser.add_argument("--quick", action="store_true", help="short rounds")
    parser.add_argument("--directory", help="where disks and stores are made (build/)",
                        default=os.environ.get("FARSHORE_BENCH_DIRECTORY") or str(ROOT / "build"))
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 3)
    options.minutes = options.minutes or (1 if options.quick else 10)
    chosen = [name.strip().lower() for name in options.only.split(",")]
    if unknown := [name for name in chosen if name not in MEASURES]:
        parser.error(f"unknown: {', '.join(unknown)}")
    bench = Bench(options)
    failed = []
    began = time.monotonic()
    try:
        print(Bench.heading(), flush=True)
        for name in chosen:
            try:
                getattr(bench, name)()
            except Exception as error:  # one measure that breaks must not hide the others
                failed.append(name)
                detail = getattr(error, "stderr", "") or ""
                print(f"{name}: failed: {error} {detail[-400:]}", flush=True)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    bench.rows.sort(key=lambda entry: (not entry["id"].startswith("M"),
                                       int((re.findall(r"\d+", entry["id"]) or [99])[0])))
    print(f"\nMedian of the rounds and spread (least-most); {time.monotonic() - began:.0f} s in all.\n")
    print(Bench.heading())
    for entry in bench.rows:
        print(Bench.line(entry))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(bench.rows, indent=2) + "\n")
    if failed:
        print(f"\nFailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

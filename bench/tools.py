"""What the measures share: peers' processes, fio, a QEMU monitor, processor time and memory."""
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import tempfile
import time

MIB = 1 << 20
GIB = 1 << 30


class Server:
    """A process that serves a unix socket and is ended with the block."""

    def __init__(self, *command, socket):
        self._command, self._socket = list(map(str, command)), pathlib.Path(socket)
        self.uri = f"nbd+unix:///?socket={self._socket}"
        self.pid = 0

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = self._process.pid
        deadline = time.monotonic() + 60
        while not self._socket.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._command[0]} ended with {self._process.returncode}")
            if time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"{self._command[0]} did not open {self._socket}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._socket.unlink(missing_ok=True)


class LoopDisk:
    """A disk of this machine over a file: `direct`, or through the page cache of that file."""

    def __init__(self, image, direct):
        self._command = ["losetup", "-f", "--show", f"--direct-io={'on' if direct else 'off'}", image]

    def __enter__(self):
        done = subprocess.run(self._command, capture_output=True, text=True, check=True)
        self.device = done.stdout.strip()
        return self.device

    def __exit__(self, *_):
        subprocess.run(["losetup", "-d", self.device], check=False)


class Result:
    """One run of fio: bytes and requests a second, latencies, and the server's processor time."""

    def __init__(self, job, cpu_s):
        self.mb_per_s = job["bw_bytes"] / 1e6
        self.iops = job["iops"]
        percentiles = job["clat_ns"].get("percentile", {})
        self.p50_us = percentiles.get("50.000000", 0) / 1e3
        self.p99_us = percentiles.get("99.000000", 0) / 1e3
        self.requests = job["total_ios"]
        self.cpu_us = cpu_s * 1e6 / max(1, job["total_ios"])


def fio(where, kind, block, depth, size, *, seconds=None, total=None, offset=0, pid=0, seed=1):
    """To an address of NBD, or to a disk of this machine past its page cache. Either for `seconds`,
    or until `total` bytes were moved, each block at most once."""
    engine = (["--thread", "--ioengine=io_uring", f"--filename={where}", "--direct=1"]
              if str(where).startswith("/dev/") else ["--ioengine=nbd", f"--uri={where}"])
    command = ["fio", "--name=b", *engine, f"--rw={kind}", f"--bs={block}",
               f"--iodepth={depth}", f"--offset={offset}", f"--size={size}", f"--randseed={seed}",
               "--output-format=json", "--refill_buffers", "--buffer_compress_percentage=60"]
    command += (["--time_based", f"--runtime={seconds}"] if seconds is not None
                else [f"--io_size={total or size}"])
    before = cpu_seconds(pid)
    done = subprocess.run(command, capture_output=True, text=True, check=True,
                          cwd=tempfile.gettempdir())
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    return Result(job["write" if "write" in kind else "read"], cpu_seconds(pid) - before)


def cpu_seconds(pid):
    """User and system time of a process and all its threads so far."""
    if pid == 0:
        return 0.0
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wire_bytes(pid):
    """What a process has sent and received over those of its TCP connections that are open now."""
    listing = subprocess.run(["ss", "-tinpH"], capture_output=True, text=True, check=True).stdout
    total = 0
    for connection in re.split(r"\n(?=\S)", listing):
        if f"pid={pid}," in connection:
            total += sum(map(int, re.findall(r"\bbytes_(?:sent|received):(\d+)", connection)))
    return total


def rsync(source, target):
    """Makes `target` equal in place, by rsync's own sums: seconds, bytes of content that were sent,
    all bytes between the two sides, and processor time of both."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(["rsync", "--inplace", "--no-whole-file", "--ignore-times", "--stats", source,
                           target], capture_output=True, text=True, check=True,
                          env={**os.environ, "LC_ALL": "C"})
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)

    def stated(words):
        return int(re.search(words + r": ([\d,]+)", done.stdout)[1].replace(",", ""))

    return {"seconds": seconds, "sent": stated("Literal data"),
            "wire": stated("Total bytes sent") + stated("Total bytes received"),
            "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def memory_mib(pid):
    """Pss of a process by kind, in MiB: "Pss", "Pss_Anon", "Pss_File", "Pss_Shmem"."""
    out = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key.startswith("Pss"):
            out[key] = int(rest.split()[0]) / 1024
    return out


def out_of_page_cache(*paths):
    """Leaves nothing of these files (or of the files below these directories) in the page cache."""
    os.sync()
    for top in map(pathlib.Path, paths):
        for path in ([top] if top.is_file() else top.rglob("*")):
            if path.is_file():
                handle = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(handle)


def written_image(path, size):
    """A file of that size whose every block is allocated, so that no write has to allocate it."""
    block = os.urandom(MIB)
    with open(path, "wb") as image:
        for _ in range(size // MIB):
            image.write(block)
        image.flush()
        os.fsync(image.fileno())


class Qmp:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._stream.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            line = self._stream.readline()
            if not line:
                raise ConnectionError("QEMU went away")
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def close(self):
        self._stream.close()
        self._socket.close()


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

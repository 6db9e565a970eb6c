"""The demo's guest: starting it under QEMU, its serial line, and what it reports there."""
import json
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time

TRANSACTION = re.compile(r"^TX (\d+) (\d+)$")


class GuestError(Exception):
    pass


def copy_disk(source, target):
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)], check=True)


def pick_accelerator(image_directory, cache_directory):
    """`kvm` where a Debian kernel really starts under it, else `tcg`. Tried once per host boot: on
    some hosts /dev/kvm is there but kernels die early."""
    if not pathlib.Path("/dev/kvm").exists():
        return "tcg"
    boot_id = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer_file = pathlib.Path(cache_directory) / "accelerator.json"
    try:
        answer = json.loads(answer_file.read_text())
        if answer["boot_id"] == boot_id:
            return answer["accelerator"]
    except (OSError, ValueError, KeyError):
        pass
    # Without a root disk the kernel comes as far as looking for one, then stops: far enough.
    try:
        tried = subprocess.run(
            ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults",
             "-display", "none", "-no-reboot", "-serial", "stdio",
             "-kernel", str(image_directory / "vmlinuz"), "-append", "console=ttyS0 panic=-1"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False).stdout
    except subprocess.TimeoutExpired as hung:
        tried = hung.stdout or b""
    found = "kvm" if b"Unable to mount root" in tried else "tcg"
    answer_file.write_text(json.dumps({"boot_id": boot_id, "accelerator": found}) + "\n")
    return found


def accelerator_options(accelerator):
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


class Line:
    """What a guest said on its serial line, with the host's wall clock in ms; waiting for more.

    Thread-safe: one thread that hears, any waiters."""

    def __init__(self):
        self.lines = []            # (arrival_ms, text)
        self.transactions = []     # (n, guest_ms, arrival_ms)
        self.closed = False
        self._changed = threading.Condition()

    def _heard(self, whole):
        """Whole lines, as bytes."""
        now_ms = time.time_ns() // 1_000_000
        with self._changed:
            for raw in whole:
                text = raw.decode("utf-8", "replace").strip("\r\0 ")
                self.lines.append((now_ms, text))
                found = TRANSACTION.match(text)
                if found:
                    self.transactions.append((int(found[1]), int(found[2]), now_ms))
            self._changed.notify_all()

    def _ended(self):
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait_for(self, pattern, timeout_s, after=0):
        """The first line from index `after` on that matches: (arrival_ms, match)."""
        compiled = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        with self._changed:
            index = after
            while True:
                while index < len(self.lines):
                    arrival_ms, text = self.lines[index]
                    index += 1
                    found = compiled.search(text)
                    if found:
                        return arrival_ms, found
                left = deadline - time.monotonic()
                if self.closed or left <= 0:
                    why = "the guest's QEMU is gone" if self.closed else f"waited {timeout_s} s"
                    tail = "\n  ".join(text for _, text in self.lines[-15:])
                    raise GuestError(f"no '{pattern}' on the serial line: {why}. It ends:\n  {tail}")
                self._changed.wait(min(left, 1.0))

    def wait_for_transactions(self, count, timeout_s):
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while len(self.transactions) < count:
                left = deadline - time.monotonic()
                if self.closed or left <= 0:
                    raise GuestError(f"only {len(self.transactions)} of {count} transactions came")
                self._changed.wait(min(left, 1.0))

    def reported(self, at_ms=None):
        """Number of the last transaction that had been reported at that moment of the host."""
        with self._changed:
            return max((n for n, _, arrival_ms in self.transactions
                        if at_ms is None or arrival_ms <= at_ms), default=0)

    def run(self, command, timeout_s=60):
        """Runs a command in the guest; the shell on the line must be free."""
        for _ in range(3):
            after = len(self.lines)
            self.send(f"{{ {command}; }} && echo COMMAND-DONE || echo COMMAND-FAILED")
            try:
                _, found = self.wait_for(r"^COMMAND-(DONE|FAILED)", timeout_s, after)
            except GuestError:
                self.send("\x03")    # half a line, of which a character was lost
                continue
            if found[1] == "DONE":
                return
        raise GuestError(f"'{command}' failed in the guest")

    def stop_load(self, timeout_s=60):
        """Interrupts it; the shell on the line is free then."""
        self.send("\x03")
        self.run("true", timeout_s)


class SerialLine(Line):
    """A guest's serial line on a unix socket, and a log of it."""

    def __init__(self, path, log_path, started_by=None, timeout_s=20):
        super().__init__()
        self._log = open(log_path, "ab")
        self._socket = self._connect(path, started_by, timeout_s)
        self._thread = threading.Thread(target=self._read, name=f"serial {path}", daemon=True)
        self._thread.start()

    @staticmethod
    def _connect(path, process, timeout_s):
        deadline = time.monotonic() + timeout_s
        while True:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                line.connect(str(path))
                return line
            except OSError as error:
                line.close()
                if process is not None and process.poll() is not None:
                    raise GuestError("QEMU ended before its serial line was there") from error
                if time.monotonic() > deadline:
                    raise GuestError(f"no serial line at {path}: {error}") from error
                time.sleep(0.05)

    def _read(self):
        rest = b""
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._log.close()
                self._ended()
                return
            self._log.write(data)
            self._log.flush()
            *whole, rest = (rest + data).split(b"\n")
            self._heard(whole)

    def send(self, text):
        self._socket.sendall(text.encode() + b"\n")

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(5)
        self._socket.close()


class RecoveredMachine(Line):
    """A machine that farshore started. Its serial line is read from its log (all that it ever said,
    from the start) and written through its socket."""

    def __init__(self, log_path, socket_path):
        super().__init__()
        self.log_path = pathlib.Path(log_path)
        self._socket_path = socket_path
        self._socket = None
        self._stop = False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        rest = b""
        with open(self.log_path, "rb") as log:
            while not self._stop:
                data = log.read()
                if not data:
                    time.sleep(0.02)
                    continue
                *whole, rest = (rest + data).split(b"\n")
                self._heard(whole)

    def send(self, text):
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.connect(str(self._socket_path))
            threading.Thread(target=self._drain, daemon=True).start()
        self._socket.sendall(text.encode() + b"\n")

    def _drain(self):
        """The socket says what the log says; unread, it would stop the guest's line."""
        try:
            while self._socket.recv(65536):
                pass
        except OSError:
            pass

    def close(self):
        self._stop = True
        self._thread.join(5)
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._socket.close()


class SourceGuest:
    """The machine that gets protected: QEMU with its disks, a QMP socket and a serial line."""

    # The root disk first. Those that are not there yet are copied from the image.
    DISKS = ("root", "db")
    NAME = "harbour"
    MAC = "52:54:00:fa:55:01"
    CPUS = 2
    NETWORK = "user,id=net0,restrict=on"

    def __init__(self, image_directory, directory, accelerator, memory_mib=768):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.qmp_path = self.directory / "qmp.sock"
        self.disks = [self.directory / f"{name}.img" for name in self.DISKS]
        for disk in self.disks:
            if not disk.exists():
                copy_disk(image_directory / disk.name, disk)
                self.lay_out(disk)
        self._accelerator = accelerator
        self._memory_mib = memory_mib
        self.process = None
        self.serial = None
        self.started_ms = 0

    def lay_out(self, disk):
        """Changes a disk that was just copied from the image."""

    def command(self):
        options = [
            "qemu-system-x86_64", "-name", self.NAME, *accelerator_options(self._accelerator),
            "-m", str(self._memory_mib), "-smp", str(self.CPUS), "-nodefaults", "-display", "none",
            "-no-reboot", "-rtc", "base=utc", "-device", "virtio-rng-pci",
            "-netdev", self.NETWORK,
            "-device", f"virtio-net-pci,netdev=net0,mac={self.MAC},romfile=",
            "-chardev", f"socket,id=serial0,path={self.directory}/serial.sock,server=on,wait=off",
            "-serial", "chardev:serial0",
            "-qmp", f"unix:{self.qmp_path},server=on,wait=off",
        ]
        for index, disk in enumerate(self.disks):
            name = disk.stem
            options += [
                "-blockdev", json.dumps({
                    "driver": "raw", "node-name": name, "discard": "unmap",
                    "file": {"driver": "file", "filename": str(disk), "aio": "threads"}}),
                "-device", f"virtio-blk-pci,drive={name},id=disk-{name},serial={name}"
                           + (",bootindex=0" if index == 0 else ""),
            ]
        return options

    def start(self):
        self.started_ms = time.time_ns() // 1_000_000
        with open(self.directory / "qemu.log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        self.serial = SerialLine(self.directory / "serial.sock", self.directory / "serial.log",
                                 self.process)

    def wait_ready(self, timeout_s=180):
        """Logged in; returns ms since the start of QEMU."""
        arrival_ms, _ = self.serial.wait_for(r"^READY ", timeout_s)
        return arrival_ms - self.started_ms

    def start_load(self, per_second=40):
        self.serial.send(f"demo-load {per_second}")
        self.serial.wait_for("^LOAD-STARTED", 60)

    def kill(self):
        """SIGKILL: the power is gone. Returns the moment in ms of the host's wall clock."""
        self.process.kill()
        moment_ms = time.time_ns() // 1_000_000
        self.process.wait()
        if self.serial is not None:
            self.serial.close()
        return moment_ms


PIECE = re.compile(r"^VERIFY (\d+) (\d+) (\d+) (\d+) (.*);$")


def report_from(lines):
    """verify-db's report of its pieces that arrived whole; None while one is missing."""
    pieces = {}
    for text in lines:
        found = PIECE.match(text)
        if found and len(found[5]) == int(found[3]) and sum(found[5].encode()) == int(found[4]):
            pieces[(int(found[2]), int(found[1]))] = found[5]
    for count in {of for of, _ in pieces}:
        whole = [pieces.get((count, number)) for number in range(count)]
        if None in whole:
            continue
        try:
            return json.loads("".join(whole))
        except ValueError:
            continue    # a damaged number
    return None


def verify(serial, timeout_s=240, host=""):
    """Runs verify-db in the guest behind that line; `host` has the database, when it is another."""
    # What the report says is never asked twice, only one that did not arrive.
    for _ in range(3):
        after = len(serial.lines)
        serial.send(f"verify-db {host}".strip())
        serial.wait_for("^VERIFIED$", timeout_s, after)
        report = report_from(text for _, text in serial.lines[after:])
        if report is not None and (not report.get("database_up") or "error" in report
                                   or REPORT_FIELDS <= report.keys()):
            return report
    raise RuntimeError("the guest's report arrived damaged three times: "
                       + " / ".join(text for _, text in serial.lines[after:]))


# Of verify-db, when the database is up.
REPORT_FIELDS = {"count", "max", "min", "bad_rows", "balance", "accounts", "amcheck",
                 "checksum_failures", "note_last", "note_lines", "notes_in_order", "done_last",
                 "ext4_errors", "ext4_mounts"}


def integrity_errors(report, guest, mounts=2, notes=True):
    """What is wrong with a recovered guest of so many file systems, in words; empty when all is well.
    `notes`: it notes the transactions."""
    wrong = []
    if not report.get("database_up"):
        return ["the database did not start"]
    if "error" in report:
        return [f"the database could not be read: {report['error']}"]
    if report["count"] != report["max"] or (report["count"] and report["min"] != 1):
        wrong.append(f"holes: {report['count']} transactions, numbers {report['min']} to {report['max']}")
    if report["bad_rows"]:
        wrong.append(f"{report['bad_rows']} rows with a wrong checksum")
    if report["balance"] != guest["balance"] or report["accounts"] != guest["accounts"]:
        wrong.append("the accounts do not add up: half a transaction is there")
    if not report["amcheck"]:
        wrong.append("pg_amcheck found damage")
    if report["checksum_failures"]:
        wrong.append("PostgreSQL counted page checksum failures")
    if report["ext4_errors"] or report["ext4_mounts"] < mounts:
        wrong.append("ext4 counted errors")
    if not notes:
        return wrong
    # The note of a transaction is on the root disk before its commit on the database disk.
    if not report["notes_in_order"]:
        wrong.append("the notes on the root disk do not count up")
    if report["note_last"] not in (report["max"], report["max"] + 1):
        wrong.append(f"the disks are of different moments: root {report['note_last']}, "
                     f"database {report['max']}")
    return wrong


def check_file_systems(disks, work_directory, offsets):
    """Replays the journals of copies and has e2fsck check them. Returns what is wrong, in words."""
    wrong = []
    for disk, offset_bytes in zip(disks, offsets):
        copy = pathlib.Path(work_directory) / f"fsck-{pathlib.Path(disk).name}"
        if offset_bytes:
            with open(disk, "rb") as source, open(copy, "wb") as target:
                source.seek(offset_bytes)
                shutil.copyfileobj(source, target, 1 << 20)
        else:
            copy_disk(disk, copy)
        # The first run replays the journal, as a mount would; the second must find nothing.
        subprocess.run(["e2fsck", "-p", str(copy)], capture_output=True, check=False)
        done = subprocess.run(["e2fsck", "-fn", str(copy)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stdout.splitlines() if line and not line.startswith("Pass")]
            wrong.append(f"{pathlib.Path(disk).name}: {'; '.join(lines[:3])}")
        copy.unlink()
    return wrong

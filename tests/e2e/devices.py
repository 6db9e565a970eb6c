"""Loop disks of this machine, protected by the agent that runs on it, as a machine's own disks are."""
import mmap
import os
import pathlib
import shutil
import signal
import subprocess

from support import EndToEnd

MIB = 1 << 20


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class DirectDisk:
    """Reads and writes a disk past the page cache, so that a write is one request, in order."""

    def __init__(self, path, access=os.O_RDWR):
        self._fd = os.open(path, access | os.O_DIRECT)
        self._buffer = mmap.mmap(-1, 4 * MIB)

    def write(self, offset, data):
        self._buffer[:len(data)] = data
        view = memoryview(self._buffer)[:len(data)]
        if os.pwrite(self._fd, view, offset) != len(data):
            raise OSError("a short write")
        view.release()

    def read(self, offset, length):
        view = memoryview(self._buffer)[:length]
        got = os.preadv(self._fd, [view], offset)
        data = bytes(view[:got])
        view.release()
        return data

    def close(self):
        os.close(self._fd)


class DeviceTest(EndToEnd):
    """Makes loop disks, and leaves none of them, no mount and no program in the kernel behind."""

    def setUp(self):
        super().setUp()
        self.loops, self.images = [], {}
        # Before the work directory goes, after the servers have ended: cleanups run backwards.
        self.addCleanup(self.forget_loops)
        self.addCleanup(self.forget_traces)
        self.addCleanup(self.farshore.end)
        self.addCleanup(self.show_logs_of_failure)

    def make_disk(self, size):
        image = self.work / f"loop{len(self.loops)}.img"
        with open(image, "wb") as file:
            file.truncate(size)
        device = run("losetup", "-f", "--show", image).strip()
        self.loops.append(device)
        self.images[device] = image
        return device

    def forget_loops(self):
        for device in self.loops:
            mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()
                      if line.startswith(device + " ")]
            for mount in mounts:
                # What was killed on it may be dying still.
                if subprocess.run(["umount", mount], check=False).returncode != 0:
                    subprocess.run(["umount", "--lazy", mount], check=False)
            subprocess.run(["losetup", "-d", device], check=False)

    def start_load(self, command):
        """In a group of its own. fio needs --thread: its processes leave the group."""
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        self.addCleanup(self.end_load, process)
        return process

    @staticmethod
    def end_load(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @staticmethod
    def traces():
        root = pathlib.Path("/sys/fs/bpf")
        return sorted(root.glob("farshore-*")) if root.exists() else []

    def forget_traces(self):
        for item in getattr(self, "items", []):
            shutil.rmtree(f"/sys/fs/bpf/farshore-{item[:12]}", ignore_errors=True)

    def protect(self, name, *devices, options=()):
        words = [word for device in devices for word in ("--device", device)]
        item = self.farshore.call("protect", name, *words, "--point-interval", 1, *options)
        self.items = [*getattr(self, "items", []), item["id"]]
        return item

    def whole(self, device):
        """What the disk has now, past every cache."""
        disk = DirectDisk(device, os.O_RDONLY)
        try:
            size = int(run("blockdev", "--getsize64", device))
            return b"".join(disk.read(offset, min(MIB, size - offset)) for offset in range(0, size, MIB))
        finally:
            disk.close()

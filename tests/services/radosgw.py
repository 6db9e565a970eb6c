#!/usr/bin/env python3
"""A real S3 server for tests: Ceph's radosgw over one monitor, one manager and one OSD on a sparse
file, all in a temporary directory, on free ports of 127.0.0.1, with TLS from an authority of its own.

As a module: `with Radosgw(directory) as s3:` and s3.endpoint, s3.plain_endpoint, s3.ca, s3.user().
As a program: `radosgw.py run -- COMMAND…` runs the command with FARSHORE_TEST_S3_ENDPOINT, _CA, _KEY
and _SECRET in its environment, and ends everything with it; its exit code is the command's.
`radosgw.py serve [--env FILE]` does the same until it is told to end.

Needs the packages ceph-mon ceph-mgr ceph-osd radosgw ceph-common. Takes about 15 s and 2 GiB."""
import argparse
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid

NEEDED = ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "radosgw", "radosgw-admin", "openssl")
START_S = 120
KEYS = {"mon.": {"mon": "allow *"},
        "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
        "mgr.x": {"mon": "allow profile mgr", "osd": "allow *"},
        "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
        "client.rgw.a": {"mon": "allow rw", "osd": "allow rwx"}}
PR_SET_PDEATHSIG = 1


def missing_programs():
    return [name for name in NEEDED if shutil.which(name) is None]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Radosgw:
    """One cluster. The names that S3 calls virtual hosts are BUCKET.s3.localhost."""

    HOST = "s3.localhost"

    def __init__(self, directory=None):
        self._own = directory is None
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(prefix="farshore-radosgw-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self._conf = self.directory / "ceph.conf"
        self._processes = []
        self._users = 0
        self.key, self.secret = "test-access-key", "test-secret-key"

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        lacking = missing_programs()
        if lacking:
            raise RuntimeError(f"not installed: {', '.join(lacking)}")
        mon_v2, mon_v1, plain, tls = free_ports(4)
        self.plain_endpoint = f"http://127.0.0.1:{plain}"
        self.endpoint = f"https://127.0.0.1:{tls}"
        self.named_endpoint = f"https://{self.HOST}:{tls}"
        self._make_certificates()
        self._write_conf(f"[v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]", plain, tls)
        for name in ("mon", "mgr", "osd", "rgw"):
            (self.directory / name).mkdir(exist_ok=True)
        monmap = self.directory / "monmap"
        self._run("monmaptool", "--create", "--clobber", "--fsid", self._fsid, "--addv", "a",
                  f"[v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]", monmap)
        for number, (name, caps) in enumerate(KEYS.items()):
            self._run("ceph-authtool", self.directory / "keyring", "--gen-key", "-n", name,
                      *([] if number else ["--create-keyring"]),
                      *[word for what, cap in caps.items() for word in ("--cap", what, cap)])
        self._run("ceph-mon", "-c", self._conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring",
                  self.directory / "keyring")
        self._spawn("ceph-mon", "-i", "a")
        self._ceph("osd", "new", self._osd_uuid)
        self._run("ceph-osd", "-c", self._conf, "-i", "0", "--mkfs", "--osd-uuid", self._osd_uuid)
        self._spawn("ceph-mgr", "-i", "x")
        self._spawn("ceph-osd", "-i", "0")
        self.add_user("test", self.key, self.secret)
        self.start_gateway()

    def start_gateway(self):
        self._gateway = self._spawn("radosgw", "-n", "client.rgw.a")
        context = ssl.create_default_context(cafile=self.ca)
        deadline = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(self.endpoint, timeout=5, context=context).close()
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"radosgw does not answer: {error}; see {self.directory}") from error
                self._check_alive()
                time.sleep(0.1)

    def stop_gateway(self):
        self._end(self._gateway)
        self._processes.remove(self._gateway)

    def pause_gateway(self):
        self._gateway.send_signal(signal.SIGSTOP)

    def resume_gateway(self):
        self._gateway.send_signal(signal.SIGCONT)

    def stop(self):
        for process in reversed(self._processes):
            self._end(process)
        self._processes = []
        if self._own:
            shutil.rmtree(self.directory, ignore_errors=True)

    def add_user(self, name, key, secret, *options):
        self._admin("user", "create", f"--uid={name}", f"--display-name={name}", f"--access-key={key}",
                    f"--secret-key={secret}", *options)

    def environment(self):
        return {"FARSHORE_TEST_S3_ENDPOINT": self.endpoint,
                "FARSHORE_TEST_S3_PLAIN_ENDPOINT": self.plain_endpoint,
                "FARSHORE_TEST_S3_NAMED_ENDPOINT": self.named_endpoint,
                "FARSHORE_TEST_S3_CA": str(self.ca),
                "FARSHORE_TEST_S3_KEY": self.key, "FARSHORE_TEST_S3_SECRET": self.secret}

    def _admin(self, *arguments):
        return self._run("radosgw-admin", "-c", self._conf, "-n", "client.rgw.a", *arguments)

    def _ceph(self, *arguments):
        return self._run("ceph", "-c", self._conf, "--connect-timeout", START_S, *arguments)

    def _run(self, *command):
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=START_S,
                              cwd=self.directory)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def _spawn(self, program, *arguments):
        with open(self.directory / f"{program}.out", "ab") as out:
            process = subprocess.Popen([program, "-c", str(self._conf), "-f", *arguments],
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       cwd=self.directory, preexec_fn=_die_with_parent)
        self._processes.append(process)
        return process

    def _check_alive(self):
        for process in self._processes:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args[0]} ended with {process.returncode}; see {self.directory}")

    @staticmethod
    def _end(process):
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()      # nothing in it is worth a clean end
        process.wait()

    def _make_certificates(self):
        def openssl(*arguments):
            self._run("openssl", *arguments)

        self.ca = self.directory / "ca.crt"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                "ca.key", "-out", self.ca, "-days", "30", "-subj", "/CN=test authority")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "rgw.key",
                "-out", "rgw.csr", "-subj", "/CN=radosgw")
        (self.directory / "names").write_text(
            f"subjectAltName=IP:127.0.0.1,DNS:{self.HOST},DNS:*.{self.HOST}\n")
        openssl("x509", "-req", "-in", "rgw.csr", "-CA", self.ca, "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "30", "-extfile", "names", "-out", "rgw.crt")

    def _write_conf(self, monitor, plain, tls):
        here = self.directory
        self._fsid, self._osd_uuid = str(uuid.uuid4()), str(uuid.uuid4())
        self._conf.write_text(f"""[global]
fsid = {self._fsid}
mon host = {monitor}
keyring = {here}/keyring
auth allow insecure global id reclaim = false
run dir = {here}
admin socket =
log file =
log to stderr = true
err to stderr = true
mon cluster log file =
crash dir = {here}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
ms bind ipv6 = false
ms bind ipv4 = true
public addr = 127.0.0.1
cluster addr = 127.0.0.1

[mon]
keyring = {here}/keyring
mon data = {here}/mon
mon data avail crit = 1

[mgr]
keyring = {here}/keyring
mgr data = {here}/mgr
mgr initial modules =

[osd]
keyring = {here}/keyring
osd data = {here}/osd
osd objectstore = bluestore
bluestore block size = 21474836480
osd memory target = 1073741824
osd class load list = *
osd class default list = *

[client.rgw.a]
keyring = {here}/keyring
rgw data = {here}/rgw
rgw dns name = {self.HOST}
rgw frontends = beast tcp_nodelay=1 endpoint=127.0.0.1:{plain} ssl_endpoint=127.0.0.1:{tls} ssl_certificate={here}/rgw.crt ssl_private_key={here}/rgw.key
rgw enable usage log = false
rgw lifecycle work time = 00:00-00:00
""")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["run", "serve"])
    parser.add_argument("--directory", help="a new one under /tmp")
    parser.add_argument("--env", help="serve: file for the environment of tests, in the shell's words")
    parser.add_argument("command", nargs="*", help="run: behind --")
    arguments = parser.parse_args()
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    with Radosgw(arguments.directory) as s3:
        if arguments.what == "run":
            done = subprocess.run(arguments.command, env={**os.environ, **s3.environment()}, check=False)
            return done.returncode
        if arguments.env:
            lines = "".join(f"export {name}={value}\n" for name, value in s3.environment().items())
            pathlib.Path(arguments.env).write_text(lines)
        print(s3.endpoint, flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())

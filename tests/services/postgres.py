#!/usr/bin/env python3
"""A PostgreSQL server for tests, in a directory of its own, over a socket there.

As a module: `with Postgres(directory) as server: …`. As a program: `postgres.py run -- COMMAND…` runs
the command with FARSHORE_TEST_POSTGRES (a connection string) in its environment, and ends the server
with it; its exit code is the command's. Needs Debian's postgresql; the server runs as
the user postgres when root starts it."""
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

DATABASE = "farshore"


def programs():
    """Where initdb and postgres are."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise RuntimeError("there is no PostgreSQL: install Debian's package postgresql")
    return found[-1].parent


class Postgres:
    def __init__(self, directory=None, durable=False):
        self.own = directory is None
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(prefix="farshore-pg-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.data = self.directory / "data"
        self.durable = durable
        self.process = None
        self.as_user = []
        self.user = pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            self.user = "postgres"
            self.as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(self.directory, "postgres", "postgres")
            os.chmod(self.directory, 0o755)

    @property
    def connection(self):
        return f"host={self.directory} user={self.user} dbname={DATABASE}"

    def run(self, *command):
        subprocess.run([*self.as_user, *map(str, command)], check=True, cwd="/",
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def make(self):
        self.run(programs() / "initdb", "-D", self.data, "-A", "trust", "-N",
                 "--no-locale", "-E", "UTF8")

    def start(self):
        if not self.data.exists():
            self.make()
        settings = ["listen_addresses=", f"unix_socket_directories={self.directory}",
                    "unix_socket_permissions=0777", "shared_buffers=64MB", "max_connections=200",
                    "log_min_messages=warning"]
        if not self.durable:
            settings += ["fsync=off", "full_page_writes=off"]
        log = open(self.directory / "log", "ab")    # pylint: disable=consider-using-with
        with log:
            self.process = subprocess.Popen(    # pylint: disable=consider-using-with
                [*self.as_user, programs() / "postgres", "-D", self.data,
                 *[word for setting in settings for word in ("-c", setting)]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        self.wait()

    def psql(self, text, database=DATABASE):
        done = subprocess.run(
            ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", self.directory, "-U", self.user,
             "-d", database, "-c", text], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def wait(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                if not self.psql(f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'", "postgres"):
                    self.psql(f"CREATE DATABASE {DATABASE}", "postgres")
                return
            except RuntimeError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self, how=signal.SIGINT):
        """SIGINT: fast, SIGQUIT: as a crash."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        if self.own:
            shutil.rmtree(self.directory, ignore_errors=True)


def main():
    if len(sys.argv) < 4 or sys.argv[1:3] != ["run", "--"]:
        sys.exit(__doc__)
    with Postgres() as server:
        environment = dict(os.environ, FARSHORE_TEST_POSTGRES=server.connection)
        sys.exit(subprocess.run(sys.argv[3:], env=environment, check=False).returncode)


if __name__ == "__main__":
    main()

"""Runs farshore's programs and client verbs for the demo and the end-to-end tests."""
import atexit
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]


class FarshoreError(Exception):
    """A verb that failed; `code` is the stable name of the error, `remedy` what to do."""

    def __init__(self, verb, code, detail, remedy=""):
        super().__init__(f"farshore {verb}: {detail}")
        self.code = code
        self.remedy = remedy


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_document(document, word):
    """The first value in a JSON document whose key contains `word`."""
    if isinstance(document, dict):
        for key, value in document.items():
            if word in key and not isinstance(value, (dict, list)):
                return value
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            found = in_document(part, word)
            if found is not None:
                return found
    return None


class Farshore:
    """One installation: servers on data directories, and a client to its vault."""

    def __init__(self, binary, data, log_directory, environment=None):
        self.binary = pathlib.Path(binary)
        self.data = pathlib.Path(data)
        self.log_directory = pathlib.Path(log_directory)
        self.log_directory.mkdir(parents=True, exist_ok=True)
        # Inherited by everything that the servers start: how leftovers are found again.
        self.mark = uuid.uuid4().hex
        self.environment = {**os.environ, **(environment or {}), "FARSHORE_DEMO": self.mark}
        self.servers = {}
        self.authority = None
        self.host_names = False    # parties are called as the host, which is the default
        self.vault_urls = None    # for appliances, where there are several nodes
        self.replication_listen = ""
        self.store_options = []    # --store, --store-settings; none: DIR/store
        self._commands = {}
        self.prefixes = {}    # of a server's command line: where it runs
        # Rings are memory: what a test leaves there is gone from the machine until it restarts.
        self.rings = pathlib.Path(f"/dev/shm/farshore-{self.mark}")
        atexit.register(shutil.rmtree, self.rings, ignore_errors=True)

    # --- client ------------------------------------------------------------------------------

    def call(self, *verb, timeout_s=300):
        """A verb with --json: its document."""
        done = subprocess.run(
            [str(self.binary), *map(str, verb), "--data", str(self.data), "--json"],
            capture_output=True, text=True, timeout=timeout_s, env=self.environment, check=False)
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip()
            try:
                problem = json.loads(words.splitlines()[-1])
                raise FarshoreError(" ".join(map(str, verb)), problem.get("code", ""),
                                    problem.get("detail", words), problem.get("remedy", ""))
            except (ValueError, IndexError):
                raise FarshoreError(" ".join(map(str, verb)), "", words or
                                    f"exit code {done.returncode}") from None
        text = done.stdout.strip()
        return json.loads(text.splitlines()[-1]) if text else None

    def wait_for(self, what, condition, timeout_s, interval_s=0.25, on_poll=None):
        """Until condition() is true; errors of the client count as 'not yet'."""
        deadline = time.monotonic() + timeout_s
        last = ""
        while True:
            self.check_servers()
            try:
                answer = condition()
                if answer:
                    return answer
            except FarshoreError as error:
                last = f" ({error})"
            if on_poll is not None:
                on_poll()
            if time.monotonic() > deadline:
                raise FarshoreError("", "timeout", f"{what}: not after {timeout_s} s{last}")
            time.sleep(interval_s)

    # --- servers -----------------------------------------------------------------------------

    def start_server(self, name, *arguments):
        if "--shared-dir" not in arguments and arguments[0] in ("up", "agent"):
            arguments = (*arguments, "--shared-dir", self.rings)
        if arguments[0] in ("up", "vault") and "--database" not in arguments:
            arguments = (*arguments, *self.database_options())
        self._commands[name] = arguments
        with open(self.log_directory / f"{name}.log", "ab") as log:
            self.servers[name] = subprocess.Popen(
                [*self.prefixes.get(name, []), str(self.binary), *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=self.environment, start_new_session=True)

    def database_options(self):
        """With FARSHORE_TEST_POSTGRES (tests/services/postgres.py): a schema of its own there."""
        server = self.environment.get("FARSHORE_TEST_POSTGRES")
        if not server:
            return ()
        schema = f"e_{self.mark}".replace("-", "_").lower()
        subprocess.run(["psql", "-Xq", "-d", server, "-c", f"CREATE SCHEMA IF NOT EXISTS {schema}"],
                       check=True, stdin=subprocess.DEVNULL)
        return "--database", f"{server} options='-c search_path={schema}'"

    def restart_server(self, name):
        """One that was killed, as it was started before."""
        self.start_server(name, *self._commands[name])

    def check_servers(self):
        for name, process in self.servers.items():
            if process.poll() is not None:
                log = self.log_directory / f"{name}.log"
                tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-12:])
                raise RuntimeError(f"'{name}' ended with {process.returncode}; its log ends:\n  {tail}")

    def wait_until_serving(self, timeout_s=60):
        self.wait_for("the vault answers", lambda: self.call("items") is not None, timeout_s)

    def kill_servers(self, *names):
        for name in names or list(self.servers):
            process = self.servers.pop(name)
            process.kill()
            process.wait()

    def stop_servers(self, *names):
        """As an operator stops them."""
        for name in names:
            process = self.servers.pop(name)
            process.terminate()
            process.wait(30)

    def descendants(self):
        """(pid, command line) of what carries our mark, ourselves apart: taps, replicas, machines."""
        found = []
        wanted = f"FARSHORE_DEMO={self.mark}".encode()
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if command:
                        found.append((int(entry.name), command))
            except OSError:
                continue
        return found

    def kill_descendants(self, word=""):
        killed = []
        for pid, command in self.descendants():
            if word in command:
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(command)
                except ProcessLookupError:
                    pass
        return killed

    def end(self):
        """Ends everything: asks first, then SIGKILL."""
        for process in self.servers.values():
            process.terminate()
        for process in self.servers.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.servers.clear()
        self.kill_descendants()
        shutil.rmtree(self.rings, ignore_errors=True)

    # --- the ways to run ---------------------------------------------------------------------

    def start_up(self, *options):
        """Agent, appliance and vault in one process."""
        self.start_server("up", "up", "--data", self.data, "--listen", f"127.0.0.1:{free_port()}",
                          "--replication-listen", f"127.0.0.1:{free_port()}", *self.store_options, *options)
        self.wait_until_serving()

    def start_vault(self, *options):
        self.start_server("vault", "vault", "serve", "--data", self.data,
                          "--listen", f"127.0.0.1:{free_port()}", *self.store_options, *options)
        self.wait_until_serving()

    def start_split(self, site, *options):
        """The three apart: the vault's data here, the source site's in `site`."""
        self.start_vault(*options)
        self.start_site(site, ("appliance", "agent"))

    def new_token(self, kind):
        return self.call("token", "create", "--kind", kind)["token"]

    def start_site(self, site, kinds, host="127.0.0.1", agent_options=(), appliance_options=()):
        """What runs at the source, enrolled at the vault that runs already. Afterwards `authority` is
        the certificate and `replication_listen` the address that an agent needs."""
        site = pathlib.Path(site)
        server = json.loads((self.data / "server.json").read_text())
        site.mkdir(parents=True, exist_ok=True)
        self.authority = site / "ca.crt"
        shutil.copy(self.data / server["ca"], self.authority)
        self.replication_listen = f"{host}:{free_port()}"
        for kind in kinds:
            token = site / f"{kind}.token"
            token.write_text(self.new_token(kind) + "\n")
            token.chmod(0o600)
            store = self.store_options or ["--store", self.data / "store"]
            where = (["--vault", self.vault_urls or server["address"], *store,
                      "--replication-listen", self.replication_listen, *appliance_options] if kind == "appliance"
                     else ["--appliance", self.replication_listen, *agent_options])
            self.start_server(kind, kind, "serve", "--data", site / kind, "--ca", self.authority,
                              "--enrol-token-file", token, *([] if self.host_names else ["--name", f"demo-{kind}"]),
                          *where)
            # An appliance is heard of when it has an agent.
            self.wait_for(f"the {kind} is enrolled", lambda k=kind: any(
                a["kind"] == k and (a.get("connected") or k == "appliance")
                for a in self.call("agents")["agents"]), 60)

#!/usr/bin/env python3
"""End to end: who may do what. Every operation of the API with every role, as docs/operations/access.md says;
tokens that have ended; items out of scope; the audit; and that no secret is anywhere."""
import base64
import http.client
import json
import os
import pathlib
import re
import ssl
import stat
import subprocess
import time

import support
from api_test import Description
from support import ROOT, EndToEnd, FarshoreError, Model, seeded

MIB = 1 << 20
ROLES = ("reader", "operator", "contributor", "owner")
PASSWORD = "a password of the test"
# What is in the place of a path's parameters: nothing that there is, so that nothing is done.
NOTHING = {"item": "nothing", "point": "latest", "hold": "nothing", "job": 999999, "alarm": 999999, "store": "nothing",
           "disk": 0, "nic": 0, "host": "nothing", "site": "default", "bookmark": "nothing", "export": "nothing", "agent": "nothing", "appliance": "nothing", "notifier": "nothing", "user": "nothing",
           "token": "0" * 16, "policy": "nothing", "plan": "nothing", "run": 999999, "drill": 999999, "step": "nothing", "attempt": "0" * 24, "group": "nothing", "member": "nothing", "shared_point": "nothing"}


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def documented():
    """The table of docs/operations/access.md: {operation: (least role or anybody, scope)}."""
    text = (ROOT / "docs/operations/access.md").read_text()
    rows = re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)` \| (\w+) \| ([^|]+) \|$", text, re.M)
    return {operation: (role, scope.strip()) for operation, role, scope in rows}


class Access(EndToEnd):
    def setUp(self):
        super().setUp()
        # No login of whoever runs the test, and none of the test is left behind.
        self.home = self.work / "home"
        self.home.mkdir()
        for name in ("XDG_CONFIG_HOME", "FARSHORE_TOKEN_FILE", "FARSHORE_SERVER"):
            self.farshore.environment.pop(name, None)
        self.farshore.environment["HOME"] = str(self.home)
        self.farshore.start_up()
        server = json.loads((self.farshore.data / "server.json").read_text())
        self.address = server["address"].removeprefix("https://")
        self.context = ssl.create_default_context(cafile=str(self.farshore.data / "pki/ca.crt"))
        self.administrator = (self.farshore.data / "vault/admin.token").read_text().strip()
        self.password = self.work / "password"
        self.password.write_text(PASSWORD + "\n")
        self.secrets = {PASSWORD, self.administrator}

    def call(self, method, path, body=None, token=None):
        """(status, document) of one request."""
        connection = http.client.HTTPSConnection(self.address, context=self.context, timeout=60)
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            # A stream has no end: that it began is its answer.
            text = b"" if response.headers.get("Content-Type") == "text/event-stream" else response.read()
            self.headers = response.headers
        finally:
            connection.close()
        try:
            return response.status, json.loads(text) if text else None
        except ValueError:
            return response.status, text.decode(errors="replace")

    def add_user(self, name, *options):
        return self.farshore.call("user", "add", name, "--password-file", self.password, *options)

    def login(self, name):
        status, answer = self.call("POST", "/v1/login", {"user": name, "password": PASSWORD})
        self.assertEqual(201, status, answer)
        self.secrets.add(answer["token"])
        return answer["token"]

    def protect(self, name):
        path = self.work / f"{name}.img"
        path.write_bytes(bytes(MIB))
        self.farshore.call("protect", name, "--disk", path)
        self.wait_state(name, "protected")

    def test_every_operation_with_every_role(self):
        """Breaks when a role may what the documentation does not give it, or may not what it does; when a refusal does
        not name the role that is needed; or when it is not in the audit."""
        table = documented()
        described = {f"{method.upper()} {path}" for method, path, _, _ in Description().operations()}
        self.assertEqual(described, set(table), "docs/operations/access.md has every operation")
        tokens = {}
        for role in ROLES:
            self.add_user(role, "--role", role)
            tokens[role] = self.login(role)
        refused, allowed = set(), 0
        for operation, (least, _) in table.items():
            method, path = operation.split(" ", 1)
            target = re.sub(r"\{(\w+)\}", lambda name: str(NOTHING[name.group(1)]), path)
            # Whoever may is told what is wrong with it.
            body = {"mispelt": 1} if method in ("POST", "PUT", "PATCH") else None
            for role in ROLES:
                with self.subTest(operation=operation, role=role):
                    token = self.login(role) if path == "/v1/logout" else tokens[role]
                    status, answer = self.call(method, target, body, token)
                    may = least == "anybody" or ROLES.index(role) >= ROLES.index(least)
                    if may:
                        self.assertNotIn(status, (401, 403), answer)
                        self.assertLess(status, 500, answer)
                        allowed += 1
                    else:
                        self.assertEqual((403, "forbidden"), (status, answer["code"]), answer)
                        self.assertIn(f"needs the role {least}", answer["detail"])
                        refused.add((operation, role))
            if least != "anybody":
                with self.subTest(operation=operation, role="nobody"):
                    status, answer = self.call(method, target, body)
                    self.assertEqual((401, "unauthenticated"), (status, answer["code"]), answer)
        self.assertGreater(len(refused), 70)
        print(f"{len(table)} operations: {allowed} allowed, {len(refused)} refused")
        rows = self.farshore.call("audit", "--outcome", "forbidden", "--limit", 1000)["audit"]
        self.assertEqual(refused, {(row["operation"], row["who"]) for row in rows})
        self.assertTrue(all(row["from"] == "127.0.0.1" and row["kind"] == "user" for row in rows))
        self.no_secret_anywhere()

    def test_what_has_ended_is_refused(self):
        """Breaks when a revoked token, a disabled or removed user, or somebody who has logged out gets anything."""
        self.add_user("alice", "--role", "operator")
        session = self.login("alice")
        status, made = self.call("POST", "/v1/access-tokens", {"name": "cron"}, session)
        self.assertEqual(201, status, made)
        self.secrets.add(made["token"])
        self.assertEqual(200, self.call("GET", "/v1/items", token=made["token"])[0])
        self.farshore.call("access-token", "revoke", made["id"])
        self.refused(made["token"], "revoked")
        self.farshore.call("user", "set", "alice", "--disable")
        self.refused(session, "disabled")
        self.assertEqual(401, self.call("POST", "/v1/login", {"user": "alice", "password": PASSWORD})[0])
        self.farshore.call("user", "set", "alice", "--enable")
        self.assertEqual(200, self.call("GET", "/v1/items", token=session)[0])
        self.assertEqual(204, self.call("POST", "/v1/logout", token=session)[0])
        self.refused(session, "revoked")
        session = self.login("alice")
        self.farshore.call("user", "remove", "alice")
        self.refused(session, "")
        rows = self.farshore.call("audit", "--outcome", "unauthenticated")["audit"]
        self.assertGreaterEqual(len(rows), 5)
        self.assertTrue(any(made["id"] in row.get("detail", "") for row in rows), rows)
        self.no_secret_anywhere()

    def refused(self, token, word):
        status, answer = self.call("GET", "/v1/items", token=token)
        self.assertEqual((401, "unauthenticated"), (status, answer["code"]))
        self.assertIn(word, answer["detail"])

    def test_items_out_of_scope_are_not_there(self):
        """Breaks when somebody whose role is for one item sees, or touches, another."""
        for name in ("web", "payroll"):
            self.protect(name)
        self.add_user("web-only", "--role", "operator", "--item", "web")
        token = self.login("web-only")
        point = self.farshore.call("point", "payroll", "--bookmark", "secret")["sequence"]
        self.farshore.call("scrub", "payroll", "--now")
        job = self.farshore.call("jobs", "--item", "payroll")["jobs"][0]["id"]
        seen = 0
        for operation, (least, scope) in documented().items():
            method, path = operation.split(" ", 1)
            if ROLES.index("operator") < (ROLES.index(least) if least in ROLES else 0) or least == "anybody":
                continue
            values = {**NOTHING, "item": "payroll", "job": job, "point": point}
            target = re.sub(r"\{(\w+)\}", lambda name: str(values[name.group(1)]), path)
            if path in ("/v1/logout",):
                continue
            with self.subTest(operation=operation):
                status, answer = self.call(method, target, {} if method == "POST" else None, token)
                if scope == "needs all items":
                    self.assertEqual(403, status, answer)
                    self.assertIn("for all items", answer["detail"])
                elif scope in ("the item", "of an item in scope"):
                    self.assertEqual(404, status, answer)
                else:
                    self.assertNotIn("payroll", json.dumps(answer), "a row of another item")
                seen += 1
        self.assertGreater(seen, 25)
        self.assertEqual(200, self.call("GET", "/v1/items/web", token=token)[0])
        _, items = self.call("GET", "/v1/items", token=token)
        self.assertEqual(["web"], [item["name"] for item in items["items"]])
        rows = self.farshore.call("audit", "--who", "web-only", "--outcome", "out-of-scope")["audit"]
        self.assertTrue(any(row["operation"] == "POST /v1/items/{item}/failovers" and row["item"] == "payroll"
                            for row in rows), rows)
        status, _ = self.call("POST", "/v1/items/web/scrub", token=token)
        self.assertEqual(202, status)
        _, jobs = self.call("GET", "/v1/jobs", token=token)
        self.assertEqual({"web"}, {one["item"] for one in jobs["jobs"]})

    def test_wrong_passwords_lock(self):
        """Breaks when passwords can be guessed without end, or a name that is nobody's is answered otherwise."""
        self.add_user("alice")
        for user in ("alice", "nobody-at-all"):
            for _ in range(5):
                status, answer = self.call("POST", "/v1/login", {"user": user, "password": "a wrong password"})
                self.assertEqual((401, "unauthenticated"), (status, answer["code"]))
            status, answer = self.call("POST", "/v1/login", {"user": user, "password": PASSWORD})
            self.assertEqual((429, "throttled"), (status, answer["code"]))
            self.assertGreater(int(self.headers["Retry-After"]), 5)
        self.assertEqual("locked_until" in self.farshore.call("user", "list")["users"][0], True)
        self.farshore.call("user", "password", "alice", "--password-file", self.password)
        rows = self.farshore.call("audit", "--outcome", "throttled")["audit"]
        self.assertEqual(2, len(rows))

    def test_the_command_line_acts_as_who_has_logged_in(self):
        """Breaks when a login does not count for the verbs that follow, its file can be read by others, or it is left
        behind by a logout."""
        self.add_user("alice", "--role", "reader")
        self.assertEqual("administrator", self.farshore.call("whoami")["kind"])
        self.farshore.call("login", "--user", "alice", "--password-file", self.password)
        self.assertEqual("alice", self.farshore.call("whoami")["name"])
        files = [path for path in (self.home / ".config/farshore").iterdir()]
        self.assertEqual(1, len(files))
        self.assertEqual(0o600, stat.S_IMODE(files[0].stat().st_mode))
        self.secrets.add(files[0].read_text().strip())
        self.farshore.call("items")
        for verb in (("audit",), ("user", "list"), ("user", "set", "alice", "--role", "owner"),
                     ("protect", "web", "--disk", "/nowhere"), ("key", "rotate"), ("token", "create")):
            with self.assertRaises(FarshoreError) as refused:
                self.farshore.call(*verb)
            self.assertEqual("forbidden", refused.exception.code, verb)
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("login", "--user", "alice", "--password-file", files[0])
        self.assertEqual("unauthenticated", refused.exception.code)
        self.assertEqual("alice", self.farshore.call("whoami")["name"], "the login before it goes on")
        made = self.farshore.call("access-token", "create", "cron", "--valid", "1h")
        self.secrets.add(made["token"])
        self.assertEqual({"cron", "login"},
                         {row["name"] for row in self.farshore.call("access-token", "list")["access_tokens"]})
        new = self.work / "new"
        new.write_text("another password of the test\n")
        self.farshore.call("password", "--old-password-file", self.password, "--password-file", new)
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("whoami")
        self.assertEqual("unauthenticated", refused.exception.code)
        self.farshore.call("logout")
        self.assertEqual([], list((self.home / ".config/farshore").iterdir()))
        self.assertEqual("administrator", self.farshore.call("whoami")["kind"])
        # People read words.
        for verb in (("audit",), ("user", "list"), ("access-token", "list", "--all"), ("whoami",)):
            shown = subprocess.run([str(support.BINARY), *verb, "--data", str(self.farshore.data)], text=True,
                                   capture_output=True, env=self.farshore.environment, check=True).stdout
            self.assertTrue(shown.strip(), verb)
        self.no_secret_anywhere()

    def test_the_audit_cannot_be_changed(self):
        """Breaks when any request changes or deletes a row of the audit, or one is missing over a restart."""
        self.add_user("alice", "--role", "owner")
        token = self.login("alice")
        before = self.farshore.call("audit", "--limit", 1000)["audit"]
        self.assertGreaterEqual(len(before), 2)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for path in ("/v1/audit", f"/v1/audit/{before[0]['id']}", "/v1/audit?before=0"):
                for who in (token, self.administrator):
                    self.assertEqual(404, self.call(method, path, {}, who)[0], f"{method} {path}")
        self.farshore.stop_servers("up")
        self.farshore.restart_server("up")
        self.farshore.wait_for("the vault is back", lambda: self.farshore.call("server"), 60)
        after = self.farshore.call("audit", "--limit", 1000)["audit"]
        self.assertEqual(before, after[-len(before):])

    def test_a_revoked_agent_is_refused_on_connections_that_stand(self):
        """Breaks when an agent that was revoked goes on sending what a machine writes, or does not go on when it is
        enrolled anew; or when what it had sent is lost."""
        rng = seeded()
        model = Model([MIB], rng)
        arguments = [word for path in model.make_files(self.work) for word in ("--disk", path)]
        self.farshore.call("protect", "web", *arguments)
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        for _ in range(20):
            model.random_step(clients, rng)
        point = self.farshore.call("point", "web", "--bookmark", "before")["sequence"]
        kept = model.copy()
        self.farshore.call("agent", "revoke", "agent-local")
        self.farshore.wait_for("the vault hears nothing of it", lambda: any(
            trouble["code"] == "agent-lost" for trouble in self.farshore.call("item", "web")["troubles"]), 60)
        before = self.farshore.call("item", "web")
        for _ in range(20):
            model.random_step(clients, rng)
        # Whatever goes on would have come long before.
        after = self.farshore.wait_for("the newest point is older", lambda: (
            item := self.farshore.call("item", "web"))["rpo_s"] > before["rpo_s"] + 3 and item, 60)
        self.assertEqual(before["stored_sequence"], after["stored_sequence"], "nothing was taken from it")
        self.assertIn("'agent-local' is not enrolled", (self.work / "logs/up.log").read_text(errors="replace"))
        rows = self.farshore.call("audit", "--outcome", "ok")["audit"]
        self.assertTrue(any(row.get("operation") == "DELETE /v1/agents/{agent}" for row in rows), rows)
        self.assert_point("web", point, kept)
        # `up` enrols its own parts when it starts.
        self.farshore.stop_servers("up")
        self.farshore.restart_server("up")
        self.wait_state("web", "protected")
        after = self.farshore.call("point", "web", "--bookmark", "after")["sequence"]
        self.assert_point("web", after, model.copy())

    def test_people_of_a_provider_log_in(self):
        """Breaks when an ID token of the provider lets nobody in, or one that is another's, for another client, or old
        lets somebody in; or its user has another role than it says."""
        key = self.work / "provider.pem"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        stranger = self.work / "stranger.pem"
        subprocess.run(["openssl", "genrsa", "-out", stranger, "2048"], check=True, capture_output=True)
        modulus = subprocess.run(["openssl", "rsa", "-in", key, "-noout", "-modulus"], check=True, text=True,
                                 capture_output=True).stdout.strip().split("=")[1]
        (self.work / "keys.json").write_text(json.dumps(
            {"keys": [{"kty": "RSA", "kid": "1", "n": base64url(bytes.fromhex(modulus)), "e": "AQAB"}]}))
        (self.work / "oidc.json").write_text(json.dumps(
            {"issuer": "https://id.example.org", "client_id": "farshore", "keys_file": str(self.work / "keys.json"),
             "user_claim": "email", "roles": {"dr": "operator"}}))
        self.farshore.stop_servers("up")
        self.farshore.start_up("--oidc", self.work / "oidc.json")
        self.farshore.wait_for("the vault is back", lambda: self.farshore.call("server"), 60)

        def login(by=key, **changes):
            now = int(time.time())
            claims = {"iss": "https://id.example.org", "aud": "farshore", "email": "alice@example.org",
                      "roles": ["dr"], "iat": now, "exp": now + 300, **changes}
            text = ".".join(base64url(json.dumps(part).encode())
                            for part in ({"alg": "RS256", "kid": "1"}, claims))
            signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", by], input=text.encode(), check=True,
                                       capture_output=True).stdout
            path = self.work / "id-token"
            path.write_text(f"{text}.{base64url(signature)}\n")
            self.secrets.add(base64url(signature))
            return self.farshore.call("login", "--id-token-file", path)

        self.assertEqual("alice@example.org", login()["user"])
        self.assertEqual("operator", self.farshore.call("whoami")["role"])
        for what, code, how in (("a stranger's", "unauthenticated", {"by": stranger}),
                                ("another provider's", "unauthenticated", {"iss": "https://evil.example.org"}),
                                ("for another client", "unauthenticated", {"aud": "mail"}),
                                ("old", "unauthenticated", {"exp": 1_700_000_000}),
                                ("without a role", "forbidden", {"roles": ["others"]})):
            with self.subTest(token=what), self.assertRaises(FarshoreError) as refused:
                login(**how)
            self.assertEqual(code, refused.exception.code, what)
        self.farshore.call("logout")
        self.assertEqual([True], [user["provided"] for user in self.farshore.call("user", "list")["users"]])
        self.no_secret_anywhere()

    def no_secret_anywhere(self):
        """No password and no token in a log, the audit, or any other file of the vault's that is not for it."""
        rows = json.dumps(self.farshore.call("audit", "--limit", 1000))
        logs = "".join(path.read_text(errors="replace") for path in (self.work / "logs").glob("*.log"))
        files = b"".join(path.read_bytes() for path in pathlib.Path(self.farshore.data).rglob("*")
                         if path.is_file() and path.name != "admin.token")
        for secret in self.secrets:
            word = secret if not secret.startswith("fs_") else secret.rsplit("_", 1)[1]
            self.assertNotIn(word, rows)
            self.assertNotIn(word, logs)
            self.assertNotIn(word.encode(), files)
        self.assertEqual(0, stat.S_IMODE(os.stat(self.farshore.data / "vault").st_mode) & 0o077)


if __name__ == "__main__":
    support.main()

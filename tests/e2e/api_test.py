#!/usr/bin/env python3
"""End to end: the API against its own description (api/openapi.yaml): what it answers, and what it refuses."""
import copy
import http.client
import json
import socket
import ssl

import jsonschema
import yaml

import support
from support import ROOT, EndToEnd, Model, seeded

MIB = 1 << 20
METHODS = ("get", "post", "put", "patch", "delete")


class Description:
    """api/openapi.yaml with every reference put in its place."""

    def __init__(self):
        self.document = yaml.safe_load((ROOT / "api/openapi.yaml").read_text())
        self.paths = self.resolve(self.document["paths"])

    def resolve(self, node, seen=()):
        if isinstance(node, list):
            return [self.resolve(one, seen) for one in node]
        if not isinstance(node, dict):
            return node
        target = node.get("$ref")
        if target is None:
            return {key: self.resolve(value, seen) for key, value in node.items()}
        assert target not in seen, f"{target} refers to itself"
        found = self.document
        for part in target.removeprefix("#/").split("/"):
            found = found[part]
        return self.resolve(found, (*seen, target))

    def operations(self):
        """(method, path, operation, its parameters and the path's)."""
        for path, item in self.paths.items():
            for method in METHODS:
                if method in item:
                    operation = item[method]
                    yield method, path, operation, item.get("parameters", []) + operation.get("parameters", [])

    @staticmethod
    def body_schema(operation):
        content = operation.get("requestBody", {}).get("content", {})
        return content.get("application/json", {}).get("schema")


def wrong_values(schema):
    """(what, value): JSON values that a schema does not allow."""
    kind = schema.get("type")
    samples = {"string": "text", "integer": 5, "number": 5.5, "boolean": True, "array": ["x"], "object": {"x": 1},
               "null": None}
    if kind is not None:
        allowed = {kind, "integer"} if kind == "number" else {kind}
        for name, value in samples.items():
            # A member that is null counts as one that is missing.
            if name not in allowed and name != "null" and not (kind == "integer" and name == "number"):
                yield f"a {name}", value
    if kind == "integer":
        yield "a fraction", 1.5
        yield "an enormous number", 10**30
        if "minimum" in schema:
            yield "below its minimum", schema["minimum"] - 1
        if "maximum" in schema:
            yield "above its maximum", schema["maximum"] + 1
    if kind == "string" and "maxLength" in schema:
        yield "too long", "x" * (schema["maxLength"] + 1)
    if "enum" in schema:
        yield "none of its values", "none-of-these"


class Api(EndToEnd):
    @classmethod
    def setUpClass(cls):
        cls.description = Description()

    def setUp(self):
        super().setUp()
        self.farshore.start_up()
        server = json.loads((self.farshore.data / "server.json").read_text())
        self.address = server["address"].removeprefix("https://")
        self.context = ssl.create_default_context(cafile=str(self.farshore.data / "pki/ca.crt"))
        self.token = (self.farshore.data / "vault/admin.token").read_text().strip()
        self.connection = None
        self.addCleanup(lambda: self.connection and self.connection.close())

    def call(self, method, path, body=None, token=True, raw=None):
        """(status, content type, document or text)."""
        if self.connection is None:
            self.connection = http.client.HTTPSConnection(self.address, context=self.context, timeout=120)
        headers = {"Authorization": f"Bearer {self.token if token is True else token}"} if token else {}
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            self.connection.request(method.upper(), path, data, headers)
            response = self.connection.getresponse()
            stream = response.headers.get("Content-Type") == "text/event-stream"
            # A stream has no end: that it began is its answer.
            text = b"" if stream else response.read()
            if stream:
                response.close()
                self.connection.close()
                self.connection = None
        except (OSError, http.client.HTTPException):
            # The server may end a connection after a refusal.
            self.connection.close()
            self.connection = None
            raise
        kind = response.headers.get("Content-Type", "")
        try:
            document = json.loads(text) if text else None
        except ValueError:
            document = text.decode(errors="replace")
        return response.status, kind, document

    def refused(self, what, method, path, word=None, statuses=range(400, 500), **how):
        """It is refused with a problem that says so, naming `word`."""
        try:
            status, kind, document = self.call(method, path, **how)
        except (OSError, http.client.HTTPException) as error:
            self.fail(f"{what}: {error!r}")
        self.assertIn(status, statuses, f"{what}: {document}")
        self.assertEqual("application/problem+json", kind, what)
        self.problem.validate(document)
        if word is not None:
            self.assertIn(word, document["detail"] + document.get("remedy", ""), f"{what}: {document}")
        return document

    @property
    def problem(self):
        return jsonschema.Draft202012Validator(
            self.description.resolve(self.description.document["components"]["schemas"]["Problem"]))

    def fill(self, path, values):
        for name, value in values.items():
            path = path.replace("{" + name + "}", str(value))
        return path

    def site(self):
        """A protected item with points, a copy, a hold, jobs: values for every path."""
        rng = seeded()
        model = Model([MIB], rng)
        arguments = [word for path in model.make_files(self.work) for word in ("--disk", path)]
        self.farshore.call("protect", "web", *arguments, "--point-interval", 2)
        self.wait_state("web", "protected")
        clients = self.open_disks("web")
        for _ in range(10):
            model.random_step(clients, rng)
        point = self.farshore.call("point", "web", "--bookmark", "here")["sequence"]
        status, _, host = self.call("post", "/v1/compute-hosts", {
            "name": "rack", "uri": "qemu+tls://rack.example.org/system", "disks_address": "vault.example.org"})
        self.assertEqual(201, status, host)
        (self.work / "second").mkdir()
        self.farshore.call("store", "add", "second", self.work / "second")
        self.farshore.call("copy", "add", "web", "--store", "second")
        hold = self.farshore.call("hold", "add", "web", "--point", "here", "--reason", "a test")["id"]
        self.farshore.call("scrub", "web", "--now")
        job = self.farshore.call("jobs")["jobs"][0]["id"]
        status, _, bookmark = self.call("post", "/v1/items/web/bookmarks", {"label": "again", "wait_s": 30})
        self.assertEqual(201, status, bookmark)
        status, _, export = self.call("post", "/v1/items/web/exports",
                                      {"point": "here", "socket": str(self.work / "export.sock")})
        self.assertEqual(201, status, export)
        status, _, user = self.call("post", "/v1/users", {"name": "alice", "password": "a long password", "items": ["web"]})
        self.assertEqual(201, status, user)
        status, _, made = self.call("post", "/v1/access-tokens", {"name": "cron"})
        self.assertEqual(201, status, made)
        token = made["id"]
        status, _, group = self.call("post", "/v1/groups", {"name": "shop", "items": ["web"], "crash_interval_s": 0})
        self.assertEqual(201, status, group)
        status, _, shared = self.call("post", "/v1/groups/shop/points", {"wait_s": 20})
        self.assertEqual((201, "stored"), (status, shared.get("state")), shared)
        status, _, plan = self.call("post", "/v1/recovery-plans", {
            "plan": {"name": "shop", "groups": [{"name": "one", "items": [{"name": "web"}]}]}})
        self.assertEqual(201, status, plan)
        # It waits for a person, so that it is there and does nothing.
        status, _, plan = self.call("put", "/v1/recovery-plans/shop", {"plan": {"name": "shop", "groups": [
            {"name": "one", "before": [{"name": "ask", "kind": "manual", "instructions": "?", "for": ["test"]}],
             "items": [{"name": "web"}]}]}})
        self.assertEqual(200, status, plan)
        status, _, run = self.call("post", "/v1/recovery-plans/shop/runs", {"mode": "test"})
        self.assertEqual(202, status, run)
        status, _, policy = self.call("put", "/v1/items/web/drill-policy", {"policy": {"serial": "up", "limit_s": 1}})
        self.assertEqual(200, status, policy)
        status, _, started = self.call("post", "/v1/items/web/drills", {})
        self.assertEqual(202, status, started)
        self.farshore.call("job", started["id"], "--wait")
        drill = self.farshore.call("drill", "list")["drills"][0]
        self.assertEqual("bad", drill["verdict"], "random bytes do not boot")
        return {"item": "web", "point": point, "drill": drill["id"], "plan": "shop", "run": run["id"], "step": "g1-before-1",
                "attempt": "0" * 24, "hold": hold, "job": job, "store": "second", "disk": 0, "nic": 0, "host": "rack", "site": "default",
                "bookmark": bookmark["id"], "export": export["id"], "agent": "nobody", "notifier": "nobody",
                "user": "alice", "token": token, "policy": "default",
                "group": "shop", "member": "web", "shared_point": shared["id"]}

    def test_answers_are_as_described(self):
        """Breaks when an answer misses what the description promises, or has another shape."""
        values = self.site()
        answered = 0
        for method, path, operation, _ in self.description.operations():
            if method != "get":
                continue
            target = self.fill(path, values)
            self.assertNotIn("{", target, "a path whose values this test does not know")
            with self.subTest(operation=operation["operationId"]):
                status, _, document = self.call(method, target)
                self.assertIn(str(status), operation["responses"], f"{target}: {document}")
                content = operation["responses"][str(status)].get("content", {})
                if "application/json" in content:
                    jsonschema.Draft202012Validator(content["application/json"]["schema"]).validate(document)
                    answered += 1
        self.assertGreater(answered, 15)

    def test_wrong_bodies_are_refused_by_name(self):
        """Breaks when a body with a member that is missing, of a wrong type or out of range is taken, or is
        answered with anything but which member is wrong; or when any body makes the server fail."""
        values = {"item": "web", "hold": "x", "job": 1, "alarm": 1, "store": "second", "disk": 0, "nic": 0, "host": "rack", "site": "default", "bookmark": "x",
                  "export": "x", "agent": "x", "appliance": "x", "point": "latest", "notifier": "x", "user": "x", "token": "x",
                  "policy": "default", "plan": "x", "run": 1, "drill": 1, "step": "x", "attempt": "0" * 24, "group": "shop", "member": "x", "shared_point": "x"}
        values = {**values, **self.site()}
        tried = 0
        for method, path, operation, _ in self.description.operations():
            schema = self.description.body_schema(operation)
            if schema is None:
                continue
            target, name = self.fill(path, values), operation["operationId"]
            good = self.sample(name, schema)
            for member, rules in schema.get("properties", {}).items():
                for what, value in wrong_values(rules):
                    with self.subTest(operation=name, member=member, value=what):
                        body = copy.deepcopy(good)
                        body[member] = value
                        self.refused(f"{name}: {member} is {what}", method, target, member, body=body)
                        tried += 1
                if rules.get("type") == "object" and "properties" in rules:
                    with self.subTest(operation=name, member=f"{member}: unknown"):
                        self.refused(f"{name}: {member} with a member that it does not have", method, target,
                                     "mispelt", body={**good, member: {"mispelt": 1}})
                    for inner, inner_rules in rules["properties"].items():
                        for what, value in wrong_values(inner_rules):
                            with self.subTest(operation=name, member=f"{member}.{inner}", value=what):
                                self.refused(f"{name}: {member}.{inner} is {what}", method, target, inner,
                                             body={**good, member: {inner: value}})
                                tried += 1
            for member in schema.get("required", []):
                with self.subTest(operation=name, missing=member):
                    body = copy.deepcopy(good)
                    body.pop(member, None)
                    self.refused(f"{name} without {member}", method, target, member, body=body)
                    tried += 1
            with self.subTest(operation=name, member="unknown"):
                self.refused(f"{name} with a member that it does not have", method, target, "mispelt",
                             body={**good, "mispelt": 1})
            for what, raw in (("no JSON", b"{"), ("a list", b"[]"), ("a number", b"7"), ("text", b'"x"'),
                              ("no UTF-8", b'{"name": "\xff\xfe", "label": "\xff", "point": "\xff"}'),
                              ("deep", b"[" * 5000 + b"]" * 5000), ("NUL", b'{"a":"\x00"}'),
                              ("two documents", b"{}{}"), ("a huge one", b'{"a":"' + b"x" * (9 * MIB) + b'"}')):
                with self.subTest(operation=name, body=what):
                    self.refused_or_cut(f"{name}: the body is {what}", method, target, raw)
                    tried += 1
        self.assertGreater(tried, 200)
        self.assertEqual("web", self.farshore.call("item", "web")["name"], "nothing of it was done")

    def refused_or_cut(self, what, method, target, raw):
        """What is far too large need not be read to its end."""
        try:
            status, kind, document = self.call(method, target, raw=raw)
        except (OSError, http.client.HTTPException):
            self.assertGreater(len(raw), 8 * MIB, what)
            return
        self.assertIn(status, range(400, 500), f"{what}: {document}")
        self.assertEqual("application/problem+json", kind, what)

    @staticmethod
    def sample(name, schema):
        """A body whose other members are of no consequence: what it asks for cannot be."""
        sample = {}
        for member in schema.get("required", []):
            rules = schema["properties"][member]
            kind = rules.get("type")
            sample[member] = rules["enum"][0] if "enum" in rules else {
                "integer": rules.get("minimum", 0), "boolean": False, "array": [], "object": {}}.get(kind, "none")
        if name == "destroyKey":
            sample["confirm"] = "not its name"
        return sample

    def test_wrong_questions_are_refused(self):
        """Breaks when a query, a path or a method that cannot be makes the server fail or is taken."""
        values = self.site()
        for method, path, operation, parameters in self.description.operations():
            target, name = self.fill(path, values), operation["operationId"]
            for parameter in parameters:
                if parameter["in"] == "query" and method == "get":
                    kind = parameter["schema"].get("type")
                    for value in ("-1", "9" * 40, "x", "", "%00", "%ff") if kind == "integer" else ("%ff", "%00"):
                        with self.subTest(operation=name, parameter=parameter["name"], value=value):
                            status, _, document = self.call(method, f"{target}?{parameter['name']}={value}")
                            self.assertLess(status, 500, document)
                            if kind == "integer" and value not in ("", "9" * 40):
                                self.assertGreaterEqual(status, 400, f"{target}?{parameter['name']}={value}")
                if parameter["in"] == "path":
                    for value in ("%00", "%ff%fe", "x" * 300, "..%2f..%2fetc", "none", "-1", "%27%20OR%201=1"):
                        wrong = self.fill(path, {**values, parameter["name"]: value})
                        with self.subTest(operation=name, parameter=parameter["name"], value=value):
                            if method in ("get", "delete"):
                                self.refused(f"{name} of {value}", method, wrong)
            for other in METHODS:
                if other not in self.description.paths[path]:
                    with self.subTest(operation=name, method=other):
                        self.refused(f"{other} {target}", other, target, body={} if other != "get" else None)
        for target in ("/v1", "/v1/", "/v1/nothing", "/v2/items", "/v1/items/web/nothing", "//v1/items", "/v1/items//"):
            with self.subTest(target=target):
                self.refused(target, "get", target)

    def test_nobody_without_a_token_gets_anything(self):
        """Breaks when any operation but those for everybody answers somebody who shows no token, or a wrong
        one."""
        open_to_all = {"getHealth", "enrol", "login"}
        values = {"item": "web", "point": "latest", "hold": "x", "job": 1, "store": "x", "disk": 0, "nic": 0, "host": "rack", "site": "default", "bookmark": "x",
                  "export": "x", "agent": "x", "appliance": "x", "notifier": "x", "user": "x", "token": "x",
                  "policy": "x", "plan": "x", "run": 1, "drill": 1, "step": "x", "attempt": "x", "group": "x", "member": "x", "shared_point": "x"}
        tried = 0
        for method, path, operation, _ in self.description.operations():
            if operation["operationId"] in open_to_all or operation.get("security") == []:
                continue
            for token in (None, "", "wrong", self.token[:-1], self.token + "0", "é"):
                if token == "é":
                    token = "\u00e9".encode().decode("latin-1")
                with self.subTest(operation=operation["operationId"], token=token):
                    self.refused("without a token", method, self.fill(path, values), statuses=(401,), token=token,
                                 body={} if method != "get" else None)
                    tried += 1
        self.assertGreater(tried, 150)


    def test_old_tls_is_refused(self):
        """Breaks when somebody is spoken to over less than TLS 1.3."""
        for version, good in ((ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)):
            context = ssl.create_default_context(cafile=str(self.farshore.data / "pki/ca.crt"))
            context.minimum_version = context.maximum_version = version
            with socket.create_connection(("127.0.0.1", int(self.address.rsplit(":", 1)[1]))) as plain:
                if good:
                    with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                        self.assertEqual("TLSv1.3", secure.version())
                    continue
                with self.assertRaises((ssl.SSLError, ConnectionError)):
                    context.wrap_socket(plain, server_hostname="127.0.0.1").close()


if __name__ == "__main__":
    support.main()

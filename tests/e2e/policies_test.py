#!/usr/bin/env python3
"""End to end: policies that items follow, two operators at once, requests that are sent twice, what changes as it
does, and clients that hold up the server."""
import http.client
import json
import signal
import socket
import ssl
import subprocess
import threading
import uuid

import support
from support import EndToEnd, FarshoreError, Model, seeded

MIB = 1 << 20


class Policies(EndToEnd):
    def setUp(self):
        super().setUp()
        self.farshore.start_up()
        self.reach()

    def reach(self):
        server = json.loads((self.farshore.data / "server.json").read_text())
        self.address = server["address"].removeprefix("https://")
        self.context = ssl.create_default_context(cafile=str(self.farshore.data / "pki/ca.crt"))
        self.token = (self.farshore.data / "vault/admin.token").read_text().strip()

    def call(self, method, path, body=None, **headers):
        """(status, headers, document)"""
        connection = http.client.HTTPSConnection(self.address, context=self.context, timeout=60)
        try:
            sent = {"Authorization": f"Bearer {self.token}",
                    **{name.replace("_", "-"): value for name, value in headers.items()}}
            connection.request(method, path, json.dumps(body) if body is not None else None, sent)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        return response.status, response.headers, json.loads(text) if text else None

    def protect(self, name, *options):
        model = Model([MIB], seeded())
        directory = self.work / name
        directory.mkdir()
        arguments = [word for path in model.make_files(directory) for word in ("--disk", path)]
        return self.farshore.call("protect", name, *arguments, *options)

    def test_items_follow_their_policy(self):
        """Breaks when an item does not follow an edit of its policy, an edit is made without being shown or of
        another version than was shown, or a policy that is followed can be removed."""
        self.farshore.call("policy", "create", "gold", "--window", "15min", "--point-interval", "5s")
        self.assertEqual("gold", self.protect("web", "--policy", "gold")["policy_name"])
        self.assertEqual("default", self.protect("db")["policy_name"])
        self.assertEqual("custom", self.protect("own", "--window", "20min")["policy_name"])
        self.wait_state("web", "protected")
        preview = self.farshore.call("policy", "edit", "gold", "--window", "10min", "--rpo-threshold", "77s", "--preview")
        [shown] = preview["items"]
        self.assertEqual({"old": 900, "new": 600}, shown["changed"]["window_s"])
        self.assertIn("dropped", shown["points"])
        self.assertEqual(900, self.farshore.call("item", "web")["policy"]["window_s"])
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("policy", "edit", "gold", "--window", "10min")
        self.assertIn("--yes", refused.exception.remedy, "nobody can be asked")
        self.farshore.call("policy", "edit", "gold", "--window", "10min", "--yes")
        self.assertEqual(600, self.farshore.call("item", "web")["policy"]["window_s"])
        self.assertEqual(1200, self.farshore.call("item", "own")["policy"]["window_s"])
        assigned = self.farshore.call("policy", "assign", "gold", "own", "db", "--yes")
        self.assertEqual(3, assigned["items"])
        self.assertEqual(["db", "own", "web"], self.farshore.call("policy", "show", "gold")["followed_by"])
        self.assertEqual(["db", "own", "web"],
                         [item["name"] for item in self.farshore.call("items", "--policy", "gold")["items"]])
        self.assertEqual(["own"], [item["name"] for item in self.farshore.call("items", "--prefix", "o")["items"]])
        for name, word in (("gold", "'db'"), ("default", "built in")):
            with self.assertRaises(FarshoreError) as refused:
                self.farshore.call("policy", "remove", name)
            self.assertIn(word, str(refused.exception))
        self.farshore.call("set", "own", "--window", "20min")
        self.assertEqual("custom", self.farshore.call("item", "own")["policy_name"])
        self.assertEqual(["default", "gold"], [row["name"] for row in self.farshore.call("policy", "list")["policies"]])
        self.wait_state("web", "protected")

    def test_a_vault_that_is_killed_in_the_middle_of_edits_goes_on(self):
        """Breaks when a vault that dies while a policy is edited comes back with an item that has other values than
        its policy, or does not replicate any more."""
        self.farshore.call("policy", "create", "gold", "--window", "10min", "--point-interval", "5s")
        names = ["one", "two", "three"]
        for name in names:
            self.protect(name, "--policy", "gold")
        for name in names:
            self.wait_state(name, "protected")
        for round_number in range(3):
            edited = threading.Event()

            def edit():
                for window_s in range(601 + 100 * round_number, 700 + 100 * round_number):
                    try:
                        self.call("PUT", "/v1/policies/gold", {"policy": {"window_s": window_s}})
                    except (OSError, http.client.HTTPException):
                        return
                    edited.set()

            editor = threading.Thread(target=edit)
            editor.start()
            self.assertTrue(edited.wait(60))
            self.farshore.kill_servers("up")
            editor.join()
            self.farshore.start_up()
            self.reach()
            values = self.farshore.call("policy", "show", "gold")["policy"]
            for name in names:
                item = self.farshore.call("item", name)
                self.assertEqual(values, item["policy"], name)
                self.assertEqual("gold", item["policy_name"])
        for name in names:
            self.wait_state(name, "protected")

    def test_programs(self):
        """Breaks when an update is lost, a request that is sent twice is done twice, also over a restart, or one who
        listens misses what happens."""
        self.farshore.call("policy", "create", "gold")
        status, headers, policy = self.call("GET", "/v1/policies/gold")
        self.assertEqual(200, status)
        etag = headers["ETag"]
        self.assertEqual(etag, policy["etag"])
        self.assertEqual(304, self.call("GET", "/v1/policies/gold", If_None_Match=etag)[0])
        answers = []
        operators = [threading.Thread(target=lambda s=s: answers.append(
            self.call("PUT", "/v1/policies/gold", {"policy": {"window_s": s}}, If_Match=etag)[0])) for s in range(700, 706)]
        for one in operators:
            one.start()
        for one in operators:
            one.join()
        self.assertEqual([200] + [412] * 5, sorted(answers))
        key = str(uuid.uuid4())
        body = {"kind": "agent", "valid_s": 60}
        status, _, first = self.call("POST", "/v1/enrolment-tokens", body, Idempotency_Key=key)
        self.assertEqual(201, status)
        self.farshore.stop_servers("up")
        self.farshore.start_up()
        self.reach()
        status, headers, again = self.call("POST", "/v1/enrolment-tokens", body, Idempotency_Key=key)
        self.assertEqual((201, first, "true"), (status, again, headers["Idempotency-Replayed"]))
        status, _, refused = self.call("POST", "/v1/enrolment-tokens", {**body, "valid_s": 61}, Idempotency_Key=key)
        self.assertEqual((422, "idempotency-key-reused"), (status, refused["code"]))

        follower = subprocess.Popen(
            [str(self.farshore.binary), "events", "--follow", "--json", "--data", str(self.farshore.data)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True)
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        connection = http.client.HTTPSConnection(self.address, context=self.context, timeout=120)
        self.addCleanup(connection.close)
        connection.request("GET", "/v1/changes", headers={"Authorization": f"Bearer {self.token}"})
        stream = connection.getresponse()
        self.assertEqual("text/event-stream", stream.headers["Content-Type"])
        self.assertEqual(b"event: hello\n", stream.readline())
        # The follower may begin a little later: what it is to see is made until it does.
        seen = threading.Event()
        lines = []

        def read():
            for line in follower.stdout:
                lines.append(json.loads(line))
                seen.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        made = 0
        while not seen.wait(1):
            made += 1
            self.assertLess(made, 60, "nothing was followed")
            self.farshore.call("policy", "create", f"p{made}")
        self.assertEqual("policy-created", lines[0]["code"])
        told = b""
        while b"'p1' was made" not in told:
            line = stream.readline()
            self.assertTrue(line, "the stream ended")
            told += line
        self.assertIn(b"\nid: ", told)
        follower.send_signal(signal.SIGINT)

    def test_slow_clients_do_not_hold_up_others(self):
        """Breaks when many connections that send a byte now and then keep others from being served, or stay open
        past the deadline for a header; or when one address can take all connections."""
        host, port = self.address.rsplit(":", 1)
        slow = []
        for _ in range(100):
            connection = self.context.wrap_socket(socket.create_connection((host, int(port)), timeout=60),
                                                  server_hostname=host)
            connection.sendall(b"GET /v1/health HT")
            slow.append(connection)
        self.addCleanup(lambda: [one.close() for one in slow])
        for _ in range(10):
            for one in slow:
                try:
                    one.sendall(b"T")
                except OSError:
                    pass
            self.assertEqual(200, self.call("GET", "/v1/items")[0])
        for one in slow:
            try:
                self.assertEqual(b"", one.recv(100))
            except ConnectionError:
                pass
        self.assertEqual(200, self.call("GET", "/v1/items")[0])

    def test_a_stranger_with_a_certificate_is_refused(self):
        """Breaks when somebody with a client certificate of another authority is let in, or TLS 1.2 is spoken."""
        key, certificate = self.work / "stranger.key", self.work / "stranger.crt"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=appliance-1"],
                       check=True, capture_output=True)
        context = ssl.create_default_context(cafile=str(self.farshore.data / "pki/ca.crt"))
        context.load_cert_chain(certificate, key)
        connection = http.client.HTTPSConnection(self.address, context=context, timeout=60)
        self.addCleanup(connection.close)
        with self.assertRaises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            connection.request("GET", "/v1/health")
            connection.getresponse()
        self.assertEqual(200, self.call("GET", "/v1/health")[0])


if __name__ == "__main__":
    support.main()

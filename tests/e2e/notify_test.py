#!/usr/bin/env python3
"""End to end: who is told of events, by real servers that fail, hang and come back."""
import base64
import hashlib
import hmac
import http.server
import json
import pathlib
import socket
import ssl
import subprocess
import sys
import threading
import time

import support
from support import EndToEnd, FarshoreError, Model, seeded

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "services"))
from smtp import SmtpServer    # noqa: E402 pylint: disable=wrong-import-position


class Webhook:
    """Takes POSTs; answers what it is told to, or nothing for a while."""

    def __init__(self):
        self.taken, self.answer, self.hang, self.waiting = [], 200, threading.Event(), False
        self.hang.set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.waiting = not outer.hang.is_set()
                outer.hang.wait()
                if outer.answer == 200:
                    outer.taken.append((self.headers["Farshore-Signature"], body))
                self.send_response(outer.answer)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def events(self):
        return [event for _, body in self.taken for event in json.loads(body)["events"]]

    def stop(self):
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()


class MailServer:
    """SMTP with STARTTLS and AUTH PLAIN, as much as a submission takes."""

    def __init__(self, certificate, key, user, password):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.login = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self.mails, self.plain_attempts = [], 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        secure = signed_in = False
        sender, receivers = "", []
        lines = connection.makefile("rb")

        def say(text):
            connection.sendall(text.encode() + b"\r\n")
        say("220 test")
        while True:
            try:
                line = lines.readline().decode().rstrip("\r\n")
            except OSError:
                return
            word = line.upper()
            if not line or word == "QUIT":
                return connection.close()
            if word.startswith("EHLO"):
                say("250-test\r\n250 " + ("AUTH PLAIN" if secure else "STARTTLS"))
            elif word == "STARTTLS":
                say("220 go")
                try:
                    connection = self.context.wrap_socket(connection, server_side=True)
                except OSError:
                    return
                lines, secure = connection.makefile("rb"), True
            elif word.startswith("AUTH PLAIN"):
                given = line.split(" ")[2] if line.count(" ") > 1 else ""
                if not given:
                    say("334 ")
                    given = lines.readline().decode().strip()
                signed_in = given == self.login
                say("235 ok" if signed_in else "535 no")
            elif word.startswith("MAIL FROM"):
                self.plain_attempts += not secure
                sender, receivers = line[10:], []
                say("250 ok" if secure and signed_in else "530 sign in first")
            elif word.startswith("RCPT TO"):
                receivers.append(line[8:])
                say("250 ok")
            elif word == "DATA":
                say("354 go on")
                body = b""
                while not body.endswith(b"\r\n.\r\n"):
                    body += lines.readline()
                self.mails.append((sender, receivers, body.decode()))
                say("250 taken")
            else:
                say("250 ok")

    def stop(self):
        self.listener.close()


class Notifications(EndToEnd):
    def settings(self, name, **fields):
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(fields))
        path.chmod(0o600)
        return path

    def something_happens(self, name):
        """An event: a store is added."""
        (self.work / name).mkdir()
        self.farshore.call("store", "add", name, self.work / name)

    def hook(self):
        hook = Webhook()
        self.addCleanup(hook.stop)
        return hook

    def told(self, hook, word):
        self.farshore.wait_for(f"the webhook hears of {word}",
                               lambda: any(word in event["cause"] for event in hook.events()), 90)

    def test_a_webhook_hears_of_everything_signed_and_in_order(self):
        """Breaks when an event is lost while a webhook fails or hangs, or the vault dies; when a message cannot
        be told from a forged one; or when one that hangs keeps another from being told."""
        self.farshore.start_up()
        hook, other = self.hook(), self.hook()
        secret = self.settings("hook", secret="shared-secret")
        self.something_happens("before")
        for name, server in (("one", hook), ("other", other)):
            self.farshore.call("notify", "add-webhook", name, server.url, "--settings", secret, "--severity",
                               "information")
        self.something_happens("first")
        self.told(hook, "'first'")
        self.told(other, "'first'")
        self.assertFalse(any("'before'" in event["cause"] for event in hook.events()), "only from then on")
        for signature, body in hook.taken:
            fields = dict(part.split("=") for part in signature.split(","))
            expected = hmac.new(b"shared-secret", fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
            self.assertEqual(expected, fields["v1"])
            self.assertLess(abs(time.time() - int(fields["t"])), 120)
        # It fails, and hangs, and the vault is killed.
        hook.answer = 503
        self.something_happens("second")
        self.farshore.wait_for("the failure is shown", lambda: self.shown("one").get("error"), 60)
        hook.hang.clear()
        self.farshore.kill_servers("up")
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        self.something_happens("third")
        self.told(other, "'third'")
        hook.answer = 200
        hook.hang.set()
        self.told(hook, "'second'")
        self.told(hook, "'third'")
        # What it took after the vault had given up comes again, with the same id.
        ids = list(dict.fromkeys(event["id"] for event in hook.events()))
        self.assertEqual(ids, sorted(ids))
        self.farshore.wait_for("it is well again", lambda: not self.shown("one").get("error"), 60)
        # One that hangs does not keep the vault from ending.
        hook.hang.clear()
        self.something_happens("fourth")
        self.farshore.wait_for("it is being told", lambda: hook.waiting, 60)
        self.farshore.stop_servers("up")
        hook.hang.set()
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        self.farshore.call("notify", "remove", "one")
        self.assertEqual(["other"], [row["name"] for row in self.farshore.call("notify", "list")["notifiers"]])
        for log in (self.work / "logs").glob("*.log"):
            self.assertNotIn("shared-secret", log.read_text())

    def shown(self, name):
        return next(row for row in self.farshore.call("notify", "list")["notifiers"] if row["name"] == name)

    def test_mail_goes_by_tls_to_all_receivers(self):
        """Breaks when a mail goes without TLS or to somebody else, a wrong certificate or password is taken, or
        the reason is not said."""
        certificate, key = self.work / "mail.crt", self.work / "mail.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
                       check=True, capture_output=True)
        server = MailServer(certificate, key, "farshore", "mail-password")
        self.addCleanup(server.stop)
        url = f"smtp://localhost:{server.port}"
        self.farshore.start_up()
        good = {"server": url, "from": "vault@example.com", "user": "farshore", "password": "mail-password",
                "ca_file": "mail.crt"}
        self.farshore.call("notify", "add-mail", "ops", "a@example.com, b@example.com", "--settings",
                           self.settings("good", **good), "--severity", "information")
        self.something_happens("first")
        self.farshore.wait_for("the mail arrives", lambda: server.mails, 60)
        sender, receivers, text = server.mails[0]
        self.assertIn("<vault@example.com>", sender)
        self.assertEqual(["<a@example.com>", "<b@example.com>"], [one.strip() for one in receivers])
        self.assertIn("Subject: Farshore information: store-added", text)
        self.assertIn("'first'", text)
        for name, change, code in (("untrusted", {"ca_file": None}, "unauthenticated"),
                                   ("password", {"password": "wrong"}, "unauthenticated"),
                                   ("nobody", {"server": "smtp://localhost:9"}, "unavailable")):
            fields = {key: value for key, value in {**good, **change}.items() if value is not None}
            self.farshore.call("notify", "add-mail", name, "c@example.com", "--settings", self.settings(name, **fields))
            with self.subTest(name), self.assertRaises(FarshoreError) as failed:
                self.farshore.call("notify", "test", name)
            self.assertEqual(code, failed.exception.code, failed.exception)
        self.assertEqual(0, server.plain_attempts)
        for arguments, code in (
                (("add-webhook", "x", "http://example.com/hook"), "invalid-argument"),
                (("add-webhook", "X Y", "https://example.com/hook"), "invalid-argument"),
                (("add-mail", "x", "nobody"), "invalid-argument"),
                (("add-mail", "ops", "a@example.com"), "already-exists")):
            with self.subTest(arguments=arguments), self.assertRaises(FarshoreError) as failed:
                self.farshore.call("notify", *arguments, "--settings",
                                   self.settings("both", secret="s", **good))
            self.assertEqual(code, failed.exception.code, failed.exception)
        loose = self.settings("loose", secret="s")
        loose.chmod(0o644)
        with self.assertRaises(FarshoreError) as failed:
            self.farshore.call("notify", "add-webhook", "x", "https://example.com/hook", "--settings", loose)
        self.assertEqual("forbidden", failed.exception.code)


    def test_an_rpo_breach_and_its_end_are_told(self):
        """Breaks when an RPO over its threshold is not told by webhook and mail, or told again and again;
        when somebody who has seen it cannot say so; or when nobody hears that it is over."""
        model = Model([1 << 20], seeded())
        self.farshore.start_split(self.work / "site")
        server = SmtpServer(self.work / "mail")
        server.__enter__()    # pylint: disable=unnecessary-dunder-call
        self.addCleanup(server.__exit__)
        hook = self.hook()
        self.farshore.call("notify", "add-webhook", "hook", hook.url, "--settings",
                           self.settings("hook", secret="s"), "--severity", "critical")
        self.farshore.call(
            "notify", "add-mail", "ops", "ops@example.com", "--settings",
            self.settings("ops", server=server.url, user=server.user, password=server.password, ca_file=str(server.ca),
                          **{"from": "vault@example.com"}))
        path = model.make_files(self.work)[0]
        self.farshore.call("protect", "web", "--disk", path, "--rpo-threshold", 5)
        self.wait_state("web", "protected")
        self.farshore.kill_servers("agent")

        def standing():
            return {alarm["code"]: alarm for alarm in self.farshore.call("alarms")["alarms"]}
        self.farshore.wait_for("both alarms stand", lambda: {"rpo-high", "agent-lost"} <= set(standing()), 90)
        self.farshore.wait_for("the RPO is critical",
                               lambda: standing()["rpo-high"]["severity"] == "critical", 90)
        alarm = standing()["rpo-high"]
        self.farshore.call("alarm", "acknowledge", alarm["id"], "--note", "looking")
        self.assertEqual("looking", standing()["rpo-high"]["note"])
        self.farshore.wait_for("the webhook heard", lambda: any(
            event["code"] == "rpo-high" for event in hook.events()), 60)
        self.farshore.wait_for("the mail came", lambda: any("rpo-high" in mail["text"] for mail in server.mails), 120)
        self.assertEqual(["ops@example.com"], server.mails[0]["to"])

        self.farshore.restart_server("agent")
        self.farshore.wait_for("nothing is wrong any more", lambda: not standing(), 120)
        self.farshore.wait_for("the webhook heard the all-clear", lambda: any(
            event["code"] == "critical-alarm-cleared" and "rpo-high" in event["cause"] for event in hook.events()), 60)
        self.farshore.wait_for("so did the mail", lambda: any(
            "critical-alarm-cleared" in mail["text"] for mail in server.mails), 120)
        told = [event["code"] for event in hook.events()]
        self.assertEqual(1, told.count("rpo-high"), told)    # as a warning it is not for this one
        self.assertEqual(1, told.count("agent-lost"), told)
        log = (self.work / "logs/vault.log").read_text()
        self.assertNotIn(server.password, log)


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""A mail server (npm's smtp-server) for tests: STARTTLS, a user and a password.

As a module: `with SmtpServer(directory) as server: …`; server.url, .ca, .user, .password, .mails. Needs
node and npm; the packages are those of package-lock.json beside this file."""
import json
import pathlib
import secrets
import subprocess
import threading

from azurite import installed_program, make_authority

HERE = pathlib.Path(__file__).resolve().parent


class SmtpServer:
    user = "alerts"

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.password = secrets.token_urlsafe(16)
        self.mails = []    # {"from", "to", "text"}
        self.process = self.url = self.ca = None

    def __enter__(self):
        modules = next(parent for parent in installed_program().parents if parent.name == "node_modules")
        self.ca, certificate, key = make_authority(self.directory)
        secret = self.directory / "password"
        secret.write_text(self.password)
        secret.chmod(0o600)
        self.process = subprocess.Popen(    # pylint: disable=consider-using-with
            ["node", HERE / "smtp.js", modules, certificate, key, self.user, secret],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.url = f"smtp://127.0.0.1:{int(self.process.stdout.readline())}"
        threading.Thread(target=self.take, daemon=True).start()
        return self

    def take(self):
        for line in self.process.stdout:
            self.mails.append(json.loads(line))

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

#!/usr/bin/env python3
"""End to end: what vault, appliance and agent say of themselves to monitoring, in logs and in a support bundle."""
import json
import os
import re
import ssl
import tarfile
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

import support
from farshore import free_port
from support import ROOT, EndToEnd, FarshoreError, Model, seeded

MIB = 1 << 20
DOCUMENT = ROOT / "docs/operations/metrics.md"
# What a part says only when it is so: several nodes, a limit, a copy that runs.
SELDOM = {"farshore_vault_node", "farshore_intake_upload_limit_bytes_per_second"}


def documented():
    """{name: (type, labels)} of the tables of the document."""
    rows = re.findall(r"^\| `(farshore_\w+)` \| (\w+) \| [^|]+ \| ([^|]*) \|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


class Observed(EndToEnd):
    def start_three(self, *vault_options):
        """Vault, appliance and agent apart, with an item that is protected and was written to."""
        rng = seeded()
        self.ports = {part: free_port() for part in ("appliance", "agent")}
        listen = {part: ("--metrics-listen", f"127.0.0.1:{port}", "--log-format", "json")
                  for part, port in self.ports.items()}
        self.farshore.start_vault("--log-format", "json", *vault_options)
        self.farshore.start_site(self.work / "site", ("appliance", "agent"), appliance_options=listen["appliance"],
                                 agent_options=listen["agent"])
        self.model = Model([4 * MIB], rng)
        self.disks = [word for path in self.model.make_files(self.work) for word in ("--disk", path)]
        self.farshore.call("protect", "web", *self.disks)
        self.item = self.wait_state("web", "protected")
        (client,) = self.open_disks("web")
        for _ in range(20):
            self.model.random_step([client], rng)
        client.flush()
        self.farshore.call("point", "web", "--bookmark", "here")

    def plain(self, part, path="/metrics", method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[part]}{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            self.assertEqual("text/plain; version=0.0.4; charset=utf-8", answer.headers["Content-Type"])
            return answer.read().decode()

    def of_vault(self):
        server = json.loads((self.farshore.data / "server.json").read_text())
        token = (self.farshore.data / server["token_file"]).read_text().strip() if "token_file" in server else \
            (self.farshore.data / "vault/admin.token").read_text().strip()
        request = urllib.request.Request(f"{server['address']}/metrics", headers={"Authorization": f"Bearer {token}"})
        trust = ssl.create_default_context(cafile=self.farshore.data / server["ca"])
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
            return answer.read().decode()

    def lines(self, name):
        """Of a server's log, each of which must be a JSON object."""
        text = (self.work / f"logs/{name}.log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def test_numbers_are_as_documented(self):
        """Breaks when Prometheus cannot read a part, a number is not in the document or is another one than it
        says, or the document has one that nobody says."""
        self.start_three()
        self.farshore.call("scrub", "web", "--now")    # a job
        said, introduced = {}, set()
        known = documented()
        texts = {"vault": self.of_vault(), **{part: self.plain(part) for part in self.ports}}
        for part, text in texts.items():
            for family in text_string_to_metric_families(text):
                counter = family.type == "counter"
                name = f"{family.name}_total" if counter else family.name
                self.assertIn(name, known, part)
                introduced.add(name)
                kind, labels = known[name]
                self.assertEqual(kind, family.type, name)
                for sample in family.samples:
                    of = re.sub("_(bucket|sum|count)$", "", sample.name) if kind == "histogram" else sample.name
                    self.assertEqual((name, labels), (of, set(sample.labels) - {"le"}), part)
                    said.setdefault(name, []).append((part, sample.labels, sample.value))
        self.assertEqual(set(known), introduced)
        self.assertEqual(set(known) - SELDOM, set(said) - SELDOM)

        value = {(name, part): number for name, samples in said.items() for part, _, number in samples
                 if len(samples) == 1}
        self.assertEqual(1, value["farshore_agent_connected", "agent"])
        self.assertEqual(1, value["farshore_send_connected", "agent"])
        self.assertEqual(1, value["farshore_appliance_agents", "appliance"])
        self.assertEqual(0, value["farshore_vault_database_trouble", "vault"])
        self.assertEqual(256 * MIB, value["farshore_capture_ring_size_bytes", "agent"])
        self.assertGreater(value["farshore_capture_written_bytes_total", "agent"], 0)
        self.assertGreater(value["farshore_intake_uploaded_bytes_total", "appliance"], 0)
        puts = {part: number for part, labels, number in said["farshore_store_requests_total"]
                if labels["kind"] == "put"}
        self.assertGreater(puts["appliance"], 0)
        # The dashboard joins by it.
        self.assertEqual({"item": "web", "item_id": self.item["id"], "capture": "in-path"},
                         said["farshore_item_info"][0][1])
        self.assertEqual(self.item["id"], said["farshore_intake_connected"][0][1]["item_id"])
        self.assertEqual(self.item["id"], said["farshore_capture_state"][0][1]["item_id"])

        for path, method, status in (("/", "GET", 404), ("/v1/items", "GET", 404), ("/metrics", "POST", 405)):
            with self.assertRaises(urllib.error.HTTPError) as refused:
                self.plain("agent", path, method)
            self.assertEqual(status, refused.exception.code)
            refused.exception.close()

    def test_a_job_is_found_in_the_log(self):
        """Breaks when a program cannot find in the vault's log what a failover did, or a line is no JSON."""
        self.start_three()
        job = self.farshore.call("failover", "test", "web", "--point", "here")
        self.farshore.call("failover", "cleanup", "web")
        of_job = [line for line in self.lines("vault") if line.get("job") == job["id"]]
        self.assertEqual(2, len(of_job), of_job)
        for line, words in zip(of_job, ("begins", "has ended")):
            self.assertEqual(("web", self.item["id"], "vault", "info"),
                             (line["item"], line["item_id"], line["part"], line["level"]))
            self.assertIn(words, line["message"])
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        events = [line for line in self.lines("vault") if line.get("code") == "test-failover-started"]
        self.assertEqual(["web"], [line["item"] for line in events])
        self.assertTrue(any(line.get("agent") == "demo-agent" for line in self.lines("agent")))
        self.assertTrue(any(line.get("appliance") == "demo-appliance" for line in self.lines("appliance")))

    def bundle(self, name, *options):
        """{member: text} of a bundle, and its document; nobody else may read any of it."""
        path = self.work / f"{name}.tar.gz"
        document = self.farshore.call("support-bundle", "--output", path, "--config-directory", self.config,
                                      "--log", self.work / "logs/vault.log", *options)
        self.assertEqual(str(path), document["file"])
        self.assertEqual(0o600, path.stat().st_mode & 0o777)
        self.assertFalse(path.with_name(path.name + ".parts").exists())
        with tarfile.open(path) as archive:
            members = {entry.name.split("/", 1)[1]: archive.extractfile(entry).read().decode()
                       for entry in archive if entry.isfile()}
            for entry in archive:
                self.assertEqual(0, entry.mode & 0o077, entry.name)
        self.assertEqual(set(document["members"]), set(members) - {"MISSING"})
        self.assertEqual(bool(document["missing"]), "MISSING" in members)
        return members, document

    def private(self, name, document):
        path = self.work / name
        path.write_text(json.dumps(document) if isinstance(document, dict) else document)
        path.chmod(0o600)
        return path

    def plant(self):
        """Secrets of every kind, where they belong; their texts."""
        secrets = {kind: f"PLANTED-{kind}-{os.urandom(6).hex()}"
                   for kind in ("proxy", "smtp", "webhook", "chat", "store", "passphrase", "user")}
        self.config = self.work / "etc"
        self.config.mkdir()
        mail = self.private("mail.json", {"server": "smtp://127.0.0.1:9", "from": "f@example.com", "user": "u",
                                          "password": secrets["smtp"]})
        hook = self.private("hook.json", {"secret": secrets["webhook"]})
        proxy = self.private("proxy.json", {"user": "u", "password": secrets["proxy"]})
        store = self.private("store.json", {"endpoint": "http://127.0.0.1:9", "access_key_id": "id",
                                            "secret_access_key": secrets["store"], "timeout_s": 1,
                                            "connect_timeout_s": 1})
        passphrase = self.private("passphrase", secrets["passphrase"])
        (self.config / "vault.toml").write_text(
            f"data = '{self.farshore.data}'\nkey-source = 'passphrase:{passphrase}'\n"
            f"database = 'postgresql://u:{secrets['user']}@h/d'\n")
        (self.config / "appliance.toml").write_text(
            f"data = '{self.work}/site/appliance'\nproxy = 'http://proxy:3128'\nproxy-settings = '{proxy}'\n"
            f"store = 's3://bucket'\nstore-settings = '{store}'\nvault = 'https://v:8443'\n"
            f"metrics-listen = '127.0.0.1:{self.ports['appliance']}'\n")
        self.farshore.call("notify", "add-mail", "mail", "to@example.com", "--settings", mail)
        # Both fail, and say so in log and events.
        self.farshore.call("notify", "add-webhook", "chat", f"http://127.0.0.1:9/{secrets['chat']}", "--settings", hook)
        for name in ("mail", "chat"):
            with self.assertRaises(FarshoreError):
                self.farshore.call("notify", "test", name)
        password = self.private("password", secrets["user"])
        self.farshore.call("user", "add", "somebody", "--password-file", password)
        secrets["enrolment"] = self.farshore.new_token("agent")
        secrets["access"] = self.farshore.call("access-token", "create", "t")["token"]
        secrets["admin"] = (self.farshore.data / "vault/admin.token").read_text().strip()
        secrets["key"] = (self.farshore.data / "vault/key").read_text().strip().splitlines()[-1]
        secrets["identity"] = (self.work / "site/agent/identity.key").read_text().splitlines()[1]
        return secrets

    def test_a_bundle_has_all_but_secrets(self):
        """Breaks when whoever helps is sent a secret, or lacks what he asks for first."""
        self.start_three()
        secrets = self.plant()
        members, document = self.bundle("up", "--audit")
        for kind, secret in secrets.items():
            for name, text in members.items():
                self.assertNotIn(secret, text, f"{kind} is in {name}")
                self.assertNotIn("PLANTED", text, name)
        self.assertEqual("web", json.loads(members["api/items.json"])["items"][0]["name"])
        self.assertTrue(any(event["code"] for event in json.loads(members["api/events.json"])["events"]))
        self.assertIn("POST", {row["method"] for row in json.loads(members["api/audit.json"])["audit"]})
        self.assertEqual(["chat", "mail"],
                         sorted(n["name"] for n in json.loads(members["api/notifiers.json"])["notifiers"]))
        self.assertIn("farshore_item_info", members["metrics/vault.txt"])
        self.assertIn("farshore_appliance_info", members["metrics/appliance.txt"])
        self.assertIn('"part":"vault"', members["logs/vault.log"])
        configured = json.loads(members["configuration/appliance.json"])
        self.assertEqual("http://proxy:3128", configured["settings"]["proxy"])
        self.assertEqual("(not shown)", configured["store"]["secret_access_key"])
        missing = {one["member"]: one["error"]["code"] for one in document["missing"]}
        # Nobody is at the store that the file names.
        self.assertEqual("unavailable", missing["store-check/appliance.json"])
        self.assertIn("configuration/agent.json", missing)

        self.farshore.stop_servers("vault")
        members, document = self.bundle("down")
        self.assertIn("api: unavailable", members["MISSING"])
        self.assertIn('"part":"vault"', members["logs/vault.log"])
        self.assertIn("farshore_appliance_info", members["metrics/appliance.txt"])
        self.assertIn("configuration/vault.json", members)


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""End to end, with the store in Azure Blob storage (Azurite, over HTTPS)."""
import json
import pathlib
import subprocess
import sys

import support
from farshore import free_port
from support import BINARY, ROOT, EndToEnd, Model, seeded

sys.path[:0] = [str(ROOT / "tests/services")]

from azurite import Azurite  # noqa: E402

MIB = 1 << 20
CONTAINER = "farshore"


class AzureStore(EndToEnd):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.service_directory = support.tempfile.mkdtemp(prefix="farshore-azurite-")
        cls.addClassCleanup(support.shutil.rmtree, cls.service_directory, ignore_errors=True)
        cls.azurite = Azurite(cls.service_directory)
        cls.addClassCleanup(cls.azurite.stop)
        cls.azurite.start()
        cls.azurite.make_container(CONTAINER)

    def setUp(self):
        super().setUp()
        self.prefix = f"{self.id().rsplit('.', 1)[1].replace('_', '-')[:60]}"
        self.location = f"azure://{self.azurite.account}/{CONTAINER}/{self.prefix}"
        self.settings_file = self.work / "store.json"

    def settings(self, **other):
        self.settings_file.write_text(json.dumps(self.azurite.settings(**other)))
        self.settings_file.chmod(0o600)
        return ["--store-settings", self.settings_file]

    def start_up(self, location=None, **other):
        self.farshore.start_up("--store", location or self.location, *self.settings(**other))

    def refused_up(self, location=None, **other):
        """What `up` says when it cannot start."""
        done = subprocess.run(
            [str(BINARY), "up", "--data", str(self.farshore.data), "--listen",
             f"127.0.0.1:{free_port()}", "--replication-listen", f"127.0.0.1:{free_port()}",
             "--shared-dir", str(self.farshore.rings), "--store", location or self.location,
             *map(str, self.settings(**other))],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
            env=self.farshore.environment)
        self.assertNotEqual(0, done.returncode, done.stderr)
        for secret in (self.azurite.key, *filter(None, (other.get("account_key"), other.get("sas")))):
            self.assertNotIn(secret.split("sig=")[-1], done.stdout + done.stderr)
        return done.stderr

    def own_blobs(self):
        return [n for n in self.azurite.blob_names(CONTAINER) if n.startswith(self.prefix + "/")]

    def protect(self, model):
        paths = model.make_files(self.work)
        self.farshore.call("protect", "web", *[word for p in paths for word in ("--disk", p)],
                           "--point-interval", 2)
        self.wait_state("web", "protected")

    def bookmark(self, label, model, clients, rng, steps=40):
        for _ in range(steps):
            model.random_step(clients, rng)
        self.farshore.call("point", "web", "--bookmark", label)
        return model.copy()

    def test_points_are_the_disks_of_their_moment(self):
        """Breaks when anything that is put, listed or read in ranges comes back wrong."""
        rng = seeded()
        model = Model([2 * MIB + 512, MIB], rng)
        self.start_up()
        self.protect(model)
        clients = self.open_disks("web")
        expected = {label: self.bookmark(label, model, clients, rng) for label in ("one", "two", "three")}
        for label, disks in expected.items():
            self.assert_point("web", label, disks)
        for client in clients:
            client.close()
        # Once more by a process that must read all it knows from there.
        self.farshore.stop_servers("up")
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        self.wait_state("web", "protected")
        for label, disks in expected.items():
            self.assert_point("web", label, disks)
        self.assertIn(f"{self.prefix}/farshore-store", self.own_blobs())
        self.farshore.call("unprotect", "web")
        self.farshore.wait_for("the item's objects are gone", lambda: not any(
            "/items/" in name for name in self.own_blobs()), 120)

    def test_what_the_service_refuses_is_said_and_nothing_is_left(self):
        """Breaks when a mistake in the settings is not named, or leaves half a store behind."""
        other = Azurite(self.work / "other", account=self.azurite.account)
        for words, options in (
                ("see that key or signature are this account's", {"account_key": other.key}),
                ("the account key is not base64", {"account_key": "half-a-key"}),
                ("expired at", {"account_key": None, "sas": self.azurite.sas(CONTAINER, ends_in_s=-60)}),
                ("AuthorizationPermissionMismatch",
                 {"account_key": None, "sas": self.azurite.sas(CONTAINER, "rl")}),
                ("certificate", {"ca_file": str(other.ca)})):
            text = self.refused_up(**options)
            self.assertIn(words, text)
            self.assertEqual([], self.own_blobs(), words)
        text = self.refused_up(location=f"azure://{self.azurite.account}/no-such-container")
        self.assertIn("ContainerNotFound", text)
        self.assertIn("make the container", text)
        # The same data directory then takes the right ones.
        self.start_up()

    def test_a_store_that_may_only_be_read_is_not_claimed(self):
        """Breaks when a vault starts on a store that it cannot write, or changes it."""
        self.start_up()
        self.farshore.stop_servers("up")
        before = self.own_blobs()
        text = self.refused_up(account_key=None, sas=self.azurite.sas(CONTAINER, "rl"))
        self.assertIn("forbidden", text)
        self.assertIn("AuthorizationPermissionMismatch", text)
        self.assertEqual(before, self.own_blobs())

    def test_an_outage_of_the_service_loses_nothing(self):
        """Breaks when what could not be stored is forgotten, or stored out of order."""
        rng = seeded()
        model = Model([MIB], rng)
        self.start_up()
        self.protect(model)
        clients = self.open_disks("web")
        before = self.bookmark("before", model, clients, rng)
        self.azurite.stop()
        for _ in range(60):
            model.random_step(clients, rng)
        self.azurite.start()
        after = self.bookmark("after", model, clients, rng)
        self.assert_point("web", "before", before)
        self.assert_point("web", "after", after)

    def test_a_signature_that_ends_while_running_is_named_and_replaced(self):
        """Breaks when an expired SAS stops a machine, is not said, or cannot be mended."""
        rng = seeded()
        model = Model([MIB], rng)
        self.start_up(account_key=None, sas=self.azurite.sas(CONTAINER, ends_in_s=25))
        self.protect(model)
        clients = self.open_disks("web")
        before = self.bookmark("before", model, clients, rng)
        log = pathlib.Path(self.farshore.log_directory / "up.log")

        def noticed():
            model.random_step(clients, rng)
            return "shared access signature expired" in log.read_text(errors="replace")
        self.farshore.wait_for("the log says that the signature expired", noticed, 120)
        self.farshore.stop_servers("up")
        self.settings(account_key=None, sas=self.azurite.sas(CONTAINER))
        self.farshore.restart_server("up")
        self.farshore.wait_until_serving()
        for client in clients:
            client.close()
        clients = self.open_disks("web")
        after = self.bookmark("after", model, clients, rng)
        self.assert_point("web", "before", before)
        self.assert_point("web", "after", after)


if __name__ == "__main__":
    support.main()

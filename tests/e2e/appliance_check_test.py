#!/usr/bin/env python3
"""End to end, behind a proxy: a source site in a network namespace of its own from which only an HTTP
proxy with a password can be reached. Vault and store (Azurite over TLS) are on the machine's loopback."""
import json
import os
import subprocess
import sys

import support
from farshore import free_port
from support import BINARY, ROOT, EndToEnd, Model, seeded

sys.path[:0] = [str(ROOT / "tests/services")]

from azurite import Azurite, make_authority  # noqa: E402
from connect_proxy import ConnectProxy  # noqa: E402

MIB = 1 << 20


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, stdin=subprocess.DEVNULL)


class BehindAProxy(EndToEnd):
    def setUp(self):
        super().setUp()
        number = os.getpid() % 16000
        self.space = f"fs-check-{number}"
        base = number * 4
        outside, inside = (f"10.231.{base // 256}.{base % 256 + i}" for i in (1, 2))
        ip("netns", "add", self.space)
        self.addCleanup(ip, "netns", "del", self.space)
        link = f"fsc{number}"
        ip("link", "add", link, "type", "veth", "peer", "name", f"{link}i", "netns", self.space)
        ip("addr", "add", f"{outside}/30", "dev", link)
        ip("link", "set", link, "up")
        for words in (("addr", "add", f"{inside}/30", "dev", f"{link}i"), ("link", "set", f"{link}i", "up"),
                      ("link", "set", "lo", "up")):
            ip("-n", self.space, *words)
        self.proxy = ConnectProxy(outside, user="site", password="SEKRET-1")
        self.addCleanup(self.proxy.close)
        self.azurite = Azurite(self.work / "azurite")
        self.addCleanup(self.azurite.stop)
        self.azurite.start()
        self.azurite.make_container("store")
        self.store = ["--store", f"azure://{self.azurite.account}/store", "--store-settings",
                      self.private("store", self.azurite.settings())]
        self.login = self.private("proxy", {"user": "site", "password": "SEKRET-1"})
        self.farshore.store_options = self.store
        self.farshore.start_vault()
        server = json.loads((self.farshore.data / "server.json").read_text())
        self.vault = server["address"]
        self.ca = self.farshore.data / server["ca"]
        self.listen = f"127.0.0.1:{free_port()}"

    def private(self, name, document):
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return path

    def check(self, *more, vault=None, ca=None, store=None, proxy=None, login=None, data=None):
        """(exit code, {purpose: {step: (state, code)}}) of the verb inside of the namespace."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.space, str(BINARY), "appliance", "check", "--json",
             "--data", str(data or self.work / "site/appliance"), "--vault", vault or self.vault,
             "--ca", str(ca or self.ca), *map(str, store or self.store), "--proxy", proxy or self.proxy.url,
             "--proxy-settings", str(login or self.login), "--replication-listen", self.listen, *more],
            capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)
        self.assertNotIn("SEKRET", done.stdout + done.stderr)
        self.assertTrue(done.stdout, done.stderr)
        document = json.loads(done.stdout)
        self.assertEqual(done.returncode == 0, document["ok"], document)
        return done.returncode, {one["purpose"]: {s["name"]: (s["state"], s.get("code")) for s in one["steps"]}
                                 for one in document["endpoints"]}

    def failures(self, *more, **options):
        exit_code, found = self.check(*more, **options)
        failed = {(purpose, step): code for purpose, steps in found.items()
                  for step, (state, code) in steps.items() if state == "failed"}
        self.assertEqual(exit_code != 0, bool(failed), found)
        return failed

    def test_each_cut_is_named_at_its_step(self):
        """Breaks when a site could not tell which of proxy, vault and store keeps its appliance away."""
        exit_code, found = self.check()
        self.assertEqual(0, exit_code, found)
        self.assertEqual(["resolve", "connect"], list(found["proxy"]))
        for purpose in ("vault", "store"):
            self.assertEqual(["resolve", "connect", "tls", "clock", "request"], list(found[purpose]))
        self.assertFalse((self.work / "site").exists())

        refused = self.private("wrong", {"user": "site", "password": "SEKRET-2"})
        self.assertEqual({("vault", "connect"): "unauthenticated", ("store", "connect"): "unauthenticated"},
                         self.failures(login=refused))
        away = f"http://{self.proxy.host}:{free_port()}"
        self.assertEqual({("proxy", "connect"): "unavailable"}, self.failures(proxy=away))
        self.assertEqual({("proxy", "resolve"): "unavailable"}, self.failures(proxy="http://no.such.invalid:3128"))
        vault = self.vault.split("//")[1]
        self.proxy.refused.add(vault)
        self.assertEqual({("vault", "connect"): "forbidden"}, self.failures())
        self.proxy.refused.clear()
        self.assertEqual({("vault", "connect"): "unavailable"},
                         self.failures(vault="https://no.such.invalid:8443"))
        other, _, _ = make_authority(self.work / "other")
        self.assertEqual({("vault", "tls"): "unauthenticated"}, self.failures(ca=other))
        # The store's certificate is for 127.0.0.1 and localhost alone.
        named = self.private("named", self.azurite.settings(
            endpoint=self.azurite.endpoint.replace("127.0.0.1", self.proxy.host)))
        tunnel = f"{self.proxy.host}:{self.azurite.port}"
        self.proxy.routes[tunnel] = ("127.0.0.1", self.azurite.port)
        self.assertEqual({("store", "tls"): "unauthenticated"},
                         self.failures(store=[*self.store[:3], named]))
        key = self.private("key", self.azurite.settings(account_key="AAAA" * 20))
        self.assertEqual({("store", "request"): "forbidden"}, self.failures(store=[*self.store[:3], key]))
        self.azurite.stop()
        self.assertEqual({("store", "connect"): "unavailable"}, self.failures())
        self.azurite.start()
        self.farshore.stop_servers("vault")
        self.assertEqual({("vault", "connect"): "unavailable"}, self.failures())

    def test_a_machine_is_replicated_through_the_proxy_alone(self):
        """Breaks when any connection of the appliance went past the proxy, or could not go through it."""
        self.farshore.store_options = [*self.store, "--proxy", self.proxy.url, "--proxy-settings", self.login]
        enter = ["ip", "netns", "exec", self.space]
        self.farshore.prefixes = {"appliance": enter, "agent": enter}
        self.farshore.start_site(self.work / "site", ("appliance", "agent"))
        model = Model([2 * MIB], seeded())
        self.farshore.call("protect", "web", "--agent", "demo-agent",
                           *(w for p in model.make_files(self.work) for w in ("--disk", p)))
        self.wait_state("web", "protected")
        self.farshore.call("point", "web", "--bookmark", "here")
        self.assert_point("web", "here", model.copy())
        targets = {self.vault.split("//")[1], f"127.0.0.1:{self.azurite.port}"}
        self.assertEqual(targets, set(self.proxy.tunnels))
        self.listen = self.farshore.replication_listen
        exit_code, found = self.check()
        self.assertEqual(0, exit_code, found)


if __name__ == "__main__":
    support.main()

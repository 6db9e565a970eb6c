#!/usr/bin/env python3
"""End to end: compute hosts from the command line, and that QEMU takes the credentials that the vault issues for it."""
import json
import shutil
import subprocess

import support
from support import EndToEnd, FarshoreError


class ComputeHosts(EndToEnd):
    def setUp(self):
        super().setUp()
        self.farshore.start_up()
        self.farshore.call("compute", "add", "rack", "--uri", "qemu+tls://127.0.0.1/system", "--disks-address", "127.0.0.1")

    def served(self, *words):
        """What an NBD server with the vault's certificate, that wants one of its clients, says to QEMU."""
        certificates = self.work / "server"
        certificates.mkdir(exist_ok=True)
        pki = self.farshore.data / "pki"
        for name, kept in (("ca-cert.pem", "ca.crt"), ("server-cert.pem", "vault.crt"), ("server-key.pem", "vault.key")):
            shutil.copy(pki / kept, certificates / name)
        command = " ".join(str(word) for word in words)
        return subprocess.run(["nbdkit", "--tls=require", f"--tls-certificates={certificates}", "--tls-verify-peer", "--port=0",
                               "memory", "1M", "--run", command], capture_output=True, text=True, timeout=60)

    @staticmethod
    def read(directory):
        return ("qemu-io", "--object", f"tls-creds-x509,id=t,dir={directory},endpoint=client,verify-peer=yes", "--image-opts",
                "driver=nbd,host=127.0.0.1,port=$port,tls-creds=t", "-c", "'read 0 4096'")

    def test_qemu_opens_disks_with_its_credentials(self):
        """Breaks when QEMU refuses the certificate that is issued for it (it checks purposes and usages of its own), or a
        server of the vault's does; when a client without one gets in; or when the certificate can play a server."""
        out = self.work / "rack"
        self.farshore.call("compute", "credentials", "rack", "--out", out)
        done = self.served(*self.read(out))
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertIn("read 4096/4096 bytes", done.stdout)
        nobody = self.work / "nobody"
        nobody.mkdir()
        shutil.copy(out / "ca-cert.pem", nobody)
        refused = self.served(*self.read(nobody))
        self.assertNotIn("read 4096/4096 bytes", refused.stdout)
        # As a client of the vault's HTTPS server it is somebody without a token.
        server = json.loads((self.farshore.data / "server.json").read_text())
        port = server["address"].rsplit(":", 1)[1]
        asked = subprocess.run(["curl", "-s", "--cacert", out / "ca-cert.pem", "--cert", out / "client-cert.pem", "--key",
                                out / "client-key.pem", f"https://127.0.0.1:{port}/v1/items"],
                               capture_output=True, text=True, timeout=60, check=True)
        self.assertEqual("unauthenticated", json.loads(asked.stdout)["code"])

    def test_a_host_from_its_adding_to_its_end(self):
        """Breaks when what is said on the command line is not what is kept, or a host that an item needs can be removed."""
        image = self.work / "web.img"
        image.write_bytes(bytes(1 << 20))
        self.farshore.call("protect", "web", "--disk", image)
        self.assertEqual("local", self.farshore.call("item", "compute", "web")["host"])
        self.farshore.call("item", "compute", "web", "rack")
        self.farshore.call("compute", "change", "rack", "--disks-ports", "50000-50010", "--accelerator", "kvm")
        shown = self.farshore.call("compute", "show", "rack")
        self.assertEqual(("50000-50010", "kvm", "127.0.0.1"), (shown["disks_ports"], shown["accelerator"], shown["disks_address"]))
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("compute", "remove", "rack")
        self.assertIn("'web'", str(refused.exception))
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("compute", "add", "open", "--uri", "qemu+tcp://127.0.0.1/system")
        self.assertIn("not encrypted", str(refused.exception))
        self.farshore.call("item", "compute", "web", "local")
        self.farshore.call("compute", "remove", "rack")
        self.assertEqual([], self.farshore.call("compute", "list")["compute_hosts"])


if __name__ == "__main__":
    support.main()

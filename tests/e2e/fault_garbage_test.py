#!/usr/bin/env python3
"""Clients that speak garbage on every port: refused, and the server is as it was."""
import socket
import ssl
import struct
import time

import support
from faults import MIB, FaultTest, descriptors, rss_kib, settle
from support import Model, seeded

ROUNDS = 90
MEMORY_GROWTH_KIB = 24 * 1024
MAX_LOG_LINES = 60


def talk(address, data, context=None, unix=False, end=True):
    """Sends `data`, reads what comes until the other side closes or says nothing for a while."""
    kind = socket.AF_UNIX if unix else socket.AF_INET
    answer = b""
    with socket.socket(kind, socket.SOCK_STREAM) as plain:
        plain.settimeout(0.3)
        try:
            plain.connect(str(address) if unix else address)
            wire = context.wrap_socket(plain, server_hostname="localhost") if context else plain
            wire.settimeout(0.3)
            wire.sendall(data)
            if end and not context:
                wire.shutdown(socket.SHUT_WR)
            while True:
                part = wire.recv(65536)
                if not part:
                    break
                answer += part
        except (OSError, ssl.SSLError):
            pass
    return answer


class Garbage(FaultTest):
    def begin(self):
        self.rng = seeded()
        self.model = Model([MIB], self.rng)
        self.start_up()
        self.protect(self.model)
        self.pid = self.farshore.servers["up"].pid
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(self.farshore.data / "authority.crt")
        self.api = ("127.0.0.1", self.ports[0])
        self.replication = ("127.0.0.1", self.ports[1])

    def garbage(self):
        rng = self.rng
        return rng.choice([
            b"", b"\0" * 64, rng.randbytes(rng.randrange(1, 5000)), b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01" + struct.pack(">H", 512) + rng.randbytes(512),
            b"\x16\x03\x01\xff\xff" + rng.randbytes(100), b"SSH-2.0-x\r\n", b"A" * 70_000])

    def assert_unharmed(self, before, pid=None):
        """`before`: (rss, descriptors, lines of log)."""
        clients = self.open_disks("web")
        for _ in range(10):
            self.model.random_step(clients, self.rng)
        for client in clients:
            client.close()
        label = f"after-{time.monotonic_ns()}"
        self.bookmark(label)
        self.assert_point("web", label, self.model.copy())
        self.wait_healthy()
        pid = pid or self.pid
        time.sleep(1.2)    # refusals linger for a second
        self.assertLessEqual(settle(lambda: descriptors(pid)), before[1] + 6)
        self.assertLess(rss_kib(pid), before[0] + MEMORY_GROWTH_KIB)
        lines = self.log_of("up").count("\n") - before[2]
        self.assertLess(lines, MAX_LOG_LINES, "the log was flooded")

    def figures(self, pid=None):
        pid = pid or self.pid
        return rss_kib(pid), settle(lambda: descriptors(pid)), self.log_of("up").count("\n")

    def test_before_tls(self):
        """Breaks when bytes that are no TLS cost memory, descriptors or a line of log each."""
        self.begin()
        for address in (self.api, self.replication):
            for _ in range(20):
                talk(address, self.garbage())
        before = self.figures()
        for address in (self.api, self.replication):
            for _ in range(ROUNDS):
                talk(address, self.garbage())
        self.assert_unharmed(before)

    def test_connections_that_say_nothing(self):
        """Breaks when silent connections keep others out."""
        self.begin()
        before = self.figures()
        silent = []
        for address in (self.api, self.replication) * 60:
            silent.append(socket.create_connection(address, timeout=5))
            silent[-1].sendall(b"\x16")
        self.assertEqual(1, len(self.farshore.call("items")["items"]))
        self.bookmark("among-the-silent")
        for connection in silent:
            connection.close()
        self.assert_unharmed(before)

    def test_api_behind_tls(self):
        """Breaks when a request that is no request, or not allowed, is anything but a named error."""
        self.begin()
        token = (self.farshore.data / "vault/admin.token").read_text().strip()
        authorised = f"Authorization: Bearer {token}\r\n".encode()
        before = self.figures()
        for _ in range(ROUNDS // 3):
            talk(self.api, self.garbage(), self.context)
        for head, body, code in (
                (b"GET /v1/items HTTP/1.1\r\n", b"", b"unauthenticated"),
                (b"GET /v1/nothing HTTP/1.1\r\n" + authorised, b"", b"not-found"),
                (b"POST /v1/items HTTP/1.1\r\n" + authorised, b"{", b"malformed"),
                (b"POST /v1/items HTTP/1.1\r\n" + authorised, b"[" * 5000, b"malformed"),
                (b"POST /v1/items HTTP/1.1\r\n" + authorised, self.rng.randbytes(3000),
                 b"malformed"),
                (b"POST /v1/items HTTP/1.1\r\n" + authorised, b'{"name":7}', b"malformed"),
                (b"POST /v1/items HTTP/1.1\r\n" + authorised, b'{"name":"../x","disks":["/a"]}',
                 b"invalid-argument"),
                (b"POST /internal/v1/link/acquire-log HTTP/1.1\r\n" + authorised, b"{}",
                 b"unauthenticated")):
            answer = talk(self.api, head + b"Host: localhost\r\nConnection: close\r\n" +
                          f"Content-Length: {len(body)}\r\n\r\n".encode() + body, self.context)
            self.assertIn(b'"code":"' + code + b'"', answer, head)
        too_large = talk(self.api, b"POST /v1/items HTTP/1.1\r\nHost: x\r\n" + authorised +
                         b"Content-Length: 99999999999\r\n\r\n", self.context)
        self.assertIn(b"413", too_large.split(b"\r\n")[0])
        self.assert_unharmed(before)

    def test_replication_behind_tls(self):
        """Breaks when a peer without a certificate gets further than enrolment, or one that speaks
        garbage is more than dropped."""
        self.begin()
        agent = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        agent.load_verify_locations(self.farshore.data / "authority.crt")
        pki = self.farshore.data / "pki"
        agent.load_cert_chain(pki / "agent-local.crt", pki / "agent-local.key")
        before = self.figures()
        item = bytes.fromhex(self.farshore.call("item", "web")["id"])
        for context in (self.context, agent):
            for _ in range(ROUNDS // 3):
                body = self.rng.randbytes(self.rng.randrange(0, 300))
                talk(self.replication, self.rng.choice([
                    body, struct.pack("<I", len(body)) + body, struct.pack(">I", len(body)) + body,
                    struct.pack("<I", 0xffffffff), struct.pack("<I", 1 << 20) + body,
                    struct.pack("<I", 18) + b"\x01" + item + b"\0"]), context)
        self.assert_unharmed(before)

    def test_nbd_sockets(self):
        """Breaks when garbage at a tap's socket ends the tap: it is the guest's disk."""
        self.begin()
        tap = [pid for pid, command in self.farshore.descendants() if "nbdkit" in command][0]
        path = self.nbd_sockets(self.farshore.call("item", "web"))[0][0]
        before = self.figures(tap)
        for number in range(ROUNDS):
            data = self.garbage()
            if number % 3 == 1:
                data = struct.pack(">I", 3) + data
            if number % 3 == 2:    # a good start, then rubbish instead of requests
                data = (struct.pack(">I", 3) + struct.pack(">8sII", b"IHAVEOPT", 1, 1) + b"0" + data)
            talk(path, data, unix=True)
        self.assertEqual([tap], [pid for pid, c in self.farshore.descendants() if "nbdkit" in c])
        self.assert_unharmed(before, tap)


if __name__ == "__main__":
    support.main()

#!/usr/bin/env python3
"""A small HTTP proxy for tests: CONNECT alone, with or without basic authentication (RFC 9110 9.3.6).

`with ConnectProxy(host, user=..., password=...) as proxy: ...`; `proxy.refused` holds "host:port" that
are answered 403; `proxy.tunnels` counts those that were opened, by "host:port"."""
import base64
import collections
import select
import socket
import threading


class ConnectProxy:
    def __init__(self, host="127.0.0.1", port=0, user=None, password=None):
        self._credentials = None
        if user is not None:
            self._credentials = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.tunnels = collections.Counter()
        self.refused = set()
        self.routes = {}    # of a target: where its tunnel really leads
        self.denied = 0
        self._listener = socket.create_server((host, port))
        self.host, self.port = self._listener.getsockname()[:2]
        self.url = f"http://{self.host}:{self.port}"
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._closed = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client:
            try:
                self._tunnel(client)
            except OSError:
                pass

    def _tunnel(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data or len(head) > 65536:
                return
            head += data
        lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        method, target = lines[0].split(" ")[:2]
        headers = {name.strip().lower(): value.strip() for name, _, value in
                   (line.partition(":") for line in lines[1:])}

        def answer(status):
            extra = 'Proxy-Authenticate: Basic realm="test"\r\n' if status.startswith("407") else ""
            client.sendall(f"HTTP/1.1 {status}\r\n{extra}Content-Length: 0\r\n\r\n".encode())

        if self._credentials and headers.get("proxy-authorization") != self._credentials:
            self.denied += 1
            return answer("407 Proxy Authentication Required")
        if method != "CONNECT":
            return answer("405 Method Not Allowed")
        if target in self.refused:
            return answer("403 Forbidden")
        host, _, port = target.rpartition(":")
        try:
            peer = socket.create_connection(self.routes.get(target, (host.strip("[]"), int(port))), 10)
        except OSError:
            return answer("502 Bad Gateway")
        with peer:
            self.tunnels[target] += 1
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            peer.settimeout(None)
            while True:
                for one in select.select([client, peer], [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        return None
                    (peer if one is client else client).sendall(data)

"""The way to registries without regproxy: names that lead to the servers of a test.

It is an HTTP proxy that only connects, so that clients need neither a resolver nor the
ports of real registries, and it tells where they went.
"""

from __future__ import annotations

import select
import socket
import socketserver
from collections.abc import Mapping
from threading import Thread
from typing import Final

ADDRESS: Final = "127.0.0.1"


class Internet:
    """Answers CONNECT while a test runs.

    Attributes:
        visited: the hosts, with their ports, that were connected to since the last look.
    """

    def __init__(self, ports: Mapping[str, int]) -> None:
        """Lead each host, written with its port if that is not 443, to a local port."""
        self.visited: list[str] = []
        self._ports = {host if ":" in host else f"{host}:443": port for host, port in ports.items()}
        internet = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                internet._serve(self)

        self._server = _Server((ADDRESS, 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """What HTTPS_PROXY is set to."""
        return f"http://{ADDRESS}:{self._server.server_address[1]}"

    def close(self) -> None:
        """Take no more connections."""
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socketserver.StreamRequestHandler) -> None:
        host = client.rfile.readline().split()[1].decode()
        while client.rfile.readline().strip():
            pass
        port = self._ports.get(host)
        if port is None:
            client.wfile.write(b"HTTP/1.1 502 No such host\r\nContent-Length: 0\r\n\r\n")
            return
        self.visited.append(host)
        with socket.create_connection((ADDRESS, port)) as server:
            client.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            _join(client.connection, server)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def _join(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until one side closes."""
    peers = {one: other, other: one}
    while True:
        readable, _, _ = select.select([one, other], [], [])
        for source in readable:
            try:
                data = source.recv(1 << 16)
            except ConnectionError:
                return
            if not data:
                return
            try:
                peers[source].sendall(data)
            except (ConnectionError, BrokenPipeError):
                return

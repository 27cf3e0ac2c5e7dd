"""Whether something answers, before a machine is pointed at it: real sockets on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from regproxy.node import reach
from regproxy.node.errors import Unreachable
from regproxy.node.settings import Mode, Settings
from tests.support.certificates import make_ca, make_leaf
from tests.support.process import free_port


class HTTPTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.paths: list[str] = []
        self.status = 200
        case = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                case.paths.append(self.path)
                self.send_response(case.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.proxy = Settings(Mode.PROXY, proxy=self.url)
        self.mirror = Settings(Mode.MIRROR, mirror=self.url)

    def test_answers(self) -> None:
        reach.check(self.proxy)
        reach.check(self.mirror)
        reach.check(Settings(Mode.UNDO))
        self.assertEqual(self.paths, ["/healthz", "/v2/"])

    def test_error(self) -> None:
        """Another server has not these pages."""
        self.status = 404
        for settings in (self.proxy, self.mirror):
            self.assertIn("404", str(self.assertRaises(Unreachable, reach.check, settings)))

    def test_tls(self) -> None:
        """The CA that the machine will trust is trusted here, and no other."""
        ca = make_ca()
        leaf = make_leaf(ca, ips=["127.0.0.1"])
        file = Path(self.mktemp())
        file.write_bytes(leaf.key_pem + leaf.certificate_pem)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        settings = evolve(self.proxy, proxy=self.url.replace("http:", "https:"))
        reach.check(evolve(settings, ca=ca.certificate_pem))
        self.assertEqual(self.paths, ["/healthz"])
        for other in (make_ca().certificate_pem, b"-----BEGIN CERTIFICATE-----\nMIIB\n"):
            self.assertRaises(Unreachable, reach.check, evolve(settings, ca=other))

    def test_nobody(self) -> None:
        for settings in (
            Settings(Mode.PROXY, proxy=f"http://127.0.0.1:{free_port()}"),
            Settings(Mode.MIRROR, mirror=f"http://127.0.0.1:{free_port()}"),
        ):
            self.assertRaises(Unreachable, reach.check, settings)


class DNSTests(SynchronousTestCase):
    def ask(self, answer: Callable[[bytes], bytes]) -> None:
        """Ask a server that answers so."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(10)

            def serve() -> None:
                query, client = server.recvfrom(512)
                self.query = query
                server.sendto(answer(query), client)

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                settings = Settings(Mode.DNS, servers=("127.0.0.1",), hosts=("docker.io",))
                reach.check(settings, server.getsockname()[1])
            finally:
                thread.join()

    def test_answers(self) -> None:
        def answer(query: bytes) -> bytes:
            return query[:2] + b"\x81\x80" + query[4:6] + b"\0\1" + query[8:]

        self.ask(answer)
        self.assertIn(b"\x0aregistry-1\x06docker\x02io\0", self.query)

    def test_useless_answers(self) -> None:
        for answer in (
            lambda query: query[:2] + b"\x81\x85" + query[4:],
            lambda query: query[:2] + b"\x81\x80" + query[4:],
            lambda query: bytes([query[0] ^ 1]) + query[1:2] + b"\x81\x80\0\1\0\1" + query[8:],
            lambda query: b"x",
        ):
            self.assertRaises(Unreachable, self.ask, answer)

    def test_nobody(self) -> None:
        settings = Settings(Mode.DNS, servers=("127.0.0.1",), hosts=("ghcr.io",))
        self.assertRaises(Unreachable, reach.check, settings, free_port())

"""Tests for :mod:`regproxy.wiring`: everything is given to the right one."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import Config, ProxySection, RegistrySection
from regproxy.oci.names import Host
from regproxy.tls.errors import CAError
from regproxy.web.access_log import AccessRecord
from regproxy.wiring import Foundation, House
from tests.support.front import Answer
from tests.support.memory_network import MemoryNetwork
from tests.support.scripted_site import Say, ScriptedSite
from tests.support.streams import MemoryStream

PLAIN = Host("plain.example.com", 80)
SECURE = Host("secure.example.com")
ADDRESS = IPv4Address("TCP", "192.0.2.1", 4711)


class WiringTestCase(SynchronousTestCase):
    """A house over a network in memory. The threads of its store do not run."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.directory = Path(self.mktemp())
        self.config = Config(
            data=self.directory,
            registries={
                PLAIN: RegistrySection(plain_http=True),
                SECURE: RegistrySection(plain_http=True, upstream=("http://origin.example.com",)),
            },
        )
        self.foundation = Foundation.lay(self.network, self.config)
        self.foundation.directory.prepare()
        self.foundation.index.open()
        self.addCleanup(self.foundation.index.close)
        self.house = House.build(self.foundation, self.config)
        self.registry = ScriptedSite(self.network, Say(200, {b"X-From": b"upstream"}, b"{}"))
        for name in PLAIN.name, "origin.example.com":
            self.network.serve(name, "8.8.8.8", 80, self.registry)

    def connect(self, way: str, house: House | None = None) -> MemoryStream:
        """A client of this way in."""
        factory: IProtocolFactory = (house or self.house).ways[way]
        protocol = factory.buildProtocol(ADDRESS)
        assert protocol is not None
        return MemoryStream(protocol)

    def get(self, way: str, target: str, host: str, house: House | None = None) -> Answer:
        """What a GET gets without TLS."""
        stream = self.connect(way, house)
        stream.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        self.network.flush()
        return Answer("GET", stream.take())


class SecureClient:
    """TLS on a connection, with trust in the proxy's CA only."""

    def __init__(self, stream: MemoryStream, ca: bytes, name: str) -> None:
        self._stream = stream
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cadata=ca.decode())
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)

    def get(self, network: MemoryNetwork, target: str, host: str) -> Answer:
        """What a GET gets.

        Raises:
            ssl.SSLError: the server is not to be trusted, or refuses.
        """
        while not self._done(self._tls.do_handshake):
            assert self._exchange(network), "the server says nothing"
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        self._tls.write(request.encode())
        self._exchange(network)
        data = b""

        def read() -> None:
            nonlocal data
            while piece := self._tls.read(1 << 16):
                data += piece

        self._done(read)
        return Answer("GET", data)

    def _done(self, step: object) -> bool:
        assert callable(step)
        try:
            step()
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            return False
        return True

    def _exchange(self, network: MemoryNetwork) -> bytes:
        self._stream.send(self._out.read())
        network.flush()
        data = self._stream.take()
        self._in.write(data)
        return data


class WaysTests(WiringTestCase):
    """Every way in ends at the right place."""

    def test_own_pages(self) -> None:
        """The proxy port and the management port show the same CA, which is the real one."""
        for way in "proxy", "management":
            self.assertEqual(self.get(way, "/healthz", "x").body, b"ok\n")
            pem = self.get(way, "/ca.crt", "x").body
            self.assertEqual(pem, (self.directory / "ca" / "ca.crt").read_bytes())

    def test_port_on_the_page(self) -> None:
        """The first page names the port that clients are to use."""
        for listen, port in (
            (("tcp:3128",), 3128),
            (("tcp:3129:interface=127.0.0.1",), 3129),
            (("tcp:interface=127.0.0.1:port=3130",), 3130),
            (("unix:/run/regproxy/socket", "tcp6:3131"), 3131),
            (("haproxy:tcp:3132",), 3132),
            (("systemd:domain=INET:index=0",), 3128),
        ):
            config = Config(data=self.directory, proxy=ProxySection(listen=listen))
            page = self.get("proxy", "/", "cache.example.com", House.build(self.foundation, config))
            self.assertIn(f"http://cache.example.com:{port}".encode(), page.body, listen)

    def test_plain_registry(self) -> None:
        """Through the proxy port, by an http URL."""
        answer = self.get("proxy", f"http://{PLAIN.name}/v2/", PLAIN.name)
        self.assertEqual((answer.body, answer["X-From"]), (b"{}", "upstream"))
        self.assertEqual(self.registry.asked[0].header(b"host"), PLAIN.name.encode())

    def test_connect(self) -> None:
        """Through CONNECT: the proxy's certificate for that name, then the registry."""
        stream = self.connect("proxy")
        stream.send(
            f"CONNECT {SECURE.authority} HTTP/1.1\r\nHost: {SECURE.authority}\r\n\r\n".encode()
        )
        self.assertTrue(stream.take().startswith(b"HTTP/1.1 200 "))
        client = SecureClient(stream, self.foundation.authority.certificate_pem, SECURE.name)
        answer = client.get(self.network, "/v2/", SECURE.name)
        self.assertEqual((answer.body, answer["X-From"]), (b"{}", "upstream"))
        self.assertEqual(self.network.dialled, [("8.8.8.8", 80)])

    def test_connect_and_another_host(self) -> None:
        stream = self.connect("proxy")
        stream.send(
            f"CONNECT {SECURE.authority} HTTP/1.1\r\nHost: {SECURE.authority}\r\n\r\n".encode()
        )
        stream.take()
        client = SecureClient(stream, self.foundation.authority.certificate_pem, SECURE.name)
        self.assertEqual(client.get(self.network, "/v2/", "ghcr.io").status, 421)
        self.assertEqual(self.network.dialled, [])

    def test_tls(self) -> None:
        """Straight, by SNI."""
        client = SecureClient(
            self.connect("tls"), self.foundation.authority.certificate_pem, SECURE.name
        )
        answer = client.get(self.network, "/v2/", SECURE.name)
        self.assertEqual((answer.body, answer["X-From"]), (b"{}", "upstream"))

    def test_tls_for_others(self) -> None:
        """There is no certificate for what is not intercepted."""
        client = SecureClient(
            self.connect("tls"), self.foundation.authority.certificate_pem, "example.org"
        )
        with self.assertRaises(ssl.SSLError):
            client.get(self.network, "/v2/", "example.org")

    def test_upstream_guard(self) -> None:
        """A registry at a private address is refused, without relay_private."""
        self.network.serve(PLAIN.name, "10.0.0.1", 80, self.registry)
        answer = self.get("proxy", f"http://{PLAIN.name}/v2/", PLAIN.name)
        self.assertEqual((answer.status, answer.error["code"]), (403, "DENIED"))
        self.assertEqual(self.network.dialled, [])


class TunnelTests(WiringTestCase):
    """CONNECT to what is not intercepted."""

    def connect_to(self, target: str) -> tuple[int, AccessRecord | None]:
        """Status and log record."""
        with capturedLogs() as events:
            stream = self.connect("proxy")
            stream.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            self.network.flush()
            answer = stream.take()
            stream.lose(ConnectionDone())
            self.network.flush()
        records = [event["access"] for event in events if "access" in event]
        return int(answer.split(b" ")[1]), records[0] if records else None

    def test_refused(self) -> None:
        """Private addresses, and other ports than 443."""
        self.network.names["inside.example.com"] = ["10.0.0.1"]
        for target in "inside.example.com:443", "8.8.8.8:22", "127.0.0.1:443":
            status, record = self.connect_to(target)
            self.assertEqual(status, 403, target)
            assert record is not None
            self.assertEqual((record.method, record.status), ("CONNECT", 403))
            self.assertEqual((record.way, record.cache), ("connect", "none"))
            self.assertTrue(record.reason)
        self.assertEqual(self.network.dialled, [])

    def test_open(self) -> None:
        self.network.serve("site.example.com", "8.8.4.4", 443, self.registry)
        status, record = self.connect_to("site.example.com:443")
        self.assertEqual(status, 200)
        assert record is not None
        self.assertEqual((record.registry, record.cache), ("site.example.com", "tunnel"))
        self.assertEqual(record.way, "connect")


class FoundationTests(SynchronousTestCase):
    """Foundation"""

    def lay(self, directory: Path) -> Foundation:
        return Foundation.lay(MemoryNetwork(), Config(data=directory))

    def test_ca_lasts(self) -> None:
        """It is made once; the key is for its owner only."""
        directory = Path(self.mktemp())
        first, second = self.lay(directory), self.lay(directory)
        self.assertEqual(first.authority.certificate_pem, second.authority.certificate_pem)
        self.assertEqual((directory / "ca" / "ca.key").stat().st_mode & 0o777, 0o600)

    def test_ca_unusable(self) -> None:
        directory = Path(self.mktemp())
        (directory / "ca").mkdir(parents=True)
        (directory / "ca" / "ca.crt").write_text("garbage")
        with self.assertRaises(CAError) as caught:
            self.lay(directory)
        self.assertIn("ca.crt", str(caught.exception))

    def test_store_is_not_opened(self) -> None:
        """Threads and databases must not be there before a fork."""
        directory = Path(self.mktemp())
        foundation = self.lay(directory)
        self.assertFalse((directory / "cache" / "index.sqlite3").exists())
        self.assertEqual(foundation.disk_pool.threads, [])
        self.assertEqual(foundation.index_pool.threads, [])

    def test_ca_is_valid_now(self) -> None:
        foundation = self.lay(Path(self.mktemp()))
        certificate = x509.load_pem_x509_certificate(foundation.authority.certificate_pem)
        self.assertGreater(
            certificate.not_valid_after_utc, datetime.now(UTC) + timedelta(days=9 * 365)
        )

"""Tests for :mod:`regproxy.listeners.redirect`."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from regproxy.config.model import Config, HostPattern, InterceptionSection, RegistrySection
from regproxy.listeners.redirect import RedirectResource
from regproxy.oci.names import Host
from regproxy.web.site import Entry, Limits, StrictSite
from tests.support.front import Answer, Client
from tests.support.sites import KeptLog

CONFIG = Config(
    data=Path("/nonexistent"),
    interception=InterceptionSection((HostPattern.parse("*.example.org"),)),
    registries={
        Host("plain.example.com", 80): RegistrySection(plain_http=True),
        Host("plain.example.com", 5000): RegistrySection(plain_http=True),
        Host("tls.example.com"): RegistrySection(),
        Host("odd.example.com", 5000): RegistrySection(),
        # TLS to the client, none to the registry.
        Host("half.example.com"): RegistrySection(plain_http=True),
    },
)


class _Registries(Resource):
    isLeaf = True

    def render(self, request: object) -> bytes:
        return b"registries"


class RedirectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = KeptLog()
        self.site = StrictSite(
            RedirectResource(_Registries(), CONFIG),
            Entry("http"),
            Limits(30.0, 30.0, 30.0),
            self.clock,
            self.log,
        )

    def ask(self, target: str, host: str, method: str = "GET", body: bytes = b"") -> Answer:
        client = Client(self.site, self.clock, secure=False)
        client.send(method, target, {"Host": host}, body)
        return client.answer()

    def test_to_https(self) -> None:
        """Path and query stay; the port is that of https."""
        for host, target, location in (
            ("tls.example.com", "/v2/", "https://tls.example.com/v2/"),
            ("TLS.example.com.", "/v2/a/b?n=1&x=%2F", "https://tls.example.com/v2/a/b?n=1&x=%2F"),
            ("tls.example.com:80", "/", "https://tls.example.com/"),
            ("tls.example.com:8080", "/", "https://tls.example.com/"),
            ("a.example.org", "//evil.example/x", "https://a.example.org//evil.example/x"),
            ("half.example.com", "/v2/", "https://half.example.com/v2/"),
            ("tls.example.com", "http://tls.example.com/v2/", "https://tls.example.com/v2/"),
        ):
            answer = self.ask(target, host)
            self.assertEqual((answer.status, answer["Location"]), (308, location))
            self.assertEqual((answer.body, answer["Cache-Control"]), (b"", "no-store"))
            self.assertTrue(answer.whole)

    def test_other_methods(self) -> None:
        """308 keeps the method; a body is not waited for."""
        answer = self.ask("/v2/a/blobs/uploads/", "tls.example.com", "POST", bytes(1 << 16))
        self.assertEqual(answer.status, 308)
        self.assertEqual(self.ask("/v2/", "tls.example.com", "HEAD").status, 308)

    def test_plain_registry(self) -> None:
        """At the port that is its own."""
        for host in "plain.example.com", "plain.example.com:80", "plain.example.com:5000":
            self.assertEqual(self.ask("/v2/", host).body, b"registries")

    def test_others(self) -> None:
        """Among them what is a registry at other ports only, and the proxy's own names."""
        for host in "example.net", "odd.example.com", "127.0.0.1", "example.org":
            answer = self.ask("/v2/", host)
            self.assertEqual((answer.status, answer.error["code"]), (403, "DENIED"))
            self.assertIn(f"http://{host}", answer.error["message"])
            self.assertIsNone(answer["Location"])

    def test_no_host(self) -> None:
        client = Client(self.site, self.clock, secure=False)
        client.stream.send(b"GET /v2/ HTTP/1.0\r\n\r\n")
        self.assertEqual(client.answer().status, 400)

    def test_logged(self) -> None:
        self.ask("/v2/a/tags/list?secret=1", "tls.example.com")
        (record,) = self.log.records
        self.assertEqual((record.way, record.status), ("http", 308))
        self.assertEqual(
            (record.registry, record.reason), ("tls.example.com", "redirected to https")
        )
        self.assertEqual(record.reference, "/v2/a/tags/list")

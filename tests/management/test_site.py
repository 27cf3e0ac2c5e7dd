"""Tests for :mod:`regproxy.management.site`."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from xml.etree import ElementTree

from attrs import frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel
from twisted.web.server import Site

from regproxy.management.metrics import Metrics
from regproxy.management.site import Facts, ManagementSite

PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
FACTS = Facts(
    fingerprint="AB:CD:EF",
    not_after=datetime(2036, 3, 9, tzinfo=UTC),
    version="1.2.3",
    proxy_port=3128,
)


@frozen
class Answer:
    """A response, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes


class SiteCase(SynchronousTestCase):
    """The tree on a real site, over a connection in memory."""

    metrics: Metrics | None = None

    def send(
        self, path: str, method: str = "GET", host: str = "proxy.example:8080", fields: str = ""
    ) -> tuple[HTTPChannel, StringTransport]:
        """Send one request: the server's side of it."""
        site = Site(ManagementSite(lambda: PEM, FACTS, self.metrics), reactor=Clock())
        channel = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport = StringTransport()
        channel.makeConnection(transport)
        # HTTP/1.0, so that no body is chunked.
        head = f"{method} {path} HTTP/1.0\r\nHost: {host}\r\n{fields}\r\n"
        channel.dataReceived(head.encode())
        return channel, transport

    def ask(
        self, path: str, method: str = "GET", host: str = "proxy.example:8080", fields: str = ""
    ) -> Answer:
        """What one request gets."""
        _, transport = self.send(path, method, host, fields)
        self.assertTrue(transport.disconnecting)
        head, _, body = transport.value().partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Answer(int(status_line.split()[1]), {k.lower(): v for k, v in headers.items()}, body)


class SiteTests(SiteCase):
    """The pages for people."""

    def test_health(self) -> None:
        """Health is one word, never stored."""
        answer = self.ask("/healthz")
        self.assertEqual((answer.status, answer.body), (200, b"ok\n"))
        self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_certificate(self) -> None:
        """The certificate comes as browsers and people with curl want it."""
        answer = self.ask("/ca.crt")
        self.assertEqual((answer.status, answer.body), (200, PEM))
        self.assertEqual(answer.headers["content-type"], "application/x-x509-ca-cert")
        self.assertEqual(answer.headers["content-length"], str(len(PEM)))
        self.assertEqual(answer.headers["content-disposition"], 'inline; filename="regproxy.crt"')

    def test_page(self) -> None:
        """The page shows what was given to it, and the proxy by the reader's name for it."""
        answer = self.ask("/")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["content-type"], "text/html; charset=utf-8")
        page = answer.body.decode()
        self.assertTrue(page.startswith("<!DOCTYPE html>"))
        for shown in (
            "AB:CD:EF",
            "09 March 2036",
            "regproxy 1.2.3",
            'href="/ca.crt"',
            "HTTPS_PROXY=http://proxy.example:3128",
        ):
            self.assertIn(shown, page)
        ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))

    def test_page_by_address(self) -> None:
        """An IPv6 address keeps its brackets."""
        self.assertIn(b"http://[2001:db8::1]:3128", self.ask("/", host="[2001:db8::1]:80").body)

    def test_page_escapes_its_reader(self) -> None:
        """A Host field that is none does not reach the page."""
        for host in ("<script>", "a'b", '"'):
            page = self.ask("/", host=host).body
            self.assertIn(b"http://PROXY:3128", page)
            self.assertNotIn(b"<script", page)

    def test_style_passes_the_policy(self) -> None:
        """The one style sheet has the hash that the policy allows; nothing else may load."""
        answer = self.ask("/")
        (style,) = re.findall(rb"<style>(.*?)</style>", answer.body, re.DOTALL)
        allowed = b64encode(sha256(style).digest()).decode()
        policy = answer.headers["content-security-policy"]
        self.assertTrue(policy.startswith("default-src 'none'; "), policy)
        self.assertIn(f"style-src 'sha256-{allowed}'", policy)
        self.assertNotIn(b" style=", answer.body)
        self.assertNotRegex(answer.body, rb"(src|href)=\"(?!/ca\.crt)")

    def test_head(self) -> None:
        """HEAD has the header fields of GET and no body."""
        for path in ("/", "/ca.crt", "/healthz"):
            get, head = self.ask(path), self.ask(path, "HEAD")
            self.assertEqual(head.body, b"")
            self.assertEqual({**get.headers, "date": ""}, {**head.headers, "date": ""})

    def test_other_methods(self) -> None:
        """Nothing can be changed here."""
        for path in ("/", "/ca.crt", "/healthz"):
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
                answer = self.ask(path, method)
                self.assertEqual(answer.status, 405)
                self.assertEqual(answer.headers["allow"], "GET, HEAD")
                self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
                self.assertEqual(answer.body, b"this can be read with GET and HEAD only\n")

    def test_not_found(self) -> None:
        """Everything else is not there, and says what is."""
        for path in ("/favicon.ico", "/ca.crt/", "/healthz/x", "/v2/", "//", "/setup", "/metrics"):
            answer = self.ask(path)
            self.assertEqual(answer.status, 404)
            self.assertTrue(answer.body.startswith(b"not found; there are /, /ca.crt, /healthz"))
        self.assertEqual(self.ask("/nothing", "POST").status, 404)

    def test_security_fields(self) -> None:
        """Every answer forbids guessing of types and the loading of anything."""
        for path in ("/", "/ca.crt", "/healthz", "/nothing"):
            headers = self.ask(path).headers
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertIn("default-src 'none'", headers["content-security-policy"])


class GivenMetrics(Metrics):
    """Metrics whose page the test gives."""

    def __init__(self, page: Deferred[bytes]) -> None:
        self.page_given = page
        self.asked: list[str] = []

    async def page(self, accept: str) -> tuple[str, bytes]:
        self.asked.append(accept)
        return "text/plain; version=0.0.4", await self.page_given


class MetricsTests(SiteCase):
    """``/metrics``"""

    def given(self, page: Deferred[bytes]) -> GivenMetrics:
        self.metrics = given = GivenMetrics(page)
        return given

    def test_page(self) -> None:
        """In the format that was asked for, never stored."""
        given = self.given(succeed(b"x 1\n"))
        answer = self.ask("/metrics", fields="Accept: a/b, c/d\r\nAccept: e/f\r\n")
        self.assertEqual(given.asked, ["a/b, c/d, e/f"])
        self.assertEqual((answer.status, answer.body), (200, b"x 1\n"))
        self.assertEqual(answer.headers["content-type"], "text/plain; version=0.0.4")
        self.assertEqual(answer.headers["content-length"], "4")
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_head(self) -> None:
        self.given(succeed(b"x 1\n"))
        answer = self.ask("/metrics", "HEAD")
        self.assertEqual((answer.body, answer.headers["content-length"]), (b"", "4"))

    def test_other_methods(self) -> None:
        given = self.given(succeed(b""))
        self.assertEqual(self.ask("/metrics", "POST").status, 405)
        self.assertEqual(given.asked, [])

    def test_failure(self) -> None:
        """A mistake is an error for the reader and in the log."""
        self.given(fail(ZeroDivisionError()))
        self.assertEqual(self.ask("/metrics").status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_leaves(self) -> None:
        """A reader that leaves takes its question along."""
        cancelled: list[object] = []
        self.given(Deferred(cancelled.append))
        channel, transport = self.send("/metrics")
        self.assertEqual((cancelled, transport.value()), ([], b""))
        channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(cancelled), 1)

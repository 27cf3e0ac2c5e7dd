"""Tests for :mod:`regproxy.management.site`."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.static import Data

from regproxy.config.model import Config, ManagementSection
from regproxy.management.pages.rendering import PROXY, Pages
from regproxy.management.setup.facts import Facts
from regproxy.management.site import OpenSite
from regproxy.web.channel import StrictChannel
from tests.support.management import CA, NOW, FakeAuthority
from tests.support.pages import GivenMetrics, PagesCase, parse
from tests.support.sites import House


class ManagementTests(PagesCase):
    """The tree of the management port."""

    def test_health(self) -> None:
        """Health is one word, never stored."""
        answer = self.ask("/healthz")
        self.assertEqual((answer.status, answer.body), (200, b"ok\n"))
        self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_pages(self) -> None:
        """Every entry of the navigation leads to a page that says that it is there."""
        self.others["setup"] = Data(b"", "text/html")
        for each in self.page("/").one("nav").all("a"):
            self.assertEqual(self.ask(str(each.attributes["href"])).status, 200)
        for path in "/", "/images", "/events", "/ca":
            (current,) = self.page(path).one("nav").all("a", **{"aria-current": "page"})
            self.assertEqual(current.attributes["href"], path)

    def test_others(self) -> None:
        """What others answer is mounted."""
        self.others["setup"] = Data(b"set up", "text/plain")
        self.assertEqual(self.ask("/setup").body, b"set up")

    def test_absolute_form(self) -> None:
        """A target may name the host as well (RFC 9112 section 3.2.2)."""
        stream = self.house().connect()
        stream.send(b"GET http://a/healthz?b HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(stream.take().endswith(b"\r\n\r\nok\n"))
        stream.finish()


class ReaderTests(PagesCase):
    """Who may read what."""

    section = ManagementSection(read_from=("10.0.0.0/8",))

    def test_from_elsewhere(self) -> None:
        """Numbers and names are for the networks of read_from; what clients need is for all."""
        for path in "/", "/images", "/repositories", "/image?reference=a", "/events", "/metrics":
            answer = self.ask(path)
            self.assertEqual(answer.status, 403, path)
            self.assertIn(b"read_from", answer.body)
        self.assertEqual(self.ask("/images/purge?reference=a").status, 403)
        self.assertEqual(self.post("/images/purge", reference="a").status, 403)
        for path in "/ca", "/ca.crt", "/ca.der", "/healthz", "/static/live.js":
            self.assertEqual(self.ask(path).status, 200, path)


class MetricsTests(PagesCase):
    """``/metrics``"""

    def test_page(self) -> None:
        """In the format that was asked for, never stored."""
        answer = self.ask("/metrics", "GET", "Accept: e/f")
        self.assertEqual(self.metrics.asked, ["text/html,*/*;q=0.8, e/f"])
        self.assertEqual((answer.status, answer.body), (200, b"x 1\n"))
        self.assertEqual(answer.headers["content-type"], "text/plain; version=0.0.4")
        self.assertEqual(answer.headers["content-length"], "4")
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_bytes(self) -> None:
        """What a client accepts need not be text."""
        stream = self.house().connect()
        stream.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: \xff\r\n\r\n")
        self.assertEqual((self.metrics.asked, stream.take()[:12]), (["\xff"], b"HTTP/1.1 200"))
        stream.finish()

    def test_head(self) -> None:
        answer = self.ask("/metrics", "HEAD")
        self.assertEqual((answer.body, answer.headers["content-length"]), (b"", "4"))

    def test_other_methods(self) -> None:
        self.assertEqual(self.ask("/metrics", "POST").status, 405)
        self.assertEqual(self.metrics.asked, [])

    def test_failure(self) -> None:
        """A mistake is an error for the reader and in the log."""
        self.metrics = GivenMetrics(fail(ZeroDivisionError()))
        self.assertEqual(self.ask("/metrics").status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_leaves(self) -> None:
        """A reader that leaves takes its question along."""
        cancelled: list[object] = []
        self.metrics = GivenMetrics(Deferred(cancelled.append))
        stream = self.house().connect()
        stream.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual((cancelled, stream.take()), ([], b""))
        stream.finish()
        self.assertEqual(len(cancelled), 1)


class OpenTests(SynchronousTestCase):
    """The tree of the proxy port."""

    def ask(self, path: str, *, secure: bool = False) -> tuple[bytes, bytes]:
        """Status line and body."""
        tree = OpenSite(
            Pages(PROXY, lambda: NOW),
            FakeAuthority(),
            Facts.of(Config(data=Path("/nowhere"))),
            {"setup": Data(b"set up", "text/plain")},
        )
        request = f"GET {path} HTTP/1.1\r\nHost: proxy.example:3128\r\nAccept: text/html\r\n\r\n"
        stream = House(tree).connect()
        assert isinstance(stream.protocol, StrictChannel)
        stream.protocol.secure = secure
        stream.send(request.encode())
        head, _, body = stream.take().partition(b"\r\n\r\n")
        stream.finish()
        return head.split(b"\r\n")[0], body

    def test_welcome(self) -> None:
        """The first page tells what this is, and what to trust."""
        status, body = self.ask("/")
        self.assertEqual(status, b"HTTP/1.1 200 OK")
        page = parse(body)
        self.assertEqual(page.one("h1").text, "A proxy for container registries")
        self.assertIn(CA.fingerprint, page.text)
        self.assertIn("http://proxy.example:3128", page.text)
        links = [each.attributes["href"] for each in page.one("nav").all("a")]
        self.assertEqual(links, ["/", "/setup"])

    def test_by_tls(self) -> None:
        """The proxy is told as the reader found it."""
        _, body = self.ask("/", secure=True)
        self.assertIn(b"HTTPS_PROXY=https://proxy.example:3128", body)

    def test_only_what_clients_need(self) -> None:
        for path in "/ca.crt", "/ca.der", "/healthz", "/setup", "/static/regproxy.css":
            self.assertEqual(self.ask(path)[0], b"HTTP/1.1 200 OK", path)
        for path in "/images", "/image", "/repositories", "/events", "/metrics", "/ca", "/api/v1":
            self.assertEqual(self.ask(path)[0], b"HTTP/1.1 404 Not Found", path)

    def test_leads_nowhere_else(self) -> None:
        """No link of the page leads to what is not here."""
        _, body = self.ask("/")
        found = {
            url.partition("?")[0].partition("#")[0]
            for each in parse(body)
            for name, url in each.attributes.items()
            if name in ("href", "src") and url is not None
        }
        static = {"/static/icon.svg", "/static/regproxy.css"}
        self.assertEqual(found, {"", "/", "/setup", "/ca.crt", "/ca.der"} | static)

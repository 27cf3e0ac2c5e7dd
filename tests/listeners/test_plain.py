"""Tests for :mod:`regproxy.listeners.plain`."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.static import Data

from regproxy.config.model import Config, RegistrySection, RelaySection
from regproxy.listeners.plain import PlainResource
from regproxy.oci.names import Host
from regproxy.web.access_log import AccessLog
from regproxy.web.site import Entry, Limits, StrictSite
from tests.support.front import Answer, Client

CONFIG = Config(
    data=Path("/nonexistent"),
    registries={
        Host("plain.example.com", 80): RegistrySection(plain_http=True),
        Host("plain.example.com", 5000): RegistrySection(plain_http=True),
        Host("tls.example.com"): RegistrySection(),
    },
)


class _Says(Resource):
    isLeaf = True

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self._text = text

    def render(self, request: object) -> bytes:
        return self._text


class PlainTests(SynchronousTestCase):
    """The proxy port as an HTTP server and as a proxy for http URLs."""

    def get(self, target: str, host: str, method: str = "GET", config: Config = CONFIG) -> Answer:
        own = Resource()
        own.putChild(b"", Data(b"welcome", "text/plain"))
        own.putChild(b"healthz", Data(b"ok", "text/plain"))
        clock = Clock()
        site = StrictSite(
            PlainResource(own, _Says(b"registries"), _Says(b"others"), config),
            Entry("proxy"),
            Limits(30.0, 30.0, 30.0),
            clock,
            AccessLog(clock),
        )
        client = Client(site, clock, secure=False)
        client.send(method, target, {"Host": host})
        return client.answer()

    def test_own_pages(self) -> None:
        """Whatever name the proxy is called by, also that of a registry."""
        for host in "proxy.example.com:3128", "127.0.0.1:3128", "plain.example.com":
            self.assertEqual(self.get("/", host).body, b"welcome")
            self.assertEqual(self.get("/healthz", host).body, b"ok")
        self.assertEqual(self.get("/v2/", "plain.example.com").status, 404)

    def test_registry(self) -> None:
        """A registry without TLS, at the port that its section is for."""
        for authority in "plain.example.com", "plain.example.com:5000", "PLAIN.example.com:80":
            for path in "", "/", "/v2/", "/v2/app/tags/list?n=1":
                answer = self.get(f"http://{authority}{path}", authority)
                self.assertEqual(answer.body, b"registries")

    def test_refused(self) -> None:
        """Nothing else: this is no open proxy."""
        for url, host in (
            ("http://tls.example.com/v2/", "tls.example.com"),
            ("http://example.org/", "example.org"),
            ("http://plain.example.com:8080/v2/", "plain.example.com:8080"),
            ("https://plain.example.com:5000/v2/", "plain.example.com:5000"),
            ("http://127.0.0.1:3128/healthz", "127.0.0.1:3128"),
            ("http://169.254.169.254/latest/", "169.254.169.254"),
        ):
            answer = self.get(url, host)
            self.assertEqual((answer.status, answer.error["code"]), (403, "DENIED"), url)
            self.assertEqual(answer["Proxy-Status"], "regproxy; error=http_request_denied")
        self.assertEqual(self.get("http://example.org/", "example.org", "HEAD").status, 403)

    def test_allowed(self) -> None:
        """Other http URLs where that is configured; never https ones, and registries as before."""
        config = evolve(CONFIG, relay=RelaySection(allow_http=True))
        for url, host, body in (
            ("http://example.org/a?b", "example.org", b"others"),
            ("http://example.org:8080/", "example.org:8080", b"others"),
            ("http://plain.example.com/v2/", "plain.example.com", b"registries"),
        ):
            self.assertEqual(self.get(url, host, config=config).body, body)
        url = "https://example.org/"
        self.assertEqual(self.get(url, "example.org", config=config).status, 403)
        self.assertEqual(self.get("/", "example.org", config=config).body, b"welcome")

    def test_other_host(self) -> None:
        """Target and Host have to agree."""
        self.assertEqual(self.get("http://plain.example.com/", "tls.example.com").status, 400)

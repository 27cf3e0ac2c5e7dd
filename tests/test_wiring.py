"""Tests for :mod:`regproxy.wiring`: everything is given to the right one."""

from __future__ import annotations

import json
import re
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from attrs import evolve
from cryptography import x509
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import (
    Config,
    DNSSection,
    ManagementSection,
    ProxySection,
    RegistrySection,
    RelaySection,
    TLSSection,
)
from regproxy.config.wayout import ParentProxy, UpstreamSection
from regproxy.dns import message as dns
from regproxy.dns.message import Query, Question, RCode, Type, read_answer
from regproxy.management.store_numbers import PATIENCE
from regproxy.oci.names import Host
from regproxy.tls.errors import CAError
from regproxy.tls.server import Handshakes
from regproxy.upstream.resolver import NameServerResolver
from regproxy.web.access_log import AccessRecord
from regproxy.wiring import Foundation, House, fingerprint
from tests.support.front import Answer
from tests.support.memory_network import MemoryNetwork
from tests.support.parents import HTTPParent
from tests.support.scripted_site import Asked, Say, ScriptedSite
from tests.support.streams import MemoryStream

PLAIN = Host("plain.example.com", 80)
SECURE = Host("secure.example.com")
API_REFERENCE = Path(__file__).resolve().parents[1] / "docs/reference/api.md"
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

    def with_config(self, **changes: Any) -> House:
        """A house whose configuration is another in these sections."""
        return House.build(self.foundation, evolve(self.config, **changes))

    def secure(self, stream: Stream, name: str | None) -> SecureClient:
        """TLS on *stream*, by a client of the proxy."""
        return SecureClient(stream, self.foundation.authority.certificate_pem, name)


class Stream(Protocol):
    """A connection as a client sees it."""

    def send(self, data: bytes) -> None:
        """Send *data*."""

    def take(self) -> bytes:
        """What has come."""


class SecureClient:
    """TLS on a connection, with trust in the proxy's CA only."""

    def __init__(self, stream: Stream, ca: bytes, name: str | None) -> None:
        self._stream = stream
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cadata=ca.decode())
        context.check_hostname = name is not None
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)

    def send(self, data: bytes) -> None:
        """Send *data* in the TLS."""
        self._tls.write(data)
        self._stream.send(self._out.read())

    def take(self) -> bytes:
        """What has come in the TLS."""
        self._in.write(self._stream.take())
        data = b""

        def read() -> None:
            nonlocal data
            while piece := self._tls.read(1 << 16):
                data += piece

        self._done(read)
        return data

    def shake_hands(self, network: MemoryNetwork) -> None:
        """Get the TLS ready.

        Raises:
            ssl.SSLError: the server is not to be trusted, or refuses.
        """
        while not self._done(self._tls.do_handshake):
            assert self._exchange(network), "the server says nothing"
        self._exchange(network)

    def get(self, network: MemoryNetwork, target: str, host: str) -> Answer:
        """What a GET gets.

        Raises:
            ssl.SSLError: the server is not to be trusted, or refuses.
        """
        self.shake_hands(network)
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        self.send(request.encode())
        network.flush()
        return Answer("GET", self.take())

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

    def test_set_up(self) -> None:
        """Both have the scripts, with that CA; the port in it is always the proxy's."""
        pem = (self.directory / "ca" / "ca.crt").read_bytes()
        for way, host in (("proxy", "x:3129"), ("management", "x:8080")):
            self.assertIn(b"/setup/docker", self.get(way, "/setup", host).body)
            script = self.get(way, "/setup/docker", host).body
            self.assertIn(pem, script)
            port = 3129 if way == "proxy" else 3128
            self.assertIn(f"\nproxy='http://x:{port}'\n".encode(), script)

    def test_rotation(self) -> None:
        """Who has fetched the CA once it was announced can go on when it has taken over."""
        authority = self.foundation.authority
        before = self.get("proxy", "/ca.crt", "x").body
        authority.adopt(authority.announced())
        announced = self.get("proxy", "/ca.crt", "x").body
        self.assertTrue(announced.startswith(before))
        self.pull(before)
        authority.adopt(authority.rotated())
        self.pull(announced)
        self.pull(self.get("management", "/ca.crt", "x").body)
        self.assertRaises(ssl.SSLError, self.pull, before)

    def pull(self, trusted: bytes) -> None:
        """Ask a registry through CONNECT."""
        stream = self.connect("proxy")
        stream.send(
            f"CONNECT {SECURE.authority} HTTP/1.1\r\nHost: {SECURE.authority}\r\n\r\n".encode()
        )
        stream.take()
        client = SecureClient(stream, trusted, SECURE.name)
        self.assertEqual(client.get(self.network, "/v2/", SECURE.name).body, b"{}")

    def test_tunnels(self) -> None:
        """Where they lead to is what ``[relay]`` says."""
        for relay, statuses in (
            (RelaySection(), {443: 403, 5000: 403}),
            (RelaySection(allow_private=True), {443: 200, 5000: 403}),
            (RelaySection(allow_private=True, any_port=True), {443: 200, 5000: 200}),
        ):
            house = self.with_config(relay=relay)
            for port, status in statuses.items():
                self.network.serve("inside.example.com", "10.0.0.7", port, self.registry)
                stream = self.connect("proxy", house)
                host = f"inside.example.com:{port}"
                stream.send(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                self.network.flush()
                self.assertEqual(Answer("CONNECT", stream.take()).status, status, (relay, port))

    def test_pages(self) -> None:
        """The dashboard is on the management port only; on the proxy port is what clients need."""
        shown = fingerprint(self.foundation).encode()
        for path in "/", "/ca.der", "/static/regproxy.css":
            self.assertEqual(self.get("proxy", path, "x").status, 200)
        self.assertIn(shown, self.get("proxy", "/", "x").body)
        self.assertIn(shown, self.get("management", "/ca", "x").body)
        for path in "/images", "/events", "/image", "/api/v1/stats":
            self.assertEqual(self.get("proxy", path, "x").status, 404)
        # The management port tells what the proxy port was asked.
        self.assertIn(b"/ca.der", self.get("management", "/events", "x").body)

    def test_metrics(self) -> None:
        """On the management port only: what happened on every way, and what registries said."""
        said = {b"RateLimit-Remaining": b"76;w=60"}
        self.registry.answerer = lambda asked: Say(200, said, b"{}")
        self.get("proxy", f"http://{PLAIN.name}/v2/", PLAIN.name)
        self.registry.answerer = lambda asked: Say(429, {b"Retry-After": b"60"})
        self.get("proxy", f"http://{PLAIN.name}/v2/", PLAIN.name)
        self.assertEqual(self.get("proxy", "/metrics", "x").status, 404)
        stream = self.connect("management")
        stream.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        # The store's threads, which would tell its numbers, do not run.
        self.network.pass_time(PATIENCE)
        page = Answer("GET", stream.take()).body.decode()
        for line in (
            'regproxy_requests_total{cache="pass",kind="ping",registry="plain.example.com:80",'
            'status="2xx",way="proxy"} 1.0',
            'regproxy_requests_total{cache="none",kind="other",registry="none",status="4xx",'
            'way="proxy"} 1.0',
            'regproxy_upstream_ratelimit_remaining{login="anonymous",'
            'registry="plain.example.com:80"} 76.0',
            'regproxy_upstream_backoff_seconds{registry="plain.example.com:80"} 58.0',
        ):
            self.assertIn(f"\n{line}\n", page)

    def test_traffic(self) -> None:
        """A request is seen among the last ones, in the history and in the registry's figures."""
        foundation = self.foundation
        foundation.history.tick()
        self.get("proxy", f"http://{PLAIN.name}/v2/a/manifests/latest", PLAIN.name)
        foundation.history.tick()
        (event,) = foundation.events.latest()
        self.assertEqual((event.registry, event.kind), (str(PLAIN), "tag"))
        (sample,) = foundation.history.samples()
        self.assertEqual((sample.requests, sample.hits), (1, 0))
        self.assertEqual((sample.bytes_to_clients, sample.bytes_from_upstream), (2, 2))
        figures = foundation.ledger.figures[str(PLAIN)]
        self.assertEqual((figures.bytes, sum(figures.first_byte.counts)), (2, 1))

    def test_api(self) -> None:
        """On the management port only, by the rules of the configuration."""
        path = "/api/v1/openapi.json"
        self.assertEqual(self.get("proxy", path, "x").status, 404)
        answer = self.get("management", path, "x")
        self.assertEqual(answer.status, 200)
        self.assertIn("/reload", json.loads(answer.body)["paths"])
        section = ManagementSection(read_from=("203.0.113.0/24",))
        house = House.build(self.foundation, evolve(self.config, management=section))
        self.assertEqual(self.get("management", path, "x", house).status, 403)

    def test_api_reference(self) -> None:
        """It names every operation, and none that there is not."""
        document = json.loads(self.get("management", "/api/v1/openapi.json", "x").body)
        served = {
            f"{method.upper()} {path}"
            for path, item in document["paths"].items()
            for method in item
        }
        named = set(re.findall(r"`([A-Z]+ /[^`?]*)`", API_REFERENCE.read_text()))
        self.assertEqual(named, served - {"GET /openapi.json"})

    def test_backoff_outlives_the_configuration(self) -> None:
        """A registry that wants to be left alone is, whatever is loaded meanwhile."""
        self.registry.answerer = lambda asked: Say(429, {b"Retry-After": b"60"})
        self.get("proxy", f"http://{PLAIN.name}/v2/", PLAIN.name)
        house = House.build(self.foundation, self.config)
        answer = self.get("proxy", f"http://{PLAIN.name}/v2/", PLAIN.name, house)
        self.assertEqual((answer.status, answer["Retry-After"]), (429, "60"))
        self.assertEqual(len(self.registry.asked), 1)

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

    def test_other_http(self) -> None:
        """Other http URLs are relayed where the configuration says so."""
        self.network.serve("site.example.com", "8.8.4.4", 80, self.registry)
        url = "http://site.example.com/page"
        self.assertEqual(self.get("proxy", url, "site.example.com").status, 403)
        config = evolve(self.config, relay=RelaySection(allow_http=True))
        house = House.build(self.foundation, config)
        answer = self.get("proxy", url, "site.example.com", house)
        self.assertEqual((answer.body, answer["X-From"]), (b"{}", "upstream"))
        self.assertEqual(self.network.dialled, [("8.8.4.4", 80)])
        # Unless it listens there itself.
        self.foundation.places.add("8.8.4.4", 80)
        self.assertEqual(self.get("proxy", url, "site.example.com", house).status, 403)

    def test_mirror(self) -> None:
        """By the mirror, which answers for guests what anybody may read."""
        realm = f"http://{PLAIN.name}/token"
        challenge = f'Bearer realm="{realm}",service="x"'.encode()

        def say(asked: Asked) -> Say:
            if asked.uri.startswith(b"/token"):
                return Say(200, {}, b'{"token": "anybody"}')
            if asked.header(b"authorization") == b"Bearer anybody":
                return Say(200, {b"Link": b"</v2/app/tags/list?last=b>"}, b"{}")
            return Say(401, {b"WWW-Authenticate": challenge})

        self.registry.answerer = say
        answer = self.get("mirror", f"/v2/{PLAIN}/app/tags/list", "mirror.example.com:5000")
        self.assertEqual((answer.status, answer.body), (200, b"{}"))
        self.assertEqual(answer["OCI-Namespace"], str(PLAIN))
        self.assertEqual(answer["Link"], "</v2/app/tags/list?last=b&ns=plain.example.com%3A80>")

    def test_connect(self) -> None:
        """Through CONNECT: the proxy's certificate for that name, then the registry."""
        stream = self.connect("proxy")
        stream.send(
            f"CONNECT {SECURE.authority} HTTP/1.1\r\nHost: {SECURE.authority}\r\n\r\n".encode()
        )
        self.assertTrue(stream.take().startswith(b"HTTP/1.1 200 "))
        client = self.secure(stream, SECURE.name)
        answer = client.get(self.network, "/v2/", SECURE.name)
        self.assertEqual((answer.body, answer["X-From"]), (b"{}", "upstream"))
        self.assertEqual(self.network.dialled, [("8.8.8.8", 80)])
        self.assertEqual(self.foundation.handshakes, Handshakes(completed=1))

    def test_connect_and_another_host(self) -> None:
        stream = self.connect("proxy")
        stream.send(
            f"CONNECT {SECURE.authority} HTTP/1.1\r\nHost: {SECURE.authority}\r\n\r\n".encode()
        )
        stream.take()
        client = self.secure(stream, SECURE.name)
        self.assertEqual(client.get(self.network, "/v2/", "ghcr.io").status, 421)
        self.assertEqual(self.network.dialled, [])

    def test_tls(self) -> None:
        """Straight, by SNI."""
        client = self.secure(self.connect("tls"), SECURE.name)
        answer = client.get(self.network, "/v2/", SECURE.name)
        self.assertEqual((answer.body, answer["X-From"]), (b"{}", "upstream"))

    def test_tls_at_another_port(self) -> None:
        """The handshake does not say the port; the request does."""
        host = Host("ports.example.com", 5000)
        section = RegistrySection(upstream=("https://origin.example.com",))
        self.network.serve("origin.example.com", "8.8.8.8", 443, self.registry, tls=True)
        house = self.with_config(registries={host: evolve(section, insecure=True)})
        for asked, status in (("ports.example.com:5000", 200), ("ports.example.com", 403)):
            client = self.secure(self.connect("tls", house), host.name)
            self.assertEqual(client.get(self.network, "/v2/", asked).status, status)

    def test_tls_and_another_host(self) -> None:
        """Server name and Host have to agree."""
        client = self.secure(self.connect("tls"), SECURE.name)
        self.assertEqual(client.get(self.network, "/v2/", "ghcr.io").status, 421)
        self.assertEqual(self.network.dialled, [])

    def test_tls_for_others(self) -> None:
        """There is no certificate for what is not intercepted; the log says why."""
        client = self.secure(self.connect("tls"), "example.org")
        with capturedLogs() as events, self.assertRaises(ssl.SSLError):
            client.get(self.network, "/v2/", "example.org")
        (record,) = [event["access"] for event in events if "access" in event]
        self.assertEqual((record.way, record.registry, record.status), ("tls", "example.org", 421))
        self.assertIn("not a registry", record.reason)

    def test_default_registry(self) -> None:
        """For clients that name no server, and ask for nothing else."""
        house = self.with_config(tls=TLSSection(default_registry=SECURE))
        for asked, status in ((SECURE.name, 200), ("ghcr.io", 421)):
            client = self.secure(self.connect("tls", house), None)
            self.assertEqual(client.get(self.network, "/v2/", asked).status, status)
        with self.assertRaises(ssl.SSLError):
            self.secure(self.connect("tls"), None).get(self.network, "/v2/", SECURE.name)

    def test_passthrough(self) -> None:
        """Somebody else's server answers, with its own certificate; the guard is the tunnels'."""
        house = self.with_config(tls=TLSSection(passthrough=True))
        self.network.serve("site.example.com", "8.8.4.4", 443, self.registry, tls=True)
        with capturedLogs() as events:
            with self.assertRaisesRegex(ssl.SSLError, "self.signed"):
                stream = self.connect("tls", house)
                self.secure(stream, "site.example.com").get(self.network, "/", "site.example.com")
            self.assertEqual(self.network.dialled, [("8.8.4.4", 443)])
            stream.lose(ConnectionDone())
            self.network.flush()
            self.network.names["inside.example.com"] = ["10.0.0.1"]
            with self.assertRaisesRegex(ssl.SSLError, "(?i)access.denied"):
                inside = self.secure(self.connect("tls", house), "inside.example.com")
                inside.get(self.network, "/", "inside.example.com")
        self.assertEqual(self.network.dialled, [("8.8.4.4", 443)])
        passed, refused = [event["access"] for event in events if "access" in event]
        for record, name in (passed, "site.example.com"), (refused, "inside.example.com"):
            self.assertEqual((record.way, record.method, record.registry), ("tls", "", name))
        self.assertEqual((passed.status, passed.cache), (200, "tunnel"))
        self.assertEqual((refused.status, refused.cache), (403, "none"))

    def test_http(self) -> None:
        """Plain HTTP to the names: a registry without TLS, and the way to the others."""
        answer = self.get("http", "/v2/", PLAIN.name)
        self.assertEqual((answer.body, answer["X-From"]), (b"{}", "upstream"))
        answer = self.get("http", "/v2/", SECURE.name)
        self.assertEqual(answer["Location"], f"https://{SECURE.name}/v2/")
        self.assertEqual(self.get("http", "/healthz", "example.org").status, 403)

    def test_own_tls(self) -> None:
        """The proxy port with TLS of its own: pages, and registries in a second TLS within."""
        proxy = ProxySection(tls_names=("proxy.example.com", "192.0.2.7"))
        house = self.with_config(proxy=proxy)
        for name in proxy.tls_names:
            outer = self.secure(self.connect("proxy", house), name)
            self.assertEqual(outer.get(self.network, "/healthz", name).body, b"ok\n")
        # Those who do not begin with TLS are answered as ever.
        self.assertEqual(self.get("proxy", "/healthz", "x", house).body, b"ok\n")
        outer = self.secure(self.connect("proxy", house), "proxy.example.com")
        outer.shake_hands(self.network)
        head = f"CONNECT {SECURE.authority} HTTP/1.1\r\nHost: {SECURE.authority}\r\n\r\n"
        outer.send(head.encode())
        self.network.flush()
        self.assertTrue(outer.take().startswith(b"HTTP/1.1 200 "))
        inner = self.secure(outer, SECURE.name)
        answer = inner.get(self.network, "/v2/", SECURE.name)
        self.assertEqual((answer.body, answer["X-From"]), (b"{}", "upstream"))

    def test_own_tls_only_once(self) -> None:
        """There is no TLS of the proxy's own within it."""
        house = self.with_config(proxy=ProxySection(tls_names=("proxy.example.com",)))
        outer = self.secure(self.connect("proxy", house), "proxy.example.com")
        outer.shake_hands(self.network)
        with self.assertRaisesRegex(AssertionError, "says nothing"):
            self.secure(outer, "proxy.example.com").shake_hands(self.network)

    def test_expired_ca(self) -> None:
        """CONNECT is told; TLS gets an alert."""
        self.patch(self.foundation.leaves, "_now", lambda: datetime(2100, 1, 1, tzinfo=UTC))
        stream = self.connect("proxy")
        head = f"CONNECT {SECURE.authority} HTTP/1.1\r\nHost: {SECURE.authority}\r\n\r\n"
        stream.send(head.encode())
        answer = Answer("CONNECT", stream.take())
        self.assertEqual(answer.status, 503)
        self.assertIn("CA certificate expired", answer.error["message"])
        with self.assertRaisesRegex(ssl.SSLError, "(?i)internal.error"):
            self.secure(self.connect("tls"), SECURE.name).shake_hands(self.network)

    def test_upstream_guard(self) -> None:
        """A registry at a private address is refused, without relay_private."""
        self.network.serve(PLAIN.name, "10.0.0.1", 80, self.registry)
        answer = self.get("proxy", f"http://{PLAIN.name}/v2/", PLAIN.name)
        self.assertEqual((answer.status, answer.error["code"]), (403, "DENIED"))
        self.assertEqual(self.network.dialled, [])

    def test_loop(self) -> None:
        """Where clients are led, and where this process listens, no registry is looked for."""
        config = evolve(
            self.config,
            dns=DNSSection(addresses=("9.9.9.9",)),
            registries={SECURE: RegistrySection(relay_private=True)},
        )
        self.foundation.places.add("9.9.9.8", 443)
        house = House.build(self.foundation, config)
        for address in "9.9.9.9", "9.9.9.8":
            self.network.serve(SECURE.name, address, 443, self.registry)
            client = SecureClient(
                self.connect("tls", house), self.foundation.authority.certificate_pem, SECURE.name
            )
            answer = client.get(self.network, "/v2/", SECURE.name)
            self.assertEqual(answer.status, 403)
            self.assertIn(f"{address} is this proxy itself", answer.error["message"])
            stream = self.connect("proxy", house)
            stream.send(f"CONNECT {address}:443 HTTP/1.1\r\nHost: {address}:443\r\n\r\n".encode())
            self.network.flush()
            self.assertEqual(Answer("CONNECT", stream.take()).status, 403)
        self.assertEqual(self.network.dialled, [])


class NamesTests(WiringTestCase):
    """The name server, and the proxy's own look-ups."""

    def test_leads_here(self) -> None:
        """Registries of the configuration; others are forwarded, or refused."""
        section = DNSSection(addresses=("10.0.0.5",), ttl=30.0, authoritative=True)
        house = House.build(self.foundation, evolve(self.config, dns=section))

        def ask(name: str) -> dns.Answer:
            query = Query(Question.about(name, Type.A), 7)
            answering = house.names.answer(query.encoded(), "10.0.0.9", datagram=True)
            message = self.successResultOf(Deferred.fromCoroutine(answering))
            assert message is not None
            return read_answer(message, query)

        found = ask(SECURE.name)
        self.assertEqual(found.addresses(Type.A), [ip_address("10.0.0.5")])
        self.assertEqual(found.lifetime, 30)
        # Port 80 is intercepted, not 443.
        self.assertEqual(ask(PLAIN.name).rcode, RCode.REFUSED)

    def test_resolver(self) -> None:
        """That of the system, unless there are name servers for it."""
        self.assertIs(self.house.resolver, self.network.nameResolver)
        section = DNSSection(upstream_resolvers=("10.0.0.2",))
        house = House.build(self.foundation, evolve(self.config, dns=section))
        self.assertIsInstance(house.resolver, NameServerResolver)


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
        self.assertEqual((record.way, record.kind), ("connect", "tunnel"))


class ParentTests(WiringTestCase):
    """Everything that goes out goes through the parent proxy."""

    def setUp(self) -> None:
        super().setUp()
        self.parent = HTTPParent(self.network)
        self.network.serve("parent", "10.0.0.1", 3128, self.parent)
        upstream = UpstreamSection(
            ParentProxy("http://10.0.0.1:3128"), no_proxy=("direct.example.com",)
        )
        self.house = House.build(self.foundation, evolve(self.config, upstream=upstream))

    def tunnel(self, target: str) -> tuple[int, MemoryStream]:
        stream = self.connect("proxy")
        stream.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        self.network.flush()
        return int(stream.take().split(b" ")[1]), stream

    def test_registry(self) -> None:
        self.assertEqual(self.get("proxy", f"http://{PLAIN.name}/v2/", PLAIN.name).body, b"{}")
        self.assertEqual(self.parent.asked, [(PLAIN.name, 80)])

    def test_tunnel(self) -> None:
        """By name, and bytes pass both ways."""
        self.network.serve("site.example.com", "8.8.4.4", 443, self.registry)
        status, stream = self.tunnel("site.example.com:443")
        self.assertEqual((status, self.parent.asked), (200, [("site.example.com", 443)]))
        stream.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.network.flush()
        self.assertEqual(Answer("GET", stream.take()).body, b"{}")

    def test_exception(self) -> None:
        self.network.serve("direct.example.com", "8.8.4.4", 443, self.registry)
        status, _ = self.tunnel("direct.example.com:443")
        self.assertEqual((status, self.parent.asked), (200, []))

    def test_refused(self) -> None:
        """What the parent would reach, and clients must not."""
        for target in "10.0.0.1:443", "127.0.0.1:443", "db:443", "a.internal:443", "a.b:22":
            self.assertEqual(self.tunnel(target)[0], 403, target)
        self.assertEqual(self.parent.asked, [])

    def test_unreachable(self) -> None:
        self.assertEqual(self.tunnel("gone.example.com:443")[0], 502)


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

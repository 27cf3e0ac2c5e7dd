"""Tests for :mod:`regproxy.listeners.relay`: http URLs, relayed to the hosts they name."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from attrs import evolve
from twisted.internet.interfaces import IAddress, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import Config, LimitsSection, RelaySection
from regproxy.config.wayout import ParentProxy, UpstreamSection
from regproxy.listeners.relay import RelayResource
from regproxy.policy.addresses import LeadsBack, nowhere
from regproxy.tls.client import VerifyingPolicy
from regproxy.upstream.ways_out import WaysOut
from regproxy.web.site import Entry, Limits, StrictSite
from tests.support.front import Answer
from tests.support.memory_network import MemoryNetwork
from tests.support.parents import HTTPParent
from tests.support.scripted_site import Asked, Say, ScriptedSite, redirect
from tests.support.sites import KeptLog
from tests.support.streams import MemoryStream

CONFIG = Config(
    data=Path("/nonexistent"),
    limits=LimitsSection(connect=5.0, upstream_head=20.0, upstream_idle=60.0),
    relay=RelaySection(allow_http=True),
)


class _Mute(Factory):
    """A server that says what it is told to, on its one connection."""

    lost = False
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        self._connection = connection = Protocol()
        connection.connectionLost = self._gone  # type: ignore[method-assign]
        return connection

    def say(self, data: bytes) -> None:
        cast(ITransport, self._connection.transport).write(data)

    def hang_up(self) -> None:
        cast(ITransport, self._connection.transport).loseConnection()

    def _gone(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class RelayTestCase(SynchronousTestCase):
    """A relay before a network in memory, in which there is one site."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.log = KeptLog()
        self.said = Say(200, {b"X-From": b"site"}, b"content")
        self.origin = ScriptedSite(self.network, lambda asked: self.said)
        self.network.serve("site.test", "8.8.8.8", 80, self.origin)
        self.start(CONFIG)

    def start(self, config: Config, own: LeadsBack = nowhere) -> None:
        ways_out = WaysOut(self.network, self.network.nameResolver, lambda trust: VerifyingPolicy())
        self.site = StrictSite(
            RelayResource(ways_out, config, own),
            Entry("proxy"),
            Limits(30.0, 300.0, 300.0),
            self.network,
            self.log,
        )

    def connect(self) -> MemoryStream:
        protocol = self.site.buildProtocol(None)
        assert protocol is not None
        return MemoryStream(protocol)

    def send(self, method: str, url: str, *fields: str, body: bytes = b"") -> MemoryStream:
        """A new client's request."""
        stream = self.connect()
        host = url.partition("://")[2].partition("/")[0]
        lines = [f"{method} {url} HTTP/1.1", f"Host: {host}", *fields, "", ""]
        stream.send("\r\n".join(lines).encode() + body)
        self.network.flush()
        return stream

    def ask(self, method: str, url: str, *fields: str, body: bytes = b"") -> Answer:
        """What a new client gets."""
        stream = self.send(method, url, *fields, body=body)
        data = b""
        while piece := stream.take():
            data += piece
            self.network.flush()
        return Answer(method, data)

    @property
    def asked(self) -> Asked:
        """The one request that came to the site."""
        (asked,) = self.origin.asked
        return asked


class RelayTests(RelayTestCase):
    """A request, and its answer."""

    def test_get(self) -> None:
        """To the site in origin form, and back, with what both say to each other."""
        answer = self.ask(
            "GET", "http://site.test/a?b=c", "Authorization: Basic eA==", "Cookie: d=e"
        )
        self.assertEqual((answer.status, answer.body), (200, b"content"))
        self.assertEqual((answer["X-From"], answer["Via"]), ("site", "1.1 regproxy"))
        self.assertEqual((self.asked.method, self.asked.uri), (b"GET", b"/a?b=c"))
        for name, value in (
            (b"host", b"site.test"),
            (b"authorization", b"Basic eA=="),
            (b"cookie", b"d=e"),
            (b"via", b"1.1 regproxy"),
        ):
            self.assertEqual(self.asked.header(name), value)

    def test_head(self) -> None:
        answer = self.ask("HEAD", "http://site.test/")
        self.assertEqual((answer.status, answer["Content-Length"]), (200, "7"))

    def test_body(self) -> None:
        """It goes on as it comes."""
        answer = self.ask("POST", "http://site.test/", "Content-Length: 4", body=b"body")
        self.assertEqual((answer.status, self.asked.body), (200, b"body"))

    def test_hop_by_hop(self) -> None:
        """Fields about a connection stay on it, both ways (RFC 9110 section 7.6.1)."""
        self.said = Say(200, {b"Keep-Alive": b"timeout=5", b"Upgrade": b"h2c"}, b"content")
        answer = self.ask(
            "GET",
            "http://site.test/",
            "Proxy-Authorization: Basic eA==",
            "Proxy-Connection: keep-alive",
            "Connection: X-Ours",
            "X-Ours: y",
            "Via: 1.1 other",
        )
        self.assertIsNone(answer["Keep-Alive"] or answer["Upgrade"])
        for name in b"proxy-authorization", b"proxy-connection", b"x-ours":
            self.assertIsNone(self.asked.header(name), name)
        self.assertEqual(self.asked.header(b"via"), b"1.1 other, 1.1 regproxy")

    def test_answers(self) -> None:
        """Whatever the site says; redirects are for the client."""
        for said in (
            redirect(b"http://10.0.0.1/"),
            Say(404, {b"Set-Cookie": b"a=b"}, b"no"),
            Say(304, {b"ETag": b'"x"'}),
            Say(503),
        ):
            self.said = said
            answer = self.ask("GET", "http://site.test/")
            self.assertEqual((answer.status, answer.body), (said.code, said.body))
            for name, value in said.headers.items():
                self.assertEqual(answer[name.decode()], value.decode())
        self.assertEqual(set(self.network.dialled), {("8.8.8.8", 80)})

    def test_nothing_is_kept(self) -> None:
        """Neither content nor connections: the next client may be another."""
        for _ in range(2):
            self.assertEqual(self.ask("GET", "http://site.test/").body, b"content")
        one, other = self.origin.asked
        self.assertNotEqual(one.connection, other.connection)

    def test_log(self) -> None:
        self.ask("GET", "http://site.test/a?secret=b")
        (record,) = self.log.records
        self.assertEqual((record.registry, record.reference), ("site.test:80", "/a"))
        self.assertEqual((record.way, record.cache, record.status), ("proxy", "pass", 200))


class GuardTests(RelayTestCase):
    """Whom it dials: as CONNECT, at port 80."""

    def refused(self, url: str) -> Answer:
        answer = self.ask("GET", url)
        self.assertEqual((answer.status, answer.error["code"]), (403, "DENIED"), url)
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=destination_ip_prohibited")
        return answer

    def test_refused(self) -> None:
        self.network.names["inside.test"] = ["10.0.0.1"]
        self.network.names["rebound.test"] = ["127.0.0.1", "169.254.169.254"]
        for url in (
            "http://inside.test/",
            "http://rebound.test/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://169.254.169.254/latest/",
            "http://site.test:8080/",
            "http://site.test:443/",
        ):
            self.refused(url)
        self.assertEqual(self.network.dialled, [])

    def test_listed(self) -> None:
        """``allow`` opens what it lists, at the port it says."""
        self.network.serve("inside.test", "10.0.0.1", 8080, self.origin)
        self.start(evolve(CONFIG, relay=RelaySection(("10.0.0.0/8:8080",), allow_http=True)))
        self.assertEqual(self.ask("GET", "http://inside.test:8080/").body, b"content")
        self.assertEqual(self.asked.header(b"host"), b"inside.test:8080")
        self.refused("http://inside.test/")

    def test_itself(self) -> None:
        """The proxy is not relayed to, whatever ``allow`` says."""
        config = evolve(CONFIG, relay=RelaySection(("8.8.8.8",), allow_http=True))
        self.start(config, lambda address, port: (address, port) == ("8.8.8.8", 80))
        self.refused("http://site.test/")


class ParentTests(RelayTestCase):
    """The site is reached through a parent proxy."""

    def test_parent(self) -> None:
        parent = HTTPParent(self.network)
        self.network.serve("parent.test", "10.0.0.1", 3128, parent)
        upstream = UpstreamSection(ParentProxy("http://parent.test:3128"))
        self.start(evolve(CONFIG, upstream=upstream))
        self.assertEqual(self.ask("GET", "http://site.test/a").body, b"content")
        self.assertEqual(parent.asked, [("site.test", 80)])
        self.assertEqual(self.ask("GET", "http://db/").status, 403)


class FailureTests(RelayTestCase):
    """When the site does not answer, or the client leaves."""

    def test_no_name(self) -> None:
        answer = self.ask("GET", "http://nowhere.test/")
        self.assertEqual(answer.status, 502)
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=dns_error")

    def test_no_connection(self) -> None:
        self.network.serve("silent.test", "8.8.4.4", 80, self.origin)
        self.network.silent.add("8.8.4.4")
        stream = self.send("GET", "http://silent.test/")
        self.network.pass_time(5.0)
        self.assertEqual(Answer("GET", stream.take()).status, 504)

    def test_no_answer(self) -> None:
        self.network.serve("mute.test", "8.8.4.4", 80, _Mute())
        stream = self.send("GET", "http://mute.test/")
        self.network.pass_time(19.9)
        self.assertEqual(stream.take(), b"")
        self.network.pass_time(0.2)
        answer = Answer("GET", stream.take())
        self.assertEqual(answer.status, 504)
        self.assertIn("mute.test:80 did not answer in time", answer.error["message"])

    def test_breaks_off(self) -> None:
        """The client must not take a part for the whole."""
        mute = _Mute()
        self.network.serve("mute.test", "8.8.4.4", 80, mute)
        stream = self.send("GET", "http://mute.test/")
        mute.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!")
        self.network.flush()
        answer = Answer("GET", stream.take())
        self.assertEqual((answer.status, answer.body, answer.whole), (200, b"five!", False))
        mute.hang_up()
        self.network.flush()
        self.assertTrue(stream.aborted)
        (record,) = self.log.records
        self.assertIn("ended before its length", record.reason or "")

    def test_client_leaves(self) -> None:
        """Then nobody waits for the answer."""
        mute = _Mute()
        self.network.serve("mute.test", "8.8.4.4", 80, mute)
        stream = self.send("GET", "http://mute.test/")
        stream.finish()
        self.network.flush()
        self.assertTrue(mute.lost)
        (record,) = self.log.records
        self.assertEqual(record.status, 499)

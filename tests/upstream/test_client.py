"""Tests for :mod:`regproxy.upstream.client`: real agents over a network in memory."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy import __version__
from regproxy.config.model import (
    Auth,
    Config,
    CredentialsSection,
    LimitsSection,
    RegistrySection,
    RelaySection,
)
from regproxy.config.wayout import Trust
from regproxy.interfaces import OWN_LOGIN, IMirrored, IUpstream
from regproxy.oci.names import Host, Repository
from regproxy.policy.upstreams import Sources
from regproxy.tls.client import VerifyingPolicy
from regproxy.upstream.body import read
from regproxy.upstream.client import Upstream
from regproxy.upstream.credentials import Credentials
from regproxy.upstream.errors import (
    AddressRefused,
    RedirectRefused,
    ResponseHeadTooLarge,
    UpstreamBroken,
    UpstreamError,
    UpstreamLoginFailed,
    UpstreamTimeout,
    UpstreamTLSFailed,
    UpstreamUnreachable,
)
from regproxy.upstream.ledger import Ledger, Mishap
from regproxy.upstream.rate_limits import RateLimits, Speaker
from regproxy.upstream.ways_out import WaysOut
from tests.support.memory_network import MemoryNetwork
from tests.support.scripted_site import Answerer, Say, ScriptedSite, redirect

REGISTRY = "registry.example.test"
FIRST = "first.example.test"
CDN = "cdn.example.net"
NAME = Repository("library/debian")
BEARER = b"Bearer of-a-client"
NOW = 1_700_000_000.0
LIMITS = LimitsSection(upstream_idle=10)
# An answer of whose body only a part comes.
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut "


class Silent(Protocol):
    """A server that reads and says nothing."""


class Speaking(Protocol):
    """A server that says the same thing to every request."""

    says = b""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.says)


def always(say: Say) -> Answerer:
    return lambda asked: say


def speaking(text: bytes) -> IProtocolFactory:
    return Factory.forProtocol(type("Saying", (Speaking,), {"says": text}))


class UpstreamCase(SynchronousTestCase):
    """A network with registries, all of whose certificates are accepted."""

    registries: ClassVar[Mapping[str, RegistrySection]] = {}
    relay: tuple[str, ...] = ()
    limits = LimitsSection(connect=10, upstream_head=25, upstream_idle=60)

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.config = config = Config(
            Path(self.mktemp()),
            registries={Host.parse(name): section for name, section in self.registries.items()},
            relay=RelaySection(self.relay),
            limits=self.limits,
        )
        self.rate_limits = RateLimits(self.network)
        self.ledger = Ledger(str, lambda: NOW)
        self.upstream = self.make(config)

    def make(self, config: Config) -> Upstream:
        ways_out = WaysOut(self.network, self.network.nameResolver, self.policy_for)
        credentials = Credentials(self.network, config.credentials, {})
        return Upstream(ways_out, config, credentials, self.rate_limits, self.ledger, lambda: NOW)

    def policy_for(self, trust: Trust) -> VerifyingPolicy:
        return VerifyingPolicy(insecure=True)

    def site(
        self,
        name: str,
        answerer: Answerer | Say,
        address: str = "8.8.8.8",
        port: int = 443,
        tls: bool = True,
    ) -> ScriptedSite:
        site = ScriptedSite(self.network, answerer)
        self.network.serve(name, address, port, site, tls)
        return site

    def ask(
        self,
        method: bytes = b"GET",
        target: bytes = b"/v2/",
        host: str = REGISTRY,
        headers: Mapping[bytes, bytes] | None = None,
        **options: Any,
    ) -> Deferred[IResponse]:
        fields = Headers({name: [value] for name, value in (headers or {}).items()})
        asking = Deferred.fromCoroutine(
            self.upstream.request(method, Host.parse(host), target, headers=fields, **options)
        )
        self.network.flush()
        return asking

    def answer(self, *args: Any, **options: Any) -> tuple[int, bytes]:
        """Status and body."""
        response = self.successResultOf(self.ask(*args, **options))
        return response.code, self.body(response)

    def body(self, response: IResponse) -> bytes:
        reading = Deferred.fromCoroutine(read(response, 1 << 20, LIMITS, self.network))
        self.network.flush()
        return self.successResultOf(reading)

    def refusal(self, kind: type[UpstreamError], *args: Any, **options: Any) -> str:
        """The message of the error."""
        return str(self.failureResultOf(self.ask(*args, **options), kind).value)


class PlainRequestTests(UpstreamCase):
    """A registry without a section of its own."""

    def test_interface(self) -> None:
        verifyObject(IUpstream, self.upstream)

    def test_answer(self) -> None:
        """Status, header and body come back; the target goes up as it is."""
        site = self.site(REGISTRY, Say(200, {b"X-Thing": b"1"}, b"content"))
        response = self.successResultOf(self.ask(target=b"/v2/a/b?n=1&last=%41"))
        self.assertEqual(response.headers.getRawHeaders(b"x-thing"), [b"1"])
        self.assertEqual((response.code, self.body(response)), (200, b"content"))
        self.assertEqual(site.asked[0].uri, b"/v2/a/b?n=1&last=%41")

    def test_header_rules(self) -> None:
        """Own Host, no coding, no cookies, no trace of the client, its agent's name kept."""
        site = self.site(REGISTRY, Say())
        self.answer(
            headers={
                b"Host": b"evil.example",
                b"Cookie": b"a=b",
                b"X-Forwarded-For": b"10.0.0.1",
                b"Authorization": b"Basic smuggled",
                b"Accept": b"application/json",
                b"User-Agent": b"containerd/2",
            }
        )
        asked = site.asked[0]
        self.assertEqual(
            {name.lower(): values for name, values in asked.headers.getAllRawHeaders()},
            {
                b"host": [REGISTRY.encode()],
                b"accept": [b"application/json"],
                b"accept-encoding": [b"identity"],
                b"user-agent": [b"containerd/2"],
            },
        )

    def test_user_agent(self) -> None:
        """Without a client's name our own goes up."""
        site = self.site(REGISTRY, Say())
        self.answer()
        self.assertEqual(site.asked[0].header(b"user-agent"), b"regproxy/" + __version__.encode())

    def test_body_is_not_decoded(self) -> None:
        """Content-Encoding is the client's business."""
        self.site(REGISTRY, Say(200, {b"Content-Encoding": b"gzip"}, b"\x1f\x8bnot really"))
        self.assertEqual(self.answer(), (200, b"\x1f\x8bnot really"))

    def test_target_cannot_name_a_host(self) -> None:
        """A target that would run into the host is a fault of the caller."""
        failure = self.failureResultOf(self.ask(target=b"@evil.example/"))
        self.assertIsInstance(failure.value, ValueError)
        self.assertEqual(self.network.dialled, [])

    def test_target_is_encoded(self) -> None:
        """Bytes that no URL holds are percent-encoded."""
        site = self.site(REGISTRY, Say())
        self.answer(target=b"/v2/\xff\r\nX: 1")
        self.assertEqual(site.asked[0].uri, b"/v2/%FF%0D%0AX:%201")

    def test_connections_are_kept(self) -> None:
        """The next request takes the same connection."""
        self.site(REGISTRY, Say(200, {}, b"x"))
        self.answer()
        self.answer()
        self.assertEqual(len(self.network.dialled), 1)

    def test_connections_are_not_shared(self) -> None:
        """A connection that carried one client's credentials is not used for another's."""
        site = self.site(REGISTRY, Say(200, {}, b"x"))
        for authorization in (b"Bearer 1", b"Bearer 2", None, b"Bearer 1"):
            self.answer(authorization=authorization)
        connections = [asked.connection for asked in site.asked]
        self.assertEqual(len(set(connections[:3])), 3)
        self.assertEqual(connections[3], connections[0])

    def test_close(self) -> None:
        """Idle connections are closed in the end."""
        self.site(REGISTRY, Say(200, {}, b"x"))
        self.answer()
        closing = self.upstream.close()
        self.network.flush()
        self.successResultOf(closing)
        self.assertTrue(self.network.pumps[0].clientIO.disconnected)

    def test_push(self) -> None:
        """A body goes up as it is, once, and its redirect comes back to the client."""
        site = self.site(REGISTRY, redirect(b"/elsewhere"))
        asking = self.ask(
            b"PUT", body=FileBodyProducer(BytesIO(b"layer"), cooperator=NoCooperator())
        )
        self.network.flush()
        self.assertEqual(self.successResultOf(asking).code, 307)
        self.assertEqual([asked.body for asked in site.asked], [b"layer"])


class NoCooperator:
    """Runs a task at once."""

    def cooperate(self, iterator: Any) -> Any:
        self.steps = list(iterator)
        return self

    def whenDone(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> None:
        """It is over already."""


class FailureTests(UpstreamCase):
    """What goes wrong has a name, and leaves no connection behind."""

    def test_unknown_name(self) -> None:
        self.assertEqual(
            self.refusal(UpstreamUnreachable), "the name registry.example.test does not resolve"
        )

    def test_refused_connection(self) -> None:
        self.network.names[REGISTRY] = ["8.8.8.8"]
        asking = self.ask()
        self.network.pass_time(1)
        failure = self.failureResultOf(asking, UpstreamUnreachable)
        self.assertIn("cannot connect to registry.example.test:443", str(failure.value))

    def test_private_address(self) -> None:
        self.site(REGISTRY, Say(), "10.0.0.7")
        self.assertIn("10.0.0.7 is a private address", self.refusal(AddressRefused))
        self.assertEqual(self.network.dialled, [])

    def test_slow_connection(self) -> None:
        self.site(REGISTRY, Say())
        self.network.silent.add("8.8.8.8")
        asking = self.ask()
        self.network.pass_time(10)
        self.failureResultOf(asking, UpstreamTimeout)

    def test_slow_answer(self) -> None:
        """The time for the head is absolute, however it drips; the connection is broken."""
        self.network.serve(REGISTRY, "8.8.8.8", 443, speaking(b"HTTP/1.1 200 OK\r\n"), tls=True)
        asking = self.ask(target=b"/v2/?secret=1")
        self.network.pass_time(24)
        self.assertNoResult(asking)
        self.network.pass_time(1)
        failure = self.failureResultOf(asking, UpstreamTimeout)
        self.assertEqual(str(failure.value), "registry.example.test did not answer in time")
        self.assertTrue(self.network.pumps[0].clientIO.disconnected)

    def test_cancel(self) -> None:
        """Cancelling breaks the connection and stays a cancellation."""
        self.network.serve(REGISTRY, "8.8.8.8", 443, Factory.forProtocol(Silent), tls=True)
        asking = self.ask()
        asking.cancel()
        self.network.flush()
        self.failureResultOf(asking, CancelledError)
        self.assertTrue(self.network.pumps[0].clientIO.disconnected)

    def test_not_http(self) -> None:
        self.network.serve(REGISTRY, "8.8.8.8", 443, speaking(b"SSH-2.0-x\r\n"), tls=True)
        self.assertEqual(
            self.refusal(UpstreamBroken),
            "registry.example.test answered with something that is not HTTP",
        )

    def test_closed(self) -> None:
        class Closing(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        self.network.serve(REGISTRY, "8.8.8.8", 443, Factory.forProtocol(Closing), tls=True)
        self.assertEqual(
            self.refusal(UpstreamBroken),
            "registry.example.test closed the connection before it answered",
        )

    def test_tls(self) -> None:
        """A server that does not speak TLS."""
        self.network.serve(REGISTRY, "8.8.8.8", 443, speaking(b"HTTP/1.1 400 No\r\n\r\n"))
        self.assertIn("TLS with registry.example.test failed", self.refusal(UpstreamTLSFailed))

    def test_endless_head(self) -> None:
        text = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000
        self.network.serve(REGISTRY, "8.8.8.8", 443, speaking(text), tls=True)
        self.refusal(ResponseHeadTooLarge)


class UntrustedTests(UpstreamCase):
    """With the real policy."""

    def policy_for(self, trust: Trust) -> VerifyingPolicy:
        return VerifyingPolicy()

    def test_certificate(self) -> None:
        """What is wrong with the certificate is said; nothing was sent."""
        site = self.site(REGISTRY, Say())
        self.assertIn("TLS with registry.example.test failed", self.refusal(UpstreamTLSFailed))
        self.assertEqual(site.asked, [])


@implementer(IBodyProducer)
class SlowBody:
    """A body that the test writes piece by piece."""

    length = 10

    def __init__(self) -> None:
        self.told: list[str] = []

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self.consumer = consumer
        self.done: Deferred[None] = Deferred()
        return self.done

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class UploadTests(UpstreamCase):
    """A push may take its time, as long as it moves."""

    limits = LimitsSection(connect=10, upstream_head=25, upstream_idle=60, upstream_upload=900)

    def upload(self, method: bytes = b"PUT") -> None:
        self.sent = SlowBody()
        self.asking = self.ask(method, body=self.sent)

    def finish(self) -> None:
        self.sent.consumer.write(b"x" * 10)
        self.sent.done.callback(None)
        self.network.flush()

    def test_body_does_not_come(self) -> None:
        """That is for its maker to see."""
        self.site(REGISTRY, Say(201)).timeOut = None
        self.upload()
        self.network.pass_time(10_000)
        self.finish()
        self.assertEqual(self.successResultOf(self.asking).code, 201)

    def test_server_takes_nothing(self) -> None:
        """As when it does not shake hands."""
        self.network.serve(REGISTRY, "8.8.8.8", 443, Factory.forProtocol(Silent))
        self.upload()
        self.sent.consumer.write(b"x")
        self.network.flush()
        self.assertEqual(self.sent.told, ["pause"])
        self.network.pass_time(60)
        self.failureResultOf(self.asking, UpstreamTimeout)

    def test_time_for_the_answer(self) -> None:
        """A registry may have a lot to do before it answers an upload."""
        for method, seconds in (b"PUT", 900), (b"PATCH", 900), (b"POST", 25):
            for body in SlowBody(), None:
                self.network.serve(REGISTRY, "8.8.8.8", 443, Factory.forProtocol(Silent), tls=True)
                self.sent = body or SlowBody()
                asking = self.ask(method, body=body)
                if body is not None:
                    self.finish()
                self.network.pass_time(seconds - 1)
                self.assertNoResult(asking)
                self.network.pass_time(1)
                self.failureResultOf(asking, UpstreamTimeout)

    def test_refused_early(self) -> None:
        """The refusal is the answer, and no more of the body is sent."""
        text = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nbody"
        self.network.serve(REGISTRY, "8.8.8.8", 443, speaking(text), tls=True)
        self.upload()
        response = self.successResultOf(self.asking)
        self.assertEqual((response.code, self.body(response)), (401, b"body"))
        self.assertEqual(self.sent.told[-1], "stop")
        self.assertTrue(self.network.pumps[0].clientIO.disconnected)

    def test_cancelled(self) -> None:
        """The server must not take a part for the whole: its connection is broken."""
        site = self.site(REGISTRY, Say(201))
        self.upload()
        self.sent.consumer.write(b"x")
        self.network.flush()
        self.asking.cancel()
        self.network.flush()
        self.failureResultOf(self.asking, CancelledError)
        self.assertTrue(self.network.pumps[0].clientIO.disconnected)
        self.assertEqual(site.asked, [])


class RedirectTests(UpstreamCase):
    """Redirects of GET and HEAD are followed here."""

    relay = ("10.9.9.9:443",)

    def test_followed(self) -> None:
        """Method, Range and Accept stay; credentials do not leave the registry."""
        self.site(REGISTRY, redirect(b"https://cdn.example.net/blob?sig=1"))
        cdn = self.site(CDN, Say(206, {}, b"part"), "8.8.4.4")
        fields = {b"Range": b"bytes=1-4", b"Accept": b"*/*"}
        self.assertEqual(self.answer(headers=fields, authorization=BEARER), (206, b"part"))
        asked = cdn.asked[0]
        self.assertEqual(asked.uri, b"/blob?sig=1")
        self.assertEqual(asked.header(b"range"), b"bytes=1-4")
        self.assertEqual(asked.header(b"accept"), b"*/*")
        self.assertEqual(asked.header(b"host"), CDN.encode())
        self.assertIsNone(asked.header(b"authorization"))

    def test_head(self) -> None:
        """HEAD stays HEAD, for every kind of redirect."""
        for code in (301, 302, 303, 307, 308):
            self.site(REGISTRY, redirect(b"https://cdn.example.net/", code))
            cdn = self.site(CDN, Say(), "8.8.4.4")
            self.assertEqual(self.answer(b"HEAD")[0], 200)
            self.assertEqual(cdn.asked[0].method, b"HEAD")
            self.setUp()

    def test_same_origin(self) -> None:
        """A relative Location keeps the credentials and the connection."""

        def answerer(asked: Any) -> Say:
            return Say() if asked.uri == b"/v2/other?x" else redirect(b"other?x#fragment")

        site = self.site(REGISTRY, answerer)
        self.answer(target=b"/v2/first", authorization=BEARER)
        self.assertEqual([a.header(b"authorization") for a in site.asked], [BEARER, BEARER])
        self.assertEqual(len(self.network.dialled), 1)

    def test_there_and_back(self) -> None:
        """Credentials that were dropped are not sent again."""

        def answerer(asked: Any) -> Say:
            return Say() if asked.uri == b"/back" else redirect(b"https://cdn.example.net/")

        site = self.site(REGISTRY, answerer)
        self.site(CDN, redirect(b"https://registry.example.test/back"), "8.8.4.4")
        self.answer(authorization=BEARER)
        self.assertEqual([a.header(b"authorization") for a in site.asked], [BEARER, None])

    def test_other_port(self) -> None:
        """Another port is another origin."""
        self.site(REGISTRY, redirect(b"https://registry.example.test:8443/"))
        other = self.site(REGISTRY, Say(), port=8443)
        self.answer(authorization=BEARER)
        self.assertIsNone(other.asked[0].header(b"authorization"))

    def test_refused(self) -> None:
        """What is not followed, and why."""
        reasons = {
            b"http://cdn.example.net/x": "redirects to plain http",
            b"http://registry.example.test:443/x": "redirects to plain http",
            b"https://user:pw@cdn.example.net/": "it holds user information",
            b"ftp://cdn.example.net/": "it is not a http or https URL",
            b"https://127.1/": "its host is invalid",
            b"/v2/": "redirects in a circle",
        }
        for location, reason in reasons.items():
            site = self.site(REGISTRY, redirect(location))
            self.assertIn(reason, self.refusal(RedirectRefused))
            self.assertEqual(len(site.asked), 1)
            self.setUp()

    def test_no_location(self) -> None:
        self.site(REGISTRY, Say(302))
        self.assertIn("without one Location", self.refusal(RedirectRefused))

    def test_too_many(self) -> None:
        """Five are followed, not six."""

        def counting(asked: Any) -> Say:
            number = int(asked.uri[1:])
            return redirect(b"/%d" % (number - 1)) if number else Say(200, {}, b"end")

        self.site(REGISTRY, counting)
        self.assertEqual(self.answer(target=b"/5"), (200, b"end"))
        self.assertIn("more than 5 redirects", self.refusal(RedirectRefused, target=b"/6"))

    def test_guard(self) -> None:
        """A redirect leads to permitted addresses only."""
        self.site(REGISTRY, redirect(b"https://cdn.example.net/"))
        self.site(CDN, Say(), "127.0.0.1")
        self.assertIn("127.0.0.1 is a loopback address", self.refusal(AddressRefused))

    def test_relay_allow(self) -> None:
        """An address that is listed is permitted here as well."""
        self.site(REGISTRY, redirect(b"https://cdn.example.net/"))
        self.site(CDN, Say(), "10.9.9.9")
        self.assertEqual(self.answer()[0], 200)

    def test_not_modified(self) -> None:
        """304 is no redirect."""
        self.site(REGISTRY, Say(304))
        self.assertEqual(self.successResultOf(self.ask()).code, 304)


class SectionTests(UpstreamCase):
    """Registries with sections: other addresses, prefixes, plain http."""

    registries: ClassVar = {
        REGISTRY: RegistrySection(upstream=("https://10.0.0.7:5000/prefix/",), relay_private=True),
        "plain.example.test:5000": RegistrySection(plain_http=True, relay_private=True),
        "blobs.example.test": RegistrySection(
            upstream=("https://10.0.0.8:5000",), relay_private=True
        ),
    }

    def test_base(self) -> None:
        """The base URL gives address, Host and prefix."""
        site = self.site("x", Say(), "10.0.0.7", 5000)
        self.answer(target=b"/v2/a", authorization=BEARER)
        self.assertEqual(site.asked[0].uri, b"/prefix/v2/a")
        self.assertEqual(site.asked[0].header(b"host"), b"10.0.0.7:5000")
        self.assertEqual(site.asked[0].header(b"authorization"), BEARER)

    def test_plain_http(self) -> None:
        site = self.site("plain.example.test", Say(), "127.0.0.1", 5000, tls=False)
        self.assertEqual(self.answer(host="plain.example.test:5000")[0], 200)
        self.assertEqual(site.asked[0].header(b"host"), b"plain.example.test:5000")

    def test_redirect_within(self) -> None:
        """The registry's servers may be named by identity or by address."""
        locations = [b"https://10.0.0.7:5000/prefix/2", b"https://registry.example.test/3"]

        def answerer(asked: Any) -> Say:
            return redirect(locations.pop(0)) if locations else Say()

        site = self.site("x", answerer, "10.0.0.7", 5000)
        self.answer(target=b"/1", authorization=BEARER)
        self.assertEqual([a.uri for a in site.asked], [b"/prefix/1", b"/prefix/2", b"/prefix/3"])
        self.assertEqual({a.header(b"authorization") for a in site.asked}, {BEARER})

    def test_redirect_to_private(self) -> None:
        """relay_private is for this registry's own servers, not for its redirects."""
        self.site("x", redirect(b"https://10.0.0.9/"), "10.0.0.7", 5000)
        self.assertIn("10.0.0.9 is a private address", self.refusal(AddressRefused))

    def test_redirect_to_section(self) -> None:
        """A host with its own section is reached as that says, without credentials."""
        self.site("x", redirect(b"https://blobs.example.test/b"), "10.0.0.7", 5000)
        blobs = self.site("y", Say(200, {}, b"blob"), "10.0.0.8", 5000)
        self.assertEqual(self.answer(authorization=BEARER), (200, b"blob"))
        self.assertEqual(blobs.asked[0].uri, b"/b")
        self.assertIsNone(blobs.asked[0].header(b"authorization"))

    def test_redirect_to_plain_section(self) -> None:
        """From https to http only where the target's section says so."""
        self.site("x", redirect(b"http://plain.example.test:5000/b"), "10.0.0.7", 5000)
        self.site("plain.example.test", Say(), "127.0.0.1", 5000, tls=False)
        self.assertEqual(self.answer()[0], 200)


class MirrorTests(UpstreamCase):
    """Several upstreams: mirrors, then the origin."""

    registries: ClassVar = {
        REGISTRY: RegistrySection(
            upstream=("https://mirror.example.org/hub", f"https://{REGISTRY}"),
            username="team",
            password="secret",
            auth=Auth.CLIENT_FIRST,
        ),
        FIRST: RegistrySection(upstream=("https://known.example.org", f"https://{FIRST}")),
        "known.example.org": RegistrySection(
            upstream=("https://10.0.0.9:5001",),
            username="mirror",
            password="anders",
            relay_private=True,
        ),
    }

    def mirror(self, answerer: Answerer | Say) -> ScriptedSite:
        return self.site("mirror.example.org", answerer, "8.8.4.4")

    def test_first(self) -> None:
        """The mirror answers, and says that it is one."""
        mirror = self.mirror(Say(200, {}, b"mirror"))
        origin = self.site(REGISTRY, Say())
        response = self.successResultOf(self.ask(sources=Sources.MIRRORS_FIRST))
        self.assertTrue(IMirrored.providedBy(response))
        self.assertEqual(self.body(response), b"mirror")
        self.assertEqual(mirror.asked[0].uri, b"/hub/v2/")
        self.assertEqual(origin.asked, [])

    def test_origin_only(self) -> None:
        """Unless a mirror's word counts."""
        mirror = self.mirror(Say())
        self.site(REGISTRY, Say(404))
        self.assertEqual(self.answer()[0], 404)
        self.assertEqual(mirror.asked, [])

    def test_fall_back(self) -> None:
        """A mirror that fails, or has it not, is passed over."""
        origin = self.site(REGISTRY, Say(200, {}, b"origin"))
        mirror = self.mirror(Say())
        for code in 404, 401, 403, 503:
            mirror.answerer = always(Say(code))
            answer = self.answer(sources=Sources.MIRRORS_FIRST)
            self.assertEqual(answer, (200, b"origin"))
        self.assertEqual((len(mirror.asked), len(origin.asked)), (4, 4))

    def test_redirect_to_nowhere(self) -> None:
        """Also when it is what the mirror redirects to that fails."""
        self.site(REGISTRY, Say(200, {}, b"origin"))
        mirror = self.mirror(Say())
        for location in b"http://plain.example.org/", b"x:y", b"https://gone.example.org/":
            mirror.answerer = always(redirect(location))
            answer = self.answer(sources=Sources.MIRRORS_FIRST)
            self.assertEqual(answer, (200, b"origin"))
        self.assertEqual(len(mirror.asked), 3)

    def test_fall_back_after_timeout(self) -> None:
        """Also when it takes too long; the next request does not wait for it again."""
        self.network.serve("mirror.example.org", "8.8.4.4", 443, Factory.forProtocol(Silent), True)
        self.site(REGISTRY, Say(200, {}, b"origin"))
        asking = self.ask(sources=Sources.MIRRORS_FIRST)
        self.network.pass_time(25)
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual(self.answer(sources=Sources.MIRRORS_FIRST), (200, b"origin"))

    def test_last_counts(self) -> None:
        """When all fail it is the origin's failure."""
        self.mirror(Say(500))
        self.site(REGISTRY, Say(502))
        self.assertEqual(self.answer(sources=Sources.MIRRORS_FIRST)[0], 502)

    def test_push(self) -> None:
        """A push goes to the origin alone, whatever is asked for."""
        mirror = self.mirror(Say())
        self.site(REGISTRY, Say(202))
        self.assertEqual(self.answer(b"POST", sources=Sources.MIRRORS_FIRST)[0], 202)
        self.assertEqual(mirror.asked, [])

    def test_clients_login(self) -> None:
        """It goes to the origin and not to the mirror."""
        mirror = self.mirror(Say(404))
        origin = self.site(REGISTRY, Say())
        self.answer(authorization=BEARER, sources=Sources.MIRRORS_FIRST)
        self.assertIsNone(mirror.asked[0].header(b"authorization"))
        self.assertEqual(origin.asked[0].header(b"authorization"), BEARER)

    def test_own_login(self) -> None:
        """Nor does the proxy's, whether the mirror asks for a password or for a token."""
        self.site(REGISTRY, Say(200, {}, b"origin"))
        service = self.site("auth.example.org", Say(200, {}, b'{"token": "any"}'), "1.0.0.1")
        mirror = self.mirror(Say())
        for challenge in (
            b"Basic",
            b'Bearer realm="https://auth.example.org/token"',
            b'Bearer realm="https://registry.example.test/token"',
        ):
            mirror.answerer = always(Say(401, {b"WWW-Authenticate": challenge}))
            answer = self.answer(
                authorization=OWN_LOGIN, repository=NAME, sources=Sources.MIRRORS_FIRST
            )
            self.assertEqual(answer, (200, b"origin"))
        sent = {asked.header(b"authorization") for asked in mirror.asked}
        self.assertEqual(sent, {None, b"Bearer any"})
        self.assertEqual({asked.header(b"authorization") for asked in service.asked}, {None})

    def test_realm_at_the_mirror(self) -> None:
        """A realm that the origin names is not trusted because the mirror is there."""
        self.site(
            REGISTRY, Say(401, {b"WWW-Authenticate": b'Bearer realm="https://x.example.org"'})
        )
        message = self.refusal(UpstreamLoginFailed, authorization=OWN_LOGIN, repository=NAME)
        self.assertIn("the credentials are not sent there", message)

    def test_anonymous_token(self) -> None:
        """A mirror that gives tokens to anybody gives one to the proxy."""
        realm = b'Bearer realm="https://auth.example.org/token",service="mirror"'

        def answerer(asked: Any) -> Say:
            if asked.header(b"authorization") == b"Bearer any":
                return Say(200, {}, b"in")
            return Say(401, {b"WWW-Authenticate": realm})

        self.mirror(answerer)
        service = self.site("auth.example.org", Say(200, {}, b'{"token": "any"}'), "1.0.0.1")
        answer = self.answer(authorization=BEARER, repository=NAME, sources=Sources.MIRRORS_FIRST)
        self.assertEqual(answer, (200, b"in"))
        self.assertEqual([asked.header(b"authorization") for asked in service.asked], [None])

    def test_login_at_the_mirror(self) -> None:
        """A mirror with a section is reached, and logged in to, as that says."""

        def answerer(asked: Any) -> Say:
            if asked.header(b"authorization") == b"Basic bWlycm9yOmFuZGVycw==":
                return Say(200, {}, b"in")
            return Say(401, {b"WWW-Authenticate": b"Basic"})

        mirror = self.site("x", answerer, "10.0.0.9", 5001)
        answer = self.answer(
            host=FIRST, authorization=BEARER, repository=NAME, sources=Sources.MIRRORS_FIRST
        )
        self.assertEqual(answer, (200, b"in"))
        sent = [asked.header(b"authorization") for asked in mirror.asked]
        self.assertEqual(sent, [None, b"Basic bWlycm9yOmFuZGVycw=="])

    def test_down(self) -> None:
        """Who has something else does not wait for a registry that is known to be down."""
        self.site(REGISTRY, Say())
        self.network.silent.add("8.8.8.8")
        first = self.ask()
        self.network.pass_time(10)
        self.failureResultOf(first, UpstreamTimeout)
        message = self.refusal(UpstreamUnreachable, patience=0)
        self.assertEqual(message, "no connection to registry.example.test:443 within 10 seconds")
        self.network.silent.clear()
        self.assertEqual(self.answer()[0], 200)


class InjectTests(UpstreamCase):
    """The proxy's own login, end to end. Details: test_auth."""

    registries: ClassVar = {
        REGISTRY: RegistrySection(auth=Auth.INJECT, username="team", password="secret"),
        "open.example.test": RegistrySection(),
        "auth.private.test": RegistrySection(
            upstream=("https://10.0.0.9:5001/auth",), relay_private=True
        ),
        "registry.private.test": RegistrySection(username="team", password="secret"),
        FIRST: RegistrySection(auth=Auth.CLIENT_FIRST, username="team", password="secret"),
    }

    def setUp(self) -> None:
        super().setUp()
        self.tokens = self.site("auth.example.test", Say(200, {}, b'{"token": "ours"}'), "8.8.4.4")

    @staticmethod
    def answerer(asked: Any) -> Say:
        if asked.header(b"authorization") == b"Bearer ours":
            return Say(200, {}, b"in")
        realm = b'Bearer realm="https://auth.example.test/token",service="registry"'
        return Say(401, {b"WWW-Authenticate": realm})

    def test_inject(self) -> None:
        """The client's Authorization stays here; the token is for the repository."""
        site = self.site(REGISTRY, self.answerer)
        self.assertEqual(self.answer(repository=NAME, authorization=BEARER), (200, b"in"))
        self.assertEqual([a.header(b"authorization") for a in site.asked], [None, b"Bearer ours"])
        asked = self.tokens.asked[0]
        self.assertEqual(
            asked.uri, b"/token?service=registry&scope=repository%3Alibrary%2Fdebian%3Apull"
        )
        self.assertEqual(asked.header(b"authorization"), b"Basic dGVhbTpzZWNyZXQ=")

    def test_one_connection(self) -> None:
        """All logins of the proxy are one principal."""
        self.site(REGISTRY, self.answerer)
        self.answer(repository=NAME)
        self.answer(repository=Repository("other"))
        self.assertEqual([port for _, port in self.network.dialled], [443, 443])

    def realm(self, realm: bytes) -> None:
        self.site("registry.private.test", Say(401, {b"WWW-Authenticate": realm}))

    def test_realm_with_section(self) -> None:
        """A token service with its own section is reached as that says."""
        self.realm(b'Bearer realm="https://auth.private.test/token"')
        site = self.site("x", Say(403), "10.0.0.9", 5001)
        self.refusal(UpstreamLoginFailed, host="registry.private.test")
        self.assertEqual([asked.uri for asked in site.asked], [b"/auth/token"])

    def test_realm_guard(self) -> None:
        """The realm's address is checked like any other."""
        self.realm(b'Bearer realm="https://10.0.0.9/token"')
        message = self.refusal(AddressRefused, host="registry.private.test", anonymous=True)
        self.assertIn("10.0.0.9 is a private address", message)

    def test_push(self) -> None:
        """Without inject the client's own credentials go up, and its challenge comes back."""
        site = self.site(REGISTRY, self.answerer)
        self.assertEqual(self.answer(b"PUT", authorization=BEARER, inject=False)[0], 401)
        self.assertEqual(site.asked[0].header(b"authorization"), BEARER)
        self.assertEqual(self.tokens.asked, [])

    def test_client_first(self) -> None:
        """The client's Authorization goes up, and the proxy's own login only when asked for."""
        site = self.site(FIRST, self.answerer)
        for authorization in (None, BEARER):
            answer = self.answer(host=FIRST, repository=NAME, authorization=authorization)
            self.assertEqual(answer[0], 401)
        self.assertEqual([a.header(b"authorization") for a in site.asked], [None, BEARER])
        self.assertEqual(self.tokens.asked, [])
        answer = self.answer(host=FIRST, repository=NAME, authorization=OWN_LOGIN)
        self.assertEqual(answer, (200, b"in"))

    def test_own_login_elsewhere(self) -> None:
        """It is no Authorization to send, and nothing for a push."""
        site = self.site("open.example.test", self.answerer)
        self.assertEqual(self.answer(host="open.example.test", authorization=OWN_LOGIN)[0], 401)
        self.assertEqual(site.asked[0].header(b"authorization"), None)
        site = self.site(FIRST, self.answerer)
        options = {"host": FIRST, "authorization": OWN_LOGIN, "inject": False}
        self.assertEqual(self.answer(b"PUT", **options)[0], 401)
        self.assertEqual(site.asked[0].header(b"authorization"), None)
        self.assertEqual(self.tokens.asked, [])

    def test_identity_token(self) -> None:
        """It goes to the token service in a form."""
        file = Path(self.mktemp())
        file.write_text('{"auths": {"registry.example.test": {"identitytoken": "geheim"}}}')
        config = evolve(self.config, credentials=CredentialsSection((file,)))
        config = evolve(config, registries={Host(REGISTRY): RegistrySection(auth=Auth.INJECT)})
        self.upstream = self.make(config)
        self.site(REGISTRY, self.answerer)
        self.assertEqual(self.answer(repository=NAME), (200, b"in"))
        (asked,) = self.tokens.asked
        self.assertEqual((asked.method, asked.uri), (b"POST", b"/token"))
        self.assertEqual(asked.header(b"authorization"), None)
        self.assertIn(b"refresh_token=geheim&service=registry&scope=", asked.body)
        self.assertEqual(asked.header(b"content-type"), b"application/x-www-form-urlencoded")

    def test_anonymous(self) -> None:
        """As anybody: a token without credentials, at any registry."""
        self.site(REGISTRY, self.answerer)
        self.site("open.example.test", self.answerer, "1.1.1.1")
        for host in (REGISTRY, "open.example.test"):
            answer = self.answer(host=host, repository=NAME, authorization=BEARER, anonymous=True)
            self.assertEqual(answer, (200, b"in"))
        self.assertEqual([a.header(b"authorization") for a in self.tokens.asked], [None, None])

    def test_redirect(self) -> None:
        """The proxy's token does not leave the registry, and a CDN's 401 is no challenge."""

        def answerer(asked: Any) -> Say:
            answer = self.answerer(asked)
            return redirect(b"https://cdn.example.net/") if answer.code == 200 else answer

        self.site(REGISTRY, answerer)
        cdn = self.site(CDN, Say(401), "1.0.0.1")
        self.assertEqual(self.answer(repository=NAME)[0], 401)
        self.assertEqual([a.header(b"authorization") for a in cdn.asked], [None])

    def test_rate_limits(self) -> None:
        """What each registry says is noted, by whose login it was asked with."""

        def answerer(asked: Any) -> Say:
            answer = self.answerer(asked)
            return answer if answer.code == 401 else Say(200, {b"RateLimit-Remaining": b"7"})

        self.site(REGISTRY, answerer)
        self.site("open.example.test", answerer, "1.1.1.1")
        self.answer(b"HEAD", repository=NAME, authorization=BEARER)
        self.answer(host="open.example.test", authorization=b"Bearer ours")
        self.answer(repository=NAME, anonymous=True)
        noted = [
            (Host(REGISTRY), Speaker.OWN),
            (Host("open.example.test"), Speaker.CLIENT),
            (Host(REGISTRY), Speaker.ANONYMOUS),
        ]
        self.assertEqual(list(self.rate_limits.readings()), noted)

    def test_rate_limits_elsewhere(self) -> None:
        """What a CDN says is not the registry's word."""
        self.site(REGISTRY, redirect(b"https://cdn.example.net/"))
        self.site(CDN, Say(200, {b"RateLimit-Remaining": b"7"}), "1.0.0.1")
        self.answer(repository=NAME)
        self.assertEqual(list(self.rate_limits.readings()), [(Host(CDN), Speaker.ANONYMOUS)])


class LedgerTests(UpstreamCase):
    """What goes wrong is counted for the registry that was asked for, once."""

    registries: ClassVar = {
        FIRST: RegistrySection(auth=Auth.INJECT, username="team", password="secret"),
        "mirrored.example.test": RegistrySection(
            upstream=("https://mirror.example.org/hub", "https://mirrored.example.test")
        ),
    }

    def errors(self, host: str) -> dict[str, int]:
        return dict(self.ledger.figures[host].errors)

    def test_exceptions(self) -> None:
        self.refusal(UpstreamUnreachable)
        self.network.serve(REGISTRY, "8.8.8.8", 443, speaking(b"SSH-2.0-x\r\n"), tls=True)
        self.refusal(UpstreamBroken)
        self.site(REGISTRY, redirect(b"http://plain.example.org/"))
        self.refusal(RedirectRefused)
        self.assertEqual(self.errors(REGISTRY), {"unresolved": 1, "broken": 1, "redirect": 1})

    def test_cancelled(self) -> None:
        """That a client did not wait is no failure of the registry."""
        self.network.serve(REGISTRY, "8.8.8.8", 443, Factory.forProtocol(Silent), tls=True)
        asking = self.ask()
        asking.cancel()
        self.network.flush()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.errors(REGISTRY), {})

    def test_statuses(self) -> None:
        """Those that say nothing about the question."""
        site = self.site(REGISTRY, Say())
        for code in 200, 401, 404, 429, 500, 503:
            site.answerer = always(Say(code))
            self.answer(b"HEAD" if code == 500 else b"GET")
        self.assertEqual(self.errors(REGISTRY), {"rate-limited": 1, "server-error": 2})
        self.assertEqual(
            self.ledger.figures[REGISTRY].last_error, Mishap(f"{REGISTRY} answered 503", NOW)
        )

    def test_push(self) -> None:
        self.site(REGISTRY, Say(503))
        self.answer(b"POST")
        self.assertEqual(self.errors(REGISTRY), {"server-error": 1})

    def test_mirror(self) -> None:
        """A mirror's are its registry's, whose word they are not."""
        host = "mirrored.example.test"
        self.site("mirror.example.org", Say(503), "8.8.4.4")
        self.site(host, Say(200, {}, b"origin"))
        self.assertEqual(self.answer(host=host, sources=Sources.MIRRORS_FIRST), (200, b"origin"))
        figures = self.ledger.figures[host]
        self.assertEqual(figures.last_error, Mishap("mirror.example.org answered 503", NOW))
        self.assertEqual(figures.bytes, len(b"origin"))
        self.assertEqual(list(self.ledger.figures), [host])

    def test_login(self) -> None:
        """With what the token service says."""
        realm = b'Bearer realm="https://auth.example.test/token",service="registry"'
        self.site(FIRST, Say(401, {b"WWW-Authenticate": realm}))
        tokens = self.site("auth.example.test", Say(403, {}, b"no"), "8.8.4.4")
        self.refusal(UpstreamLoginFailed, host=FIRST, repository=NAME)
        self.assertEqual(self.errors(FIRST), {"login": 1})
        tokens.answerer = always(Say(200, {}, b"{}"))
        self.refusal(UpstreamBroken, host=FIRST, repository=NAME)
        self.assertEqual(self.errors(FIRST), {"login": 1, "broken": 1})
        self.assertEqual(list(self.ledger.figures), [FIRST])

    def test_token(self) -> None:
        """A token that does not come whole is one failure, too."""
        realm = b'Bearer realm="https://auth.example.test/token",service="registry"'
        self.site(FIRST, Say(401, {b"WWW-Authenticate": realm}))
        self.network.serve("auth.example.test", "8.8.4.4", 443, speaking(CUT), tls=True)
        asking = self.ask(host=FIRST, repository=NAME)
        self.network.pass_time(60)
        self.failureResultOf(asking, UpstreamTimeout)
        self.assertEqual(self.errors(FIRST), {"timeout": 1})

    def test_bytes(self) -> None:
        """Those of bodies that are read."""
        self.site(REGISTRY, Say(200, {}, b"content"))
        self.answer()
        self.answer(b"HEAD")
        self.assertEqual(self.ledger.figures[REGISTRY].bytes, len(b"content"))

    def test_body(self) -> None:
        """What goes wrong when the answer has begun."""
        self.network.serve(REGISTRY, "8.8.8.8", 443, speaking(CUT), tls=True)
        response = self.successResultOf(self.ask())
        reading = Deferred.fromCoroutine(read(response, 1 << 20, LIMITS, self.network))
        self.network.pass_time(10)
        self.failureResultOf(reading, UpstreamTimeout)
        self.assertEqual(self.ledger.figures[REGISTRY].bytes, 4)
        self.assertEqual(self.errors(REGISTRY), {"timeout": 1})

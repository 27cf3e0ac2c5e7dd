"""Tests for :mod:`regproxy.registry.backoff`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyClass

from regproxy.interfaces import NO_PATIENCE, IMirrored, IUpstream
from regproxy.oci.names import Host
from regproxy.policy.upstreams import Sources
from regproxy.registry import backoff
from regproxy.registry.backoff import BackOff, ConsiderateUpstream
from regproxy.upstream.errors import RateLimited
from tests.support.upstream import FakeUpstream, Reply

HOST = Host("registry.example.com")
OTHER = Host("other.example.com")
TARGET = "/v2/app/tags/list"


def limited(**headers: str) -> Reply:
    return Reply(429, {name.replace("_", "-"): value for name, value in headers.items()})


class ConsiderateUpstreamTests(SynchronousTestCase):
    """ConsiderateUpstream and BackOff"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.upstream = FakeUpstream()
        self.backoff = BackOff(self.clock, lambda: 1_000_000.0 + self.clock.seconds())
        self.considerate = ConsiderateUpstream(self.upstream, self.backoff, 10.0)
        for host in HOST, OTHER:
            self.upstream.on("GET", f"{host}{TARGET}", Reply(200))

    def ask(self, host: Host = HOST, **details: Any) -> Deferred[IResponse]:
        return ensureDeferred(
            self.considerate.request(b"GET", host, TARGET.encode(), headers=Headers(), **details)
        )

    def limit(self, reply: Reply) -> None:
        """Have the next answer be *reply*, and later ones be good."""
        self.upstream.on("GET", f"{HOST}{TARGET}", reply, Reply(200))
        self.assertEqual(self.successResultOf(self.ask()).code, 429)
        self.upstream.questions()

    def test_interface(self) -> None:
        verifyClass(IUpstream, FakeUpstream)
        self.assertTrue(IUpstream.implementedBy(ConsiderateUpstream))

    def test_says_when(self) -> None:
        """A 429 tells the client when to come again, also where upstream does not."""
        for said, told in (None, "10"), ("7", "7"):
            self.limit(limited() if said is None else limited(Retry_After=said))
            (response,) = self.upstream.responses[-1:]
            self.assertEqual(response.headers.getRawHeaders("retry-after"), [told])
            self.clock.advance(10)

    def test_passes(self) -> None:
        self.assertEqual(self.successResultOf(self.ask()).code, 200)

    def test_short_rest_is_waited_for(self) -> None:
        """Nobody asks before, and then all do."""
        self.limit(limited(Retry_After="10"))
        first, second = self.ask(), self.ask()
        self.clock.advance(9.5)
        self.assertNoResult(first)
        self.assertEqual(self.upstream.questions(), [])
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(first).code, 200)
        self.assertEqual(self.successResultOf(second).code, 200)

    def test_long_rest_is_not_waited_for(self) -> None:
        self.limit(limited(Retry_After="60"))
        self.clock.advance(20)
        error = self.failureResultOf(self.ask(), RateLimited).value
        self.assertEqual(error.retry_after, 40.0)
        self.assertEqual(self.upstream.questions(), [])
        self.clock.advance(40)
        self.assertEqual(self.successResultOf(self.ask()).code, 200)

    def test_each_registry_for_itself(self) -> None:
        self.limit(limited(Retry_After="60"))
        self.assertEqual(self.successResultOf(self.ask(OTHER)).code, 200)

    def test_longer_each_time(self) -> None:
        """A registry that does not say how long is left alone for ever longer."""
        for length in backoff.FIRST, backoff.FIRST * 2, backoff.FIRST * 4:
            self.limit(limited())
            self.assertEqual(self.backoff.left(HOST), length)
            self.clock.advance(length)

    def test_resting(self) -> None:
        """Who is left alone, and for how long yet."""
        self.assertEqual(self.backoff.resting(), {})
        self.limit(limited(Retry_After="60"))
        self.clock.advance(20)
        self.assertEqual(self.backoff.resting(), {HOST: 40.0})
        self.clock.advance(40)
        self.assertEqual(self.backoff.resting(), {})

    def test_forgiven(self) -> None:
        """A good answer makes the next back-off a first one."""
        self.limit(limited())
        self.clock.advance(backoff.FIRST)
        self.successResultOf(self.ask())
        self.limit(limited())
        self.assertEqual(self.backoff.left(HOST), backoff.FIRST)

    def test_bounds(self) -> None:
        self.limit(limited(Retry_After="0"))
        self.assertEqual(self.backoff.left(HOST), 1.0)
        self.clock.advance(1)
        self.limit(limited(Retry_After="999999999"))
        self.assertEqual(self.backoff.left(HOST), backoff.LONGEST)

    def test_waiting_does_not_help(self) -> None:
        """What comes in meanwhile may make the rest longer than one waits."""
        self.limit(limited(Retry_After="5"))
        waiting = self.ask()
        self.backoff.note(HOST, self.answer(limited(Retry_After="60")))
        self.clock.advance(5)
        self.failureResultOf(waiting, RateLimited)

    def mirror(self, *replies: Reply) -> None:
        self.upstream.on("GET", f"{HOST}{TARGET}", *replies, mirror=True)

    def test_mirrors_go_on(self) -> None:
        """What they have is had without a wait, and what they have not waits as ever."""
        self.limit(limited(Retry_After="5"))
        self.mirror(Reply(200), Reply(404))
        answer = self.successResultOf(self.ask(sources=Sources.MIRRORS_FIRST))
        self.assertTrue(IMirrored.providedBy(answer))
        asking = self.ask(sources=Sources.MIRRORS_FIRST)
        asked = f"GET mirror of {HOST}{TARGET}"
        self.assertEqual(self.upstream.questions(), [asked, asked])
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual(self.upstream.questions(), [f"GET {HOST}{TARGET}"])

    def test_mirrors_do_not_count(self) -> None:
        """Their answers say nothing about the registry."""
        self.limit(limited())
        self.clock.advance(backoff.FIRST)
        self.mirror(Reply(200))
        self.successResultOf(self.ask(sources=Sources.MIRRORS_FIRST))
        self.limit(limited())
        self.assertEqual(self.backoff.left(HOST), backoff.FIRST * 2)

    def test_no_patience(self) -> None:
        """Who has something else does not wait for a turn."""
        self.limit(limited(Retry_After="5"))
        self.failureResultOf(self.ask(patience=NO_PATIENCE), RateLimited)

    def answer(self, reply: Reply) -> IResponse:
        self.upstream.on("HEAD", f"{HOST}/", reply)
        asking = self.upstream.request(b"HEAD", HOST, b"/", headers=Headers())
        return self.successResultOf(ensureDeferred(asking))

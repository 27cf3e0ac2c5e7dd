"""Tests for :mod:`regproxy.upstream.race`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError, NoRouteError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from regproxy.config.wayout import Family
from regproxy.upstream.race import ATTEMPT_DELAY, arranged, race
from tests.support.streams import MemoryEndpoint

V4 = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
V6 = ("2001:db8::1", "2001:db8::2")

FACTORY = Factory.forProtocol(Protocol)


class ArrangedTests(SynchronousTestCase):
    """arranged: the order of addresses."""

    def test_turns(self) -> None:
        """Families take turns; that of the first address begins."""
        self.assertEqual(arranged([*V6, *V4], Family.ANY), [V6[0], V4[0], V6[1], V4[1], V4[2]])
        self.assertEqual(arranged([*V4, *V6], Family.ANY), [V4[0], V6[0], V4[1], V6[1], V4[2]])
        self.assertEqual(arranged([], Family.ANY), [])

    def test_preference(self) -> None:
        for family, first in (Family.PREFER_IPV4, V4[0]), (Family.PREFER_IPV6, V6[0]):
            for addresses in [*V4, *V6], [*V6, *V4]:
                self.assertEqual(arranged(addresses, family)[0], first)
                self.assertEqual(len(arranged(addresses, family)), 5)

    def test_one_family(self) -> None:
        self.assertEqual(arranged([*V6, *V4], Family.IPV4), list(V4))
        self.assertEqual(arranged([*V4, *V6], Family.IPV6), list(V6))
        self.assertEqual(arranged(V4, Family.IPV6), [])

    @given(st.lists(st.ip_addresses().map(str), unique=True), st.sampled_from(Family))
    def test_any(self, addresses: list[str], family: Family) -> None:
        """Each address once, in the resolver's order within its family."""
        found = arranged(addresses, family)
        ipv4 = [each for each in addresses if ":" not in each]
        ipv6 = [each for each in addresses if ":" in each]
        expected = {Family.IPV4: (ipv4, []), Family.IPV6: ([], ipv6)}.get(family, (ipv4, ipv6))
        self.assertEqual([each for each in found if ":" not in each], expected[0])
        self.assertEqual([each for each in found if ":" in each], expected[1])


@implementer(IStreamClientEndpoint)
class FailingEndpoint:
    """One whose attempts fail before they have begun."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = Deferred()
        connecting.errback(NoRouteError())
        return connecting


class RaceTests(SynchronousTestCase):
    """race: who is dialled when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoints = [MemoryEndpoint() for _ in range(3)]
        self.racing = race(self.clock, self.endpoints, FACTORY)

    def dialled(self) -> list[bool]:
        return [endpoint.dialled for endpoint in self.endpoints]

    def cancelled(self) -> list[bool]:
        return [endpoint.cancelled for endpoint in self.endpoints]

    def assertNothingLeft(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_first(self) -> None:
        """One attempt is enough when it succeeds soon."""
        self.endpoints[0].accept()
        self.assertIsInstance(self.successResultOf(self.racing), Protocol)
        self.assertEqual(self.dialled(), [True, False, False])
        self.assertNothingLeft()

    def test_slow(self) -> None:
        """The next begins after a moment, beside the first, which may still win."""
        self.clock.advance(ATTEMPT_DELAY)
        self.assertEqual(self.dialled(), [True, True, False])
        self.assertEqual(self.cancelled(), [False] * 3)
        self.endpoints[0].accept()
        self.assertIsInstance(self.successResultOf(self.racing), Protocol)
        self.assertEqual(self.cancelled(), [False, True, False])
        self.assertNothingLeft()

    def test_refused(self) -> None:
        """After a failure the next begins at once."""
        self.endpoints[0].fail(ConnectionRefusedError())
        self.assertEqual(self.dialled(), [True, True, False])
        self.clock.advance(ATTEMPT_DELAY / 2)
        self.endpoints[1].fail(ConnectionRefusedError())
        self.assertEqual(self.dialled(), [True] * 3)
        self.endpoints[2].accept()
        self.successResultOf(self.racing)
        self.assertNothingLeft()

    def test_delay_begins_anew(self) -> None:
        """It is between attempts: one that began early is given its time."""
        self.clock.advance(ATTEMPT_DELAY / 2)
        self.endpoints[0].fail(ConnectionRefusedError())
        self.clock.advance(ATTEMPT_DELAY / 2)
        self.assertEqual(self.dialled(), [True, True, False])

    def test_all_fail(self) -> None:
        """It is over with the last failure, and no moment later."""
        self.clock.advance(ATTEMPT_DELAY)
        self.clock.advance(ATTEMPT_DELAY)
        self.endpoints[2].fail(ConnectionRefusedError())
        self.endpoints[0].fail(ConnectionRefusedError())
        self.assertNoResult(self.racing)
        self.endpoints[1].fail(NoRouteError())
        self.failureResultOf(self.racing, NoRouteError)
        self.assertNothingLeft()

    def test_fail_at_once(self) -> None:
        """An address family without a route costs nothing."""
        last = MemoryEndpoint()
        racing = race(self.clock, [FailingEndpoint(), FailingEndpoint(), last], FACTORY)
        self.assertTrue(last.dialled)
        last.accept()
        self.successResultOf(racing)
        self.failureResultOf(race(self.clock, [FailingEndpoint()], FACTORY), NoRouteError)

    def test_cancel(self) -> None:
        """All attempts are stopped, and no other begins."""
        self.clock.advance(ATTEMPT_DELAY)
        self.racing.cancel()
        self.failureResultOf(self.racing, CancelledError)
        self.assertEqual(self.cancelled(), [True, True, False])
        self.assertNothingLeft()
        self.assertEqual(self.dialled(), [True, True, False])

"""Tests for :mod:`regproxy.upstream.dial`."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IResolutionReceiver,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from regproxy.policy.addresses import AddressGuard
from regproxy.upstream.dial import GuardedEndpoint
from regproxy.upstream.errors import AddressRefused, UpstreamTimeout, UpstreamUnreachable


@implementer(IHostResolution)
class Resolution:
    """A resolution like those of Twisted, which cannot be cancelled."""

    name = "registry.example.test"

    def cancel(self) -> None:
        raise NotImplementedError


@implementer(IHostnameResolver)
class FakeResolver:
    """Gives other answers at each look-up, the last ones again and again; counts look-ups."""

    def __init__(self, *answers: Sequence[str] | None) -> None:
        self.answers = list(answers)
        self.lookups = 0
        self.open: list[IResolutionReceiver] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        answer = self.answers[min(self.lookups, len(self.answers) - 1)]
        self.lookups += 1
        resolution = Resolution()
        resolutionReceiver.resolutionBegan(resolution)
        if answer is None:
            self.open.append(resolutionReceiver)
            return resolution
        for address in answer:
            family = IPv6Address if ":" in address else IPv4Address
            resolutionReceiver.addressResolved(family("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


class GuardedEndpointTests(SynchronousTestCase):
    """:class:`GuardedEndpoint`: what is dialled is what was checked."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def connect(
        self,
        *answers: Sequence[str] | None,
        host: str = "registry.example.test",
        guard: AddressGuard | None = None,
    ) -> Deferred[IProtocol]:
        self.resolver = FakeResolver(*answers)
        self.reactor.installNameResolver(self.resolver)
        endpoint = GuardedEndpoint(self.reactor, host, 443, guard or AddressGuard(), 10.0)
        return endpoint.connect(Factory.forProtocol(Protocol))

    def dialled(self) -> list[str]:
        return [client[0] for client in self.reactor.tcpClients]

    def test_public(self) -> None:
        """A public address is dialled at the asked port, after one look-up."""
        connecting = self.connect(["1.1.1.1"], ["127.0.0.1"])
        self.assertNoResult(connecting)
        self.assertEqual(self.reactor.tcpClients[0][:2], ("1.1.1.1", 443))
        self.assertEqual(self.resolver.lookups, 1)

    def test_refused(self) -> None:
        """When every address is refused nothing is dialled, and the reason is given."""
        failure = self.failureResultOf(self.connect(["169.254.169.254", "::1"]), AddressRefused)
        self.assertEqual(
            failure.value.message,
            "connections to registry.example.test:443 are not allowed:"
            " 169.254.169.254 is a link-local address",
        )
        self.assertEqual(self.dialled(), [])

    def test_mixed(self) -> None:
        """Of mixed answers only the permitted ones are dialled, however often that fails."""
        connecting = self.connect(["10.0.0.1", "2606:4700::1", "1.1.1.1"])
        self.reactor.advance(0.3)
        self.reactor.advance(5)
        self.assertEqual(self.dialled(), ["2606:4700::1", "1.1.1.1"])
        self.assertNoResult(connecting)

    def test_literal(self) -> None:
        """An address literal is checked as well, without a look-up."""
        self.failureResultOf(self.connect([], host="127.0.0.1"), AddressRefused)
        self.failureResultOf(self.connect([], host="::ffff:10.0.0.1"), AddressRefused)
        self.connect([], host="2606:4700::1")
        self.assertEqual(self.dialled(), ["2606:4700::1"])
        self.assertEqual(self.resolver.lookups, 0)

    def test_private_allowed(self) -> None:
        """The guard decides: a private registry is reached."""
        self.connect(["127.0.0.1"], guard=AddressGuard.private_allowed())
        self.assertEqual(self.dialled(), ["127.0.0.1"])

    def test_unknown_name(self) -> None:
        """A name without addresses cannot be reached."""
        failure = self.failureResultOf(self.connect([]), UpstreamUnreachable)
        self.assertIn("registry.example.test does not resolve", failure.value.message)

    def test_nothing_answers(self) -> None:
        """The last refusal of a connection is the reason."""
        connecting = self.connect(["1.1.1.1"])
        factory = self.reactor.tcpClients[0][2]
        factory.clientConnectionFailed(
            self.reactor.connectors[0], Failure(ConnectionRefusedError())
        )
        self.reactor.advance(1)
        failure = self.failureResultOf(connecting, UpstreamUnreachable)
        self.assertIn("cannot connect to registry.example.test:443", failure.value.message)

    def test_connected(self) -> None:
        """The result is the protocol of the factory."""
        connecting = self.connect(["1.1.1.1"])
        protocol = self.reactor.tcpClients[0][2].buildProtocol(IPv4Address("TCP", "1.1.1.1", 443))
        assert protocol is not None
        protocol.makeConnection(self.reactor.connectors[0])
        self.assertIsInstance(self.successResultOf(connecting), Protocol)

    def test_slow_lookup(self) -> None:
        """The time is for the look-up, too; an answer after that is ignored."""
        connecting = self.connect(None)
        self.reactor.advance(10)
        failure = self.failureResultOf(connecting, UpstreamTimeout)
        self.assertEqual(
            failure.value.message, "no connection to registry.example.test:443 within 10 seconds"
        )
        self.resolver.open[0].resolutionComplete()
        self.assertEqual(self.dialled(), [])

    def test_slow_connection(self) -> None:
        """The attempts are stopped when time is up."""
        connecting = self.connect(["1.1.1.1"])
        self.reactor.advance(10)
        self.failureResultOf(connecting, UpstreamTimeout)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)

    def test_cancel(self) -> None:
        """Cancelling stops the attempts and is no failure of the upstream."""
        connecting = self.connect(["1.1.1.1"])
        connecting.cancel()
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        failure = self.failureResultOf(connecting)
        self.assertIsInstance(failure.value, (CancelledError, ConnectingCancelledError))
        cancelled = self.connect(None)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

"""Tests for :mod:`regproxy.upstream.dial`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IReactorTime,
    IResolutionReceiver,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from regproxy.config.wayout import Family
from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard
from regproxy.upstream.dial import Dialler, DialReactor, GuardedEndpoint
from regproxy.upstream.errors import (
    AddressRefused,
    NameUnresolved,
    UpstreamTimeout,
    UpstreamUnreachable,
)

PUBLIC_ONLY = AddressGuard()


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
        guard: AddressGuard | None = PUBLIC_ONLY,
        family: Family = Family.ANY,
        role: str = "",
        sources: tuple[str, ...] = (),
    ) -> Deferred[IProtocol]:
        self.resolver = FakeResolver(*answers)
        reach = Dialler(self.reactor, 443, 10.0, sources)
        endpoint = GuardedEndpoint(
            self.reactor, self.resolver, Host(host), reach, guard, 10.0, family, role
        )
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

    def test_no_guard(self) -> None:
        """What the configuration itself names is dialled wherever it is."""
        self.connect(["169.254.1.1"], guard=None)
        self.assertEqual(self.dialled(), ["169.254.1.1"])

    def test_family(self) -> None:
        """Addresses of a family that is not wanted are left out, and that is said."""
        self.connect(["2606:4700::1", "1.1.1.1"], family=Family.IPV4)
        self.assertEqual(self.dialled(), ["1.1.1.1"])
        failure = self.failureResultOf(
            self.connect(["1.1.1.1"], family=Family.IPV6), UpstreamUnreachable
        )
        self.assertEqual(
            failure.value.message,
            "registry.example.test:443 has no ipv6 address, and no other is dialled",
        )

    def test_source_address(self) -> None:
        """Connections begin at the local address of their family."""
        self.connect(["2606:4700::1", "1.1.1.1"], sources=("192.0.2.9", "2001:db8::9"))
        self.reactor.advance(0.3)
        self.assertEqual(
            [(client[0], client[4]) for client in self.reactor.tcpClients],
            [("2606:4700::1", ("2001:db8::9", 0)), ("1.1.1.1", ("192.0.2.9", 0))],
        )

    def test_role(self) -> None:
        """What is no registry is called by what it is."""
        connecting = self.connect(["1.1.1.1"], role="the parent proxy")
        self.reactor.advance(10)
        failure = self.failureResultOf(connecting, UpstreamTimeout)
        self.assertIn("to the parent proxy registry.example.test:443", failure.value.message)

    def test_unknown_name(self) -> None:
        """A name without addresses cannot be reached."""
        failure = self.failureResultOf(self.connect([]), NameUnresolved)
        self.assertIn("registry.example.test does not resolve", failure.value.message)

    def test_nothing_answers(self) -> None:
        """The last refusal of a connection is the reason, given without delay."""
        connecting = self.connect(["1.1.1.1"])
        factory = self.reactor.tcpClients[0][2]
        factory.clientConnectionFailed(
            self.reactor.connectors[0], Failure(ConnectionRefusedError())
        )
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


class Noticing(Protocol):
    """One end of a connection, which is noticed when it is lost."""

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Peers(Factory[Noticing]):
    """A server of one client, which tells where that comes from."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Noticing:
        self.peer = cast(IPv4Address, addr).host
        self.connection = Noticing()
        return self.connection


class LoopbackTests(TestCase):
    """On real sockets"""

    timeout = 20

    async def test_source_address(self) -> None:
        """An address that refuses is passed over; the connection begins where it is to begin."""
        reactor = cast(DialReactor, global_reactor)
        peers = Peers()
        listening = TCP4ServerEndpoint(global_reactor, 0, interface="127.0.0.1")
        port = await listening.listen(peers)
        self.addCleanup(port.stopListening)
        where = Host("registry.example.test", port.getHost().port)
        endpoint = GuardedEndpoint(
            cast(IReactorTime, global_reactor),
            FakeResolver(["127.0.0.2", "127.0.0.1"]),
            where,
            Dialler(reactor, where.port, 10.0, ("127.0.0.5",)),
            None,
            10.0,
        )
        client = await endpoint.connect(Factory.forProtocol(Noticing))
        assert isinstance(client, Noticing)
        cast(ITransport, client.transport).loseConnection()
        await client.lost
        await peers.connection.lost
        self.assertEqual(peers.peer, "127.0.0.5")

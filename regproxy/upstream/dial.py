"""Connections to hosts that others named: resolved once, checked, then dialled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Protocol, cast

from attrs import define, frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard
from regproxy.upstream.errors import (
    AddressRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)


class DialReactor(Protocol):
    """What is needed of a reactor here: IReactorTCP, IReactorTime, and names."""

    @property
    def nameResolver(self) -> IHostnameResolver:
        """As in IReactorPluggableNameResolver."""

    @property
    def seconds(self) -> Callable[[], float]:
        """As in IReactorTime."""

    @property
    def callLater(self) -> Callable[..., IDelayedCall]:
        """As in IReactorTime."""

    @property
    def connectTCP(self) -> Callable[..., IConnector]:
        """As in IReactorTCP."""


@implementer(IHostResolution)
@frozen
class _Answered:
    """A resolution that is over."""

    name: str

    def cancel(self) -> None:
        """There is nothing left to cancel."""


@implementer(IReactorPluggableNameResolver, IHostnameResolver)
@frozen
class _FixedAnswer:
    """A reactor as ``HostnameEndpoint`` needs it, whose only answer is *addresses*.

    So the endpoint brings "happy eyeballs" (RFC 8305), and no second look-up can give
    another address than the one that was checked.
    """

    reactor: DialReactor
    addresses: Sequence[IAddress]

    @property
    def nameResolver(self) -> IHostnameResolver:
        return self

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError("the answer is fixed")

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Answered(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        for address in self.addresses:
            resolutionReceiver.addressResolved(address)
        resolutionReceiver.resolutionComplete()
        return resolution

    @property
    def seconds(self) -> Callable[[], float]:
        return self.reactor.seconds

    @property
    def callLater(self) -> Callable[..., IDelayedCall]:
        return self.reactor.callLater

    @property
    def connectTCP(self) -> Callable[..., IConnector]:
        return self.reactor.connectTCP


@implementer(IResolutionReceiver)
@define
class _Collector:
    """Gathers the addresses of one look-up."""

    found: Deferred[list[IAddress]]
    addresses: list[IAddress]

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """The resolution itself cannot be cancelled: Twisted's does not implement it."""

    def addressResolved(self, address: IAddress) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        # A look-up that was given up on goes on in its thread.
        if not self.found.called:
            self.found.callback(self.addresses)


def _literal(host: str, port: int) -> IAddress | None:
    try:
        version = ip_address(host).version
    except ValueError:
        return None
    return (IPv4Address if version == 4 else IPv6Address)("TCP", host, port)


async def resolve(resolver: IHostnameResolver, host: str, port: int) -> list[IAddress]:
    """The addresses of *host*, which may be an address itself; none if there are none."""
    literal = _literal(host, port)
    if literal is not None:
        return [literal]
    found: Deferred[list[IAddress]] = Deferred()
    resolver.resolveHostName(_Collector(found, []), host, portNumber=port)
    return await found


@implementer(IStreamClientEndpoint)
@frozen
class GuardedEndpoint:
    """A TCP endpoint that dials only addresses its guard permits.

    Every address that the name resolves to is checked; those refused are left out.

    Attributes:
        host: a name, or an address literal without brackets.
        timeout: seconds for the look-up and the connection together.
    """

    reactor: DialReactor
    host: str
    port: int
    guard: AddressGuard
    timeout: float

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect.

        The Deferred fails with AddressRefused if there are addresses and none of them
        is permitted, with UpstreamUnreachable if there is none or none answers, with
        UpstreamTimeout when time is up.
        """

        def expired(result: object, timeout: float) -> Failure:
            return Failure(
                UpstreamTimeout(f"no connection to {self._shown} within {timeout:g} seconds")
            )

        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))
        clock = cast(IReactorTime, self.reactor)
        return connecting.addTimeout(self.timeout, clock, onTimeoutCancel=expired)

    @property
    def _shown(self) -> str:
        return Host(self.host, self.port).authority

    async def _connect(self, protocol_factory: IProtocolFactory) -> IProtocol:
        addresses = await resolve(self.reactor.nameResolver, self.host, self.port)
        if not addresses:
            raise UpstreamUnreachable(f"the name {self.host} does not resolve")
        endpoint = HostnameEndpoint(
            _FixedAnswer(self.reactor, self._permitted(addresses)),
            self.host,
            self.port,
            self.timeout,
        )
        try:
            return await endpoint.connect(protocol_factory)
        except (ConnectError, DNSLookupError) as error:
            raise UpstreamUnreachable(f"cannot connect to {self._shown}: {error}") from error

    def _permitted(self, addresses: Sequence[IAddress]) -> list[IAddress]:
        permitted: list[IAddress] = []
        reason: str | None = None
        for address in addresses:
            assert isinstance(address, (IPv4Address, IPv6Address))
            refused = self.guard.check(address.host, self.port)
            if refused is None:
                permitted.append(address)
            reason = reason or refused
        if not permitted:
            raise AddressRefused(f"connections to {self._shown} are not allowed: {reason}")
        return permitted

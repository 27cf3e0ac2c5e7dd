"""Connections to hosts that others named: resolved once, checked, then dialled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Protocol

from attrs import define, frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.config.wayout import Family
from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard
from regproxy.upstream.errors import (
    AddressRefused,
    NameUnresolved,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from regproxy.upstream.race import arranged, race


class DialReactor(Protocol):
    """What is needed of a reactor here: IReactorTCP and IReactorTime."""

    @property
    def seconds(self) -> Callable[[], float]:
        """As in IReactorTime."""

    @property
    def callLater(self) -> Callable[..., IDelayedCall]:
        """As in IReactorTime."""

    @property
    def connectTCP(self) -> Callable[..., IConnector]:
        """As in IReactorTCP."""


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


@frozen
class Dialler:
    """Makes endpoints for address literals, which connect from the configured addresses.

    Attributes:
        timeout: seconds for a connection.
        sources: local addresses, at most one of each family. A family without one is not
            dialled if the other has one.
    """

    reactor: DialReactor
    port: int
    timeout: float
    sources: tuple[str, ...] = ()

    def __call__(self, address: str) -> IStreamClientEndpoint:
        """The endpoint at *address*."""
        version = ip_address(address).version
        kind = TCP4ClientEndpoint if version == 4 else TCP6ClientEndpoint
        local = [(each, 0) for each in self.sources if ip_address(each).version == version]
        bind = local[0] if local else None
        endpoint: IStreamClientEndpoint = kind(self.reactor, address, self.port, self.timeout, bind)
        return endpoint


@implementer(IStreamClientEndpoint)
@frozen
class GuardedEndpoint:
    """An endpoint that dials only addresses its guard permits.

    Every address that the name resolves to is checked; those refused are left out.

    Attributes:
        resolver: asked once; what it said is what is dialled.
        reach: makes the endpoint for an address.
        guard: None for a host that the configuration names itself.
        timeout: seconds for the look-up and the connection together.
        role: what the host is, for messages, if it is not what a client has asked for.
    """

    clock: IReactorTime
    resolver: IHostnameResolver
    host: Host
    reach: Callable[[str], IStreamClientEndpoint]
    guard: AddressGuard | None
    timeout: float
    family: Family = Family.ANY
    role: str = ""

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
        return connecting.addTimeout(self.timeout, self.clock, onTimeoutCancel=expired)

    @property
    def _shown(self) -> str:
        return f"{self.role} {self.host.authority}".lstrip()

    async def _connect(self, protocol_factory: IProtocolFactory) -> IProtocol:
        addresses = await resolve(self.resolver, self.host.name, self.host.port)
        if not addresses:
            raise NameUnresolved(f"the name {self.host.name} does not resolve")
        dialled = arranged(self._permitted(addresses), self.family)
        if not dialled:
            raise UpstreamUnreachable(
                f"{self._shown} has no {self.family} address, and no other is dialled"
            )
        try:
            return await race(self.clock, map(self.reach, dialled), protocol_factory)
        except ConnectError as error:
            raise UpstreamUnreachable(f"cannot connect to {self._shown}: {error}") from error

    def _permitted(self, addresses: Sequence[IAddress]) -> list[str]:
        permitted: list[str] = []
        reason: str | None = None
        for address in addresses:
            assert isinstance(address, (IPv4Address, IPv6Address))
            refused = None if self.guard is None else self.guard.check(address.host, self.host.port)
            if refused is None:
                permitted.append(address.host)
            reason = reason or refused
        if not permitted:
            raise AddressRefused(f"connections to {self._shown} are not allowed: {reason}")
        return permitted

"""This proxy's own look-ups, where it must not ask as its system does.

The name server of a system may be this very proxy, and its hosts file may lead here: what the
proxy asks has to come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Literal, cast

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.logger import Logger
from zope.interface import implementer

from regproxy.dns.message import IPAddress, MessageInvalid, Query, Question, Type
from regproxy.upstream.name_servers import NameServers, NoAnswer


@implementer(IHostResolution)
@frozen
class _Resolution:
    name: str

    def cancel(self) -> None:
        """What was asked brings an answer that is kept for the next time."""


@implementer(IHostnameResolver)
class NameServerResolver:
    """Resolves names by asking name servers, and nothing else: no hosts file, no search list."""

    _log = Logger()

    def __init__(self, servers: NameServers) -> None:
        self._servers = servers

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See IHostnameResolver. A name that cannot be resolved has no addresses.

        IPv4 addresses come first: a machine without IPv6 would lose time with each of the others.
        """
        resolution = _Resolution(hostName)
        kind = cast(Literal["TCP", "UDP"], transportSemantics)

        async def resolve() -> None:
            resolutionReceiver.resolutionBegan(resolution)
            for address in await self._addresses(hostName):
                family = IPv4Address if address.version == 4 else IPv6Address
                if addressTypes is None or family in addressTypes:
                    resolutionReceiver.addressResolved(family(kind, str(address), portNumber))
            resolutionReceiver.resolutionComplete()

        ensureDeferred(resolve()).addErrback(
            lambda failure: self._log.failure("A name was not resolved", failure)
        )
        return resolution

    async def _addresses(self, name: str) -> list[IPAddress]:
        try:
            return [ip_address(name)]
        except ValueError:
            looking = [ensureDeferred(self._look_up(name, t)) for t in (Type.A, Type.AAAA)]
            found = await gatherResults(looking)
        return [address for addresses in found for address in addresses]

    async def _look_up(self, name: str, type: Type) -> list[IPAddress]:
        try:
            answer = await self._servers.ask(Query(Question.about(name, type)))
        except (MessageInvalid, NoAnswer) as error:
            self._log.warn("{name} was not resolved: {reason}", name=name, reason=str(error))
            return []
        return answer.addresses(type)

"""Which answer a question to the name server gets.

The names that are intercepted lead here: clients that know of no proxy come to the listeners
of ``[tls]`` by themselves. The DNS knows names and no ports. So a name leads here if it is
intercepted at port 443, or at another port of these listeners; and then with all its ports.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from attrs import frozen

from regproxy.config.model import Config
from regproxy.dns.message import IN, IPAddress, Question, Type
from regproxy.oci.names import HTTPS_PORT, Host

DNS_PORT: Final = 53

_SERVER: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")

# In the description of an endpoint.
_LISTENING: Final = re.compile(r"(?:\b(?:tcp6?|ssl):|:port=)([0-9]+)")

_VERSIONS: Final[dict[int, int]] = {Type.A: 4, Type.AAAA: 6}
# Transfers of zones need one, and keys somebody who has them; OPT is no question.
_NEVER: Final = frozenset((Type.OPT, Type.TKEY, Type.TSIG, Type.IXFR, Type.AXFR))


@frozen
class ServerAddress:
    """Where a name server is, or is to be."""

    address: str
    port: int = DNS_PORT

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Read ``10.0.0.5``, ``10.0.0.5:5353``, ``fd00::5`` or ``[fd00::5]:5353``.

        Raises:
            ValueError: it is none of these; the message says what is wrong.
        """
        match = _SERVER.fullmatch(text)
        try:
            address = ip_address((match[1] or match[2]) if match else text)
        except ValueError:
            raise ValueError("expected an address, with :PORT if the port is not 53") from None
        port = int((match and match[3]) or DNS_PORT)
        if not 0 < port < 65536:
            raise ValueError("expected a port from 1 to 65535")
        return cls(str(address), port)

    def __str__(self) -> str:
        name = f"[{self.address}]" if ":" in self.address else self.address
        return name if self.port == DNS_PORT else f"{name}:{self.port}"


@frozen
class Own:
    """The name leads here: these addresses, which may be none of the type asked for."""

    addresses: tuple[IPAddress, ...]


@frozen
class Forward:
    """Other name servers are to be asked."""


@frozen
class Refuse:
    """No answer, and why."""

    reason: str


Resolution = Own | Forward | Refuse


@frozen
class ResolutionRules:
    """The rules of one configuration.

    Attributes:
        leads_here: whether the host with this name does.
        addresses: what such a name answers with, in this order.
        clients: who may ask.
        authoritative: nothing is forwarded.
    """

    leads_here: Callable[[str], bool]
    addresses: tuple[IPAddress, ...]
    clients: tuple[IPv4Network | IPv6Network, ...]
    authoritative: bool

    @classmethod
    def of(cls, config: Config) -> ResolutionRules:
        """Those of *config*, which was checked when it was loaded."""
        section = config.dns
        # Clients come to 443 whatever port something in front of the listener makes of it.
        ports = {HTTPS_PORT, *_ports(config.tls.listen + config.tls.http_listen)}
        return cls(
            lambda name: any(config.intercepts(Host(name, port)) for port in ports),
            tuple(map(ip_address, section.addresses)),
            tuple(map(ip_network, section.clients)),
            section.authoritative,
        )

    def decide(self, client: str, question: Question, *, recursion_desired: bool) -> Resolution:
        """Decide about *question*, asked from the address *client*."""
        if not self._is_client(client):
            return Refuse("not a client")
        if question.cls != IN or question.type in _NEVER:
            return Refuse("not a question that is answered")
        if question.host is not None and self.leads_here(question.host):
            version = _VERSIONS.get(question.type)
            return Own(tuple(each for each in self.addresses if each.version == version))
        if self.authoritative:
            return Refuse("not a name that leads here")
        # What others asked for is nobody's business.
        return Forward() if recursion_desired else Refuse("recursion was not desired")

    def _is_client(self, client: str) -> bool:
        address = ip_address(client)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            # A socket that listens on all addresses sees IPv4 like that.
            address = address.ipv4_mapped
        return any(address in network for network in self.clients)


def _ports(endpoints: Iterable[str]) -> list[int]:
    return [int(port) for text in endpoints for port in _LISTENING.findall(text)]

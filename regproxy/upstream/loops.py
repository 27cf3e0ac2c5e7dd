"""Where this proxy itself is reached, so that it does not become its own client.

That happens when its own look-ups see what clients are to see: a hosts file or a name server
that has a registry's name lead here.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver

from regproxy.config.model import Config
from regproxy.oci.names import Host
from regproxy.policy.addresses import LeadsBack
from regproxy.policy.resolution import ServerAddress
from regproxy.upstream.dial import resolve
from regproxy.upstream.servers import servers
from regproxy.upstream.ways_out import resolves_here

_ADVICE: Final = (
    "{host} leads back to this proxy: its own look-up gives {address}. Requests that need"
    " {host} are refused. Set dns.upstream_resolvers to name servers that know the real address"
)


class OwnPlaces:
    """The addresses and ports that this process listens at."""

    def __init__(self) -> None:
        self._places: set[tuple[str, int]] = set()

    def add(self, address: str, port: int) -> None:
        """Remember one. An unspecified address stands for all of this machine's."""
        self._places.add((str(ip_address(address)), port))

    def holds(self, address: str, port: int) -> bool:
        """Whether a connection to *address* ends in this process."""
        parsed = ip_address(address)
        plain = str(getattr(parsed, "ipv4_mapped", None) or parsed)
        if (plain, port) in self._places:
            return True
        # A socket at "::" takes IPv4 as well.
        anywhere = {("0.0.0.0", port), ("::", port)} & self._places
        return bool(anywhere) and is_local(plain)


def is_local(address: str) -> bool:
    """Whether *address* is one of this machine's.

    A machine speaks to itself from the very address that it speaks to. Asked for such a
    connection over UDP, the kernel sends nothing.
    """
    if ip_address(address).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Any port does.
            probe.connect((address, 9))
        except OSError:
            return False
        return bool(probe.getsockname()[0] == address)


async def find_loops(resolver: IHostnameResolver, config: Config, own: LeadsBack) -> list[str]:
    """What is wrong with *config*, since it makes this proxy its own client.

    Args:
        resolver: what the way out looks names up with.
        own: where this proxy is.
    """
    found = []
    for key, name_servers in (
        ("forward_to", config.dns.forward_to),
        ("upstream_resolvers", config.dns.upstream_resolvers),
    ):
        for server in map(ServerAddress.parse, name_servers):
            if own(server.address, server.port):
                found.append(f"dns.{key}: the name server {server} is this proxy itself")
    # Only names that clients are led here with can lead the proxy here.
    if config.dns.listen or config.tls.listen:
        for host in sorted(_upstreams(config)):
            for address in await resolve(resolver, host.name, host.port):
                assert isinstance(address, (IPv4Address, IPv6Address))
                if own(address.host, host.port):
                    found.append(_ADVICE.format(host=host, address=address.host))
    return found


def _upstreams(config: Config) -> set[Host]:
    """The servers of all registries whose names are known, and looked up here."""
    exact = {
        Host(pattern.text, pattern.port)
        for pattern in config.interception.hosts
        if "*" not in pattern.text
    }
    return {
        server.base.host
        for host in exact | config.registries.keys()
        for server in servers(config, host.canonical)
        if resolves_here(server.base.host, config.line(server.section))
    }

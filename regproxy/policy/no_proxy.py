"""Which hosts are reached without the parent proxy: entries like those of ``NO_PROXY``.

There is no standard. The rules are those of Go's ``golang.org/x/net/http/httpproxy``,
which Docker and containerd follow: who sets up registries knows them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from attrs import frozen

from regproxy.oci.errors import HostInvalid
from regproxy.oci.names import Host

EXPECTED: Final = (
    "expected *, a host, .SUFFIX, an address or a network, all but networks with :PORT"
)

_DOMAIN = re.compile(r"(?P<dot>\*?\.)?(?P<host>[^*]+)")


@frozen
class Exempt:
    """One entry.

    Attributes:
        name: a host and all below it, an address, or empty for every host.
        below: only hosts below the name.
        port: the only one that is meant; None for all.
        network: addresses that are meant; nothing else counts then.
    """

    name: str = ""
    below: bool = False
    port: int | None = None
    network: IPv4Network | IPv6Network | None = None

    @classmethod
    def parse(cls, text: str) -> Exempt:
        """Read ``*``, ``host``, ``.suffix``, ``*.suffix``, an address, or ``10.0.0.0/8``.

        All but a network may have a port.

        Raises:
            ValueError: it is none of these; the message says what is expected.
        """
        if text == "*":
            return cls()
        if "/" in text:
            try:
                return cls(network=ip_network(text))
            except ValueError as error:
                raise ValueError(f"{EXPECTED}: {error}") from None
        match = _DOMAIN.fullmatch(f"[{text}]" if text.count(":") > 1 and text[0] != "[" else text)
        if match is None:
            raise ValueError(EXPECTED)
        try:
            # No port is told from every real one by a default that is none.
            host = Host.parse(match["host"], default_port=0)
        except HostInvalid as error:
            raise ValueError(f"{EXPECTED}: {error.message}") from None
        below = match["dot"] is not None
        if below and host.is_address:
            raise ValueError(EXPECTED)
        return cls(host.name, below, host.port or None)

    def covers(self, host: Host) -> bool:
        """Whether *host* is one of these.

        A network covers addresses only: names are not resolved for it.
        """
        if self.port not in (None, host.port):
            return False
        if self.network is not None:
            return host.is_address and _plain(host.name) in self.network
        if not self.name:
            return True
        if host.name == self.name:
            return not self.below
        return not host.is_address and host.name.endswith(f".{self.name}")


def is_exempt(host: Host, entries: Iterable[Exempt]) -> bool:
    """Whether *host* is reached without the parent: this machine always is."""
    return _is_here(host) or any(entry.covers(host) for entry in entries)


def _is_here(host: Host) -> bool:
    if host.is_address:
        return _plain(host.name).is_loopback
    return host.name == "localhost" or host.name.endswith(".localhost")


def _plain(address: str) -> IPv4Address | IPv6Address:
    parsed = ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed

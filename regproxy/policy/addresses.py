"""Which addresses this proxy may dial on behalf of others.

A client, a redirect or a token realm names a host; what it resolves to must
not lead into the network that the proxy stands in. The rule is a list of what
is denied, drawn from the IANA special-purpose registries (RFC 6890, as of
2025). ``ipaddress.is_global`` would not do: it passes NAT64, 6to4 and
multicast, and does not look inside addresses that embed another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from attrs import frozen

from regproxy.config.model import RelaySection
from regproxy.oci.names import HTTPS_PORT

#: Whether a connection to this address and port would come back to this proxy.
LeadsBack = Callable[[str, int], bool]

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

# Site-local addresses (RFC 3879) are what unique local ones were called before.
_LOOPBACK: Final = (
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
)
_PRIVATE: Final = (
    ("10.0.0.0/8", "private"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("fc00::/7", "private"),
    ("fec0::/10", "site-local"),
    ("100.64.0.0/10", "carrier-grade NAT"),
)

_NAT64: Final = ("64:ff9b::/96", "64:ff9b:1::/48")
_6TO4: Final = "2002::/16"
_TEREDO: Final = "2001::/32"

# Never dialled unless listed. The first match names the reason, so narrow networks
# stand before the wide ones that hold them.
_DENIED: Final = (
    # Azure's "wire server" has a public address, Alibaba's metadata service one of
    # carrier-grade NAT; those of AWS and Google have private IPv6 ones.
    ("168.63.129.16/32", "cloud metadata"),
    ("100.100.100.200/32", "cloud metadata"),
    ("fd00:ec2::/32", "cloud metadata"),
    ("fd20:ce::254/128", "cloud metadata"),
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    ("0.0.0.0/32", "unspecified"),
    ("::/128", "unspecified"),
    ("0.0.0.0/8", "reserved"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("192.88.99.0/24", "6to4 relay"),
    ("198.18.0.0/15", "benchmarking"),
    ("2001:2::/48", "benchmarking"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("240.0.0.0/4", "reserved"),
    *((network, "NAT64") for network in _NAT64),
    (_6TO4, "6to4"),
    (_TEREDO, "Teredo"),
    ("2001::/23", "reserved"),
)

# Names below these, and names without a dot, stand for hosts of one's own network: RFC 6761
# section 6.3, RFC 6762 section 3, RFC 8375; "internal" was set aside by ICANN in 2024, and
# the metadata services of clouds have names there.
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "home.arpa")

# Everything that IANA has given out as global unicast lies here (RFC 4291).
_GLOBAL_V6: Final = IPv6Network("2000::/3")

_Table = tuple[tuple[_Network, str], ...]


def _table(*rows: tuple[str, str]) -> _Table:
    return tuple((ip_network(network), kind) for network, kind in rows)


_DENIED_NETWORKS: Final = _table(*_DENIED)
_LOOPBACK_NETWORKS: Final = _table(*_LOOPBACK)
_PRIVATE_NETWORKS: Final = _table(*_PRIVATE)
# IPv4-compatible (RFC 4291 section 2.5.5.1) and NAT64.
_V4_IN_LAST_BITS: Final = tuple(map(IPv6Network, ("::/96", *_NAT64)))


def _layers(address: _Address) -> Iterator[_Address]:
    """*address*, then the IPv4 addresses embedded in it.

    An IPv4-mapped address is the IPv4 address: the kernel connects to that. For
    NAT64 the last 32 bits count (RFC 6052 section 2.2 with a /96, the prefix that
    translators use by default).
    """
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    # "::" and "::1" have the form of an IPv4-compatible address and are none.
    if int(address) > 1 and any(address in network for network in _V4_IN_LAST_BITS):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _kind(address: _Address, private: bool, loopback: bool) -> str | None:
    """What is special about *address*, or None if it may be dialled."""
    for networks, open_ in (
        (_DENIED_NETWORKS, False),
        (_LOOPBACK_NETWORKS, loopback),
        (_PRIVATE_NETWORKS, private),
    ):
        for network, kind in networks:
            if address in network:
                return None if open_ else kind
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return "reserved"
    return None


_ENTRY = re.compile(
    r"(?:\[(?P<bracketed>[0-9a-f:.]+)\]|(?P<v4>[0-9.]+))(?P<length>/[0-9]+)?(?::(?P<port>[0-9]{1,5}))?"
    r"|(?P<v6>[0-9a-f:.]+(?:/[0-9]+)?)",
    re.IGNORECASE,
)


@frozen
class AllowEntry:
    """An exception: these addresses may be dialled at this port."""

    network: _Network
    port: int = HTTPS_PORT

    @classmethod
    def parse(cls, text: str) -> AllowEntry:
        """Read an address or a network, with a port if it is not 443.

        ``10.0.0.0/8``, ``192.0.2.7:8443``, ``[2001:db8::]/32``, ``[::1]:5000``.

        Raises:
            ValueError: it is none of these; the message says what is wrong.
        """
        match = _ENTRY.fullmatch(text)
        if match is None:
            raise ValueError("expected an address or a network, with :PORT if the port is not 443")
        address = match["bracketed"] or match["v4"]
        network = ip_network(match["v6"] or address + (match["length"] or ""))
        port = int(match["port"] or HTTPS_PORT)
        if not 0 < port < 65536:
            raise ValueError("expected a port from 1 to 65535")
        return cls(network, port)

    def admits(self, address: _Address, port: int) -> bool:
        """Whether *address* at *port* is one of these."""
        return port == self.port and address in self.network


def nowhere(address: str, port: int) -> bool:
    """The proxy is not reached at any address."""
    return False


@frozen
class AddressGuard:
    """Decides about one address and port.

    An address that embeds others (NAT64, 6to4, Teredo) must pass itself and with
    each of them: whoever lists ``64:ff9b::/96`` has not opened the metadata
    service behind the translator.

    Attributes:
        allow: exceptions; one that matches lifts every other rule for that address.
        ports: ports that are open at public addresses; None means all.
        private: whether private addresses count as public ones.
        loopback: whether loopback addresses do.
        own: where this proxy itself is. No exception holds there.
    """

    allow: tuple[AllowEntry, ...] = ()
    ports: frozenset[int] | None = None
    private: bool = False
    loopback: bool = False
    own: LeadsBack = nowhere

    @classmethod
    def relaying(
        cls, relay: RelaySection, ports: frozenset[int] | None, own: LeadsBack = nowhere
    ) -> AddressGuard:
        """The guard of what goes where others say, as far as *relay* lets it.

        Raises:
            ValueError: an entry of its ``allow`` is none.
        """
        allow = tuple(map(AllowEntry.parse, relay.allow))
        return cls(allow, ports, private=relay.allow_private, own=own)

    @classmethod
    def private_allowed(
        cls, allow: tuple[AllowEntry, ...] = (), own: LeadsBack = nowhere
    ) -> AddressGuard:
        """The guard of a registry with ``relay_private``: private addresses at any port.

        Link-local, metadata, multicast and other special addresses stay refused.
        """
        return cls(allow, private=True, loopback=True, own=own)

    def check(self, address: str, port: int) -> str | None:
        """None if *address* may be dialled at *port*, else the reason why not.

        Something that is no IP address is refused: what is dialled is what was checked.
        """
        try:
            parsed = ip_address(address)
        except ValueError:
            return f"{address!r} is not an IP address"
        if self.own(address, port):
            return (
                f"{parsed} is this proxy itself, which has to find the host by another name server"
            )
        listed = False
        for layer in _layers(parsed):
            if any(entry.admits(layer, port) for entry in self.allow):
                listed = True
            elif kind := _kind(layer, self.private, self.loopback):
                article = "an" if kind == "unspecified" else "a"
                return f"{layer} is {article} {kind} address"
        return None if listed else self._check_port(port)

    def check_unresolved(self, name: str, port: int) -> str | None:
        """The same for a host whose name somebody else resolves: a parent proxy.

        An address is checked as ever. Of a name no more is known than that some never stand
        for a public host.
        """
        try:
            ip_address(name)
        except ValueError:
            pass
        else:
            return self.check(name, port)
        local = "." not in name or any(f".{name}".endswith(f".{suffix}") for suffix in _LOCAL_NAMES)
        if local and not self.private:
            return f"{name} is a name of a private network"
        return self._check_port(port)

    def _check_port(self, port: int) -> str | None:
        if self.ports is None or port in self.ports:
            return None
        return f"port {port} is not open; only {', '.join(map(str, sorted(self.ports)))}"


_PUBLIC_ONLY: Final = AddressGuard()


def refusal(address: str) -> str | None:
    """Why *address* is not one of the public internet, or None if it is."""
    return _PUBLIC_ONLY.check(address, HTTPS_PORT)

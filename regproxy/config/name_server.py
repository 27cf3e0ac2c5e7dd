"""Checks of ``[dns]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

from regproxy.config.model import DAY, DNSSection
from regproxy.config.structure import Problem, Problems
from regproxy.oci.errors import shown
from regproxy.policy.resolution import ServerAddress


def finish_dns(section: DNSSection) -> DNSSection:
    """*section*, which can be used.

    Raises:
        Problems: it cannot.
    """
    # Whether keys go together is asked only of values that can be read.
    found = list(_unreadable(section)) or list(_inconsistent(section))
    if found:
        raise Problems(found)
    return section


def _unreadable(section: DNSSection) -> Iterator[Problem]:
    for key, check in _CHECKS.items():
        for index, text in enumerate(getattr(section, key)):
            try:
                check(text)
            except ValueError as error:
                yield (key, index), f"{error}, found {shown(text)}"
    if section.ttl > DAY:
        yield ("ttl",), "expected at most 1d"


def _inconsistent(section: DNSSection) -> Iterator[Problem]:
    listen = list(map(ServerAddress.parse, section.listen))
    for key in ("forward_to", "upstream_resolvers"):
        for index, text in enumerate(getattr(section, key)):
            if ServerAddress.parse(text) in listen:
                yield (key, index), f"{shown(text)} is in listen: it would ask itself"
    if section.authoritative and section.forward_to:
        yield ("forward_to",), "not together with authoritative = true"
    if section.listen and not section.addresses:
        yield ("addresses",), "missing: what intercepted names answer with"
    if section.listen and not (section.authoritative or section.forward_to):
        yield ("forward_to",), "missing: whom to ask for other names; or authoritative = true"


def _address(text: str) -> None:
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("expected an address") from None
    if address.is_unspecified or address.is_multicast:
        raise ValueError("expected an address that clients can connect to")


def check_network(text: str) -> None:
    """Raise ValueError, with a text for people, when *text* is no network."""
    try:
        ip_network(text)
    except ValueError:
        raise ValueError('expected a network such as "10.0.0.0/8"') from None


_CHECKS: dict[str, Callable[[str], object]] = {
    "listen": ServerAddress.parse,
    "addresses": _address,
    "forward_to": ServerAddress.parse,
    "clients": check_network,
    "upstream_resolvers": ServerAddress.parse,
}

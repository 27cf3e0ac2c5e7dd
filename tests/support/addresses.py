"""Addresses in short."""

from __future__ import annotations

from ipaddress import ip_address

from regproxy.dns.message import IPAddress


def addresses(*texts: str) -> tuple[IPAddress, ...]:
    """These, parsed."""
    return tuple(map(ip_address, texts))

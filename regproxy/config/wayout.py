"""How connections to upstreams go out, as frozen values: a part of the model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from attrs import field, frozen


class Family(StrEnum):
    """Which of a host's addresses are dialled, and which of them first."""

    ANY = "any"
    PREFER_IPV4 = "prefer-ipv4"
    PREFER_IPV6 = "prefer-ipv6"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


@frozen
class ParentProxy:
    """``proxy``: what connections go through. The text ``"direct"`` for nothing.

    Attributes:
        url: ``http``, ``https``, ``socks5`` or ``socks5h``, host and port; or ``direct``.
        ca_file: further CAs to trust for an ``https`` one.
    """

    url: str
    username: str | None = None
    # Not in the repr: it would reach logs and tracebacks.
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    ca_file: Path | None = None


DIRECT = ParentProxy("direct")


@frozen
class UpstreamSection:
    """``[upstream]``: the way out, for registries that say nothing else, and for tunnels."""

    proxy: ParentProxy = DIRECT
    no_proxy: tuple[str, ...] = ()
    source_address: tuple[str, ...] = ()
    family: Family = Family.ANY


DEFAULT_UPSTREAM = UpstreamSection()


@frozen
class Line:
    """How the connections to one server go out: what the configuration says, put together.

    Attributes:
        exempt: entries of ``no_proxy``.
        connect: seconds for a connection.
    """

    proxy: ParentProxy
    exempt: tuple[str, ...]
    source_address: tuple[str, ...]
    family: Family
    connect: float


@frozen
class Trust:
    """Whom a server has to prove to be, and who this proxy is to it."""

    ca_file: Path | None = None
    insecure: bool = False
    client_cert: Path | None = None
    client_key: Path | None = None

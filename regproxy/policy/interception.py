"""What becomes of a connection: its TLS is ended here, or its bytes pass untouched.

For a ``CONNECT`` there is no third decision. Whether a tunnel's destination may be dialled
depends on its addresses, which are known only when it is dialled: the guard of
:mod:`regproxy.policy.addresses` refuses then.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from regproxy.config.model import Config
from regproxy.oci.names import Host

#: What all hosts are counted as that the configuration does not name.
OTHER: Final = "other"


@frozen
class Intercept:
    """End the TLS here, with a certificate for *host*, and read the requests.

    ``host`` is the one that the client named, since its certificate is what the
    client checks: ``docker.io`` stays ``docker.io``.

    Attributes:
        any_port: the client has not said which port of *host* it means; its requests will.
    """

    host: Host
    any_port: bool = False


@frozen
class Tunnel:
    """Relay the bytes between the client and *host* without reading them."""

    host: Host


@frozen
class Refuse:
    """Do neither, for this reason."""

    reason: str


Decision = Intercept | Tunnel


def decide(config: Config, host: Host) -> Decision:
    """Decide about a ``CONNECT`` to *host*."""
    return Intercept(host) if config.intercepts(host) else Tunnel(host)


def decide_by_name(config: Config, name: str | None) -> Decision | Refuse:
    """Decide about TLS that came without a CONNECT.

    Args:
        name: the host name in the ClientHello.
    """
    if name is None:
        default = config.tls.default_registry
        return Refuse("the client names no server") if default is None else Intercept(default)
    if config.intercepts_name(name):
        return Intercept(Host(name), any_port=True)
    if config.tls.passthrough:
        return Tunnel(Host(name))
    return Refuse(f"{name} is not a registry of this proxy: add it to [registries]")


def counted_as(config: Config, host: Host) -> str:
    """The name under which what happens with *host* is counted.

    It is one of the names and patterns in the configuration, or OTHER: nobody can have any number
    of things counted by asking for hosts of his own invention.
    """
    host = host.canonical
    if host in config.registries:
        return str(host)
    for pattern in config.interception.hosts:
        if Host(pattern.text, pattern.port).canonical == host:
            return str(host)
        if pattern.matches(host):
            return str(pattern)
    return OTHER

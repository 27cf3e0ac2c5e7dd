"""The way to a host: straight, or through a parent proxy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, cast
from urllib.parse import urlsplit

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IHostnameResolver,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from regproxy.config.wayout import DIRECT, Family, Line, ParentProxy, Trust
from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard
from regproxy.policy.no_proxy import Exempt, is_exempt
from regproxy.upstream.dial import Dialler, DialReactor, GuardedEndpoint
from regproxy.upstream.errors import AddressRefused, ParentProxyRefused
from regproxy.upstream.handshake import Handshake, HandshakeEndpoint
from regproxy.upstream.http_connect import http_connect
from regproxy.upstream.logins import Password, read_password
from regproxy.upstream.secure import TLSEndpoint
from regproxy.upstream.socks import socks5

# All other parents resolve names themselves.
_RESOLVED_HERE: Final = "socks5"

_Speak = Callable[[str, Host, Password | None], Handshake]


@define(eq=False)
class WaysOut:
    """Makes the endpoint for a host.

    Attributes:
        resolver: of every name that is resolved here.
    """

    reactor: DialReactor
    resolver: IHostnameResolver
    _make_policy: Callable[[Trust], IPolicyForHTTPS]
    _policies: dict[Trust, IPolicyForHTTPS] = field(factory=dict, init=False)

    def policy(self, trust: Trust) -> IPolicyForHTTPS:
        """The TLS policy for *trust*, made when it is first asked for."""
        # Loading the platform's trust store takes tens of milliseconds.
        if trust not in self._policies:
            self._policies[trust] = self._make_policy(trust)
        return self._policies[trust]

    def endpoint(self, host: Host, guard: AddressGuard, line: Line) -> IStreamClientEndpoint:
        """The endpoint of *host* on *line*, which connects where *guard* permits it.

        Where a parent proxy resolves the name, the guard cannot see the addresses: it
        checks literal ones, names and ports, and the rest is the parent's to refuse.
        """
        if _is_direct(host, line):
            return self._straight(host, guard, line)
        scheme = urlsplit(line.proxy.url).scheme
        if scheme == _RESOLVED_HERE:
            return self._resolving(host, guard, line)
        reason = guard.check_unresolved(host.name, host.port)
        if reason is not None:
            return _Refused(f"connections to {host.authority} are not allowed: {reason}")
        return self._through(host, socks5 if scheme == "socks5h" else http_connect, line)

    def _straight(
        self, host: Host, guard: AddressGuard | None, line: Line, role: str = ""
    ) -> GuardedEndpoint:
        reach = Dialler(self.reactor, host.port, line.connect, line.source_address)
        return GuardedEndpoint(
            self._clock, self.resolver, host, reach, guard, line.connect, _family(line), role
        )

    def _resolving(self, host: Host, guard: AddressGuard, line: Line) -> GuardedEndpoint:
        """Through a parent that is asked for one address after the other."""

        def reach(address: str) -> IStreamClientEndpoint:
            return self._through(Host(address, host.port), socks5, line)

        # Each step through the parent has its own time.
        timeout = 3 * line.connect
        return GuardedEndpoint(self._clock, self.resolver, host, reach, guard, timeout, line.family)

    def _through(self, target: Host, speak: _Speak, line: Line) -> HandshakeEndpoint:
        parts = urlsplit(line.proxy.url)
        parent = Host.parse(parts.netloc)
        endpoint: IStreamClientEndpoint = self._straight(parent, None, line, "the parent proxy")
        if parts.scheme == "https":
            policy = self.policy(Trust(line.proxy.ca_file))
            creator = policy.creatorForNetloc(parent.name.encode("ascii"), parent.port)
            endpoint = TLSEndpoint(endpoint, creator, self._clock)
        name = f"the parent proxy {parent.authority}"

        def begin() -> Handshake:
            return speak(name, target, _login(line.proxy, name))

        return HandshakeEndpoint(self._clock, endpoint, begin, name, line.connect)

    @property
    def _clock(self) -> IReactorTime:
        return cast(IReactorTime, self.reactor)


@implementer(IStreamClientEndpoint)
@frozen
class _Refused:
    """An endpoint that is not dialled."""

    message: str

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return fail(AddressRefused(self.message))


def resolves_here(host: Host, line: Line) -> bool:
    """Whether the name of *host* is looked up here, and not by a parent proxy."""
    return _is_direct(host, line) or urlsplit(line.proxy.url).scheme == _RESOLVED_HERE


def _is_direct(host: Host, line: Line) -> bool:
    return line.proxy == DIRECT or is_exempt(host, _exempt(line.exempt))


def _family(line: Line) -> Family:
    """What can be dialled from the source addresses of *line*, if it has any."""
    versions = {ip_address(address).version for address in line.source_address}
    if len(versions) == 1:
        return Family.IPV4 if 4 in versions else Family.IPV6
    return line.family


@lru_cache(16)
def _exempt(entries: tuple[str, ...]) -> tuple[Exempt, ...]:
    return tuple(map(Exempt.parse, entries))


def _login(proxy: ParentProxy, name: str) -> Password | None:
    """The login at *proxy*. A file is read each time, so that a rotated password counts at once."""
    if proxy.username is None:
        return None
    if proxy.password_file is None:
        return Password(proxy.username, proxy.password or "")
    try:
        return Password(proxy.username, read_password(proxy.password_file))
    except (OSError, UnicodeDecodeError) as error:
        raise ParentProxyRefused(
            f"the password file for {name} cannot be read: {proxy.password_file}"
        ) from error

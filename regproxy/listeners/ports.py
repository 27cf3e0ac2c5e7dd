"""The ports that are listened on, and the endpoints in the configuration that name them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.config.model import Config
from regproxy.listeners.dns import Datagrams, NameService, StreamFactory
from regproxy.listeners.proxied import ProxiedFactory
from regproxy.oci.errors import shown
from regproxy.policy.resolution import ServerAddress
from regproxy.tls.contexts import HTTP_1_1

# Before the description of an endpoint: a load balancer that speaks the PROXY protocol is there.
PROXIED: Final = "haproxy:"
# Connections that wait to be accepted; the kernel takes as many as net.core.somaxconn allows. When
# a cluster starts, all its nodes come within milliseconds, and whoever finds no room tries again
# after a whole second. Twisted's own number is 50.
BACKLOG: Final = 4096
# The kinds of endpoint that have one.
_WITH_BACKLOG: Final = ("tcp:", "tcp6:", "ssl:", "unix:")
_WITH_PORT: Final = re.compile(r"(?:tcp6?|ssl):(?:port=)?(-?[0-9]{1,20})(?::|\Z)")
# What Twisted raises for a description of an endpoint that it cannot read.
NO_ENDPOINT: Final = (ValueError, TypeError, LookupError, ImportError, OSError)


def listeners(config: Config) -> dict[str, tuple[str, ...]]:
    """Endpoint descriptions by way in."""
    return {
        "proxy": config.proxy.listen,
        "tls": config.tls.listen,
        "http": config.tls.http_listen,
        "mirror": config.mirror.listen,
        "management": config.management.listen,
    }


def bad_endpoints(config: Config) -> list[str]:
    """What *config* listens on and Twisted does not know: key paths, with what is wrong."""
    found = []
    for way, descriptions in listeners(config).items():
        for index, description in enumerate(descriptions):
            endpoint = description.removeprefix(PROXIED)
            if endpoint.startswith("systemd:"):
                # What it names is there when systemd starts this program, and else not.
                continue
            try:
                serverFromString(None, endpoint)
                _check_port(endpoint)
            except NO_ENDPOINT as error:
                found.append(
                    f'{key_path(way, index)}: expected an endpoint such as "tcp:3128",'
                    f" found {shown(description)}: {error}"
                )
    return found


def _check_port(endpoint: str) -> None:
    # Twisted finds out when it listens.
    match = _WITH_PORT.match(endpoint)
    if match is not None and not 0 <= int(match[1]) <= 65535:
        raise ValueError(f"there is no port {match[1]}")


def key_path(way: str, index: int) -> str:
    """The key path of a listener."""
    key = "tls.http_listen" if way == "http" else f"{way}.listen"
    return f"{key}[{index}]"


@implementer(IProtocolFactory, IProtocolNegotiationFactory)
class CurrentFactory:
    """A listener's factory that outlives the configuration.

    Args:
        current: gives the factory as the configuration in force wants it.
        watch: is told of each connection.
    """

    def __init__(
        self, current: Callable[[], IProtocolFactory], watch: Callable[[IProtocol], None]
    ) -> None:
        self._current = current
        self._watch = watch

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """A protocol as the configuration of this moment wants it."""
        protocol = self._current().buildProtocol(addr)
        if protocol is not None:
            self._watch(protocol)
        return protocol

    def acceptableProtocols(self) -> list[bytes]:
        """What an endpoint with TLS agrees to by ALPN: without it, it refuses who offers any."""
        return [HTTP_1_1]

    def doStart(self) -> None:
        """Nothing: the factories behind this one need no start."""

    def doStop(self) -> None:
        """Nothing: see doStart."""


class ListenerService(Service):
    """One listening port.

    It is bound before privileges are dropped; when that fails the program ends with one
    line that says why, where twistd would show a traceback.

    Attributes:
        port: the port while it listens.
    """

    def __init__(
        self,
        reactor: Any,
        description: str,
        factory: IProtocolFactory,
        listening: Callable[[str, int], None] = lambda address, port: None,
    ) -> None:
        self._reactor = reactor
        self._description = description
        self._factory = factory
        self._listens_at = listening
        self.port: IListeningPort | None = None

    @property
    def listens(self) -> bool:
        """Whether it does."""
        return self.port is not None

    def privilegedStartService(self) -> None:
        """Bind and listen."""
        factory = self._factory
        if self._description.startswith(PROXIED):
            factory = ProxiedFactory(self._reactor, factory)
        try:
            endpoint = serverFromString(self._reactor, _with_backlog(self._description))
        except NO_ENDPOINT as error:
            sys.exit(f"{self._description}: not an endpoint that Twisted knows: {error}")
        # Server endpoints bind before they return; a Deferred would swallow SystemExit.
        failures: list[Failure] = []
        endpoint.listen(factory).addCallbacks(self._listening, failures.append)
        if failures:
            sys.exit(f"cannot listen on {self._description}: {failures[0].getErrorMessage()}")

    def stopService(self) -> Deferred[Any]:
        """Accept no more connections."""
        super().stopService()
        port, self.port = self.port, None
        return maybeDeferred(lambda: None if port is None else port.stopListening())

    def _listening(self, port: IListeningPort) -> None:
        self.port = port
        address = port.getHost()
        if isinstance(address, (IPv4Address, IPv6Address)):
            self._listens_at(address.host, address.port)


class DNSListenerService(Service):
    """One address of the name server, over UDP and TCP. Like :class:`ListenerService`.

    Args:
        current: gives the service as the configuration in force wants it.
        listening: is told the address and the port.
    """

    def __init__(
        self,
        reactor: Any,
        server: ServerAddress,
        current: Callable[[], NameService],
        listening: Callable[[str, int], None],
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._current = current
        self._listens_at = listening
        self._ports: list[IListeningPort] = []

    @property
    def listens(self) -> bool:
        """Whether it does."""
        return bool(self._ports)

    def privilegedStartService(self) -> None:
        """Bind and listen."""
        server = self._server
        try:
            for listen, protocol in (
                (self._reactor.listenUDP, Datagrams(self._current)),
                (self._reactor.listenTCP, StreamFactory(self._current, self._reactor)),
            ):
                self._ports.append(listen(server.port, protocol, interface=server.address))
        except CannotListenError as error:
            sys.exit(f"cannot listen on {server}, which is in dns.listen: {error}")
        self._listens_at(server.address, server.port)

    def stopService(self) -> Deferred[Any]:
        """Answer no more queries."""
        super().stopService()
        ports, self._ports = self._ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports])


def _with_backlog(description: str) -> str:
    """The description of the endpoint itself, which says how many connections may wait."""
    endpoint = description.removeprefix(PROXIED)
    if endpoint.startswith(_WITH_BACKLOG) and ":backlog=" not in endpoint:
        endpoint = f"{endpoint}:backlog={BACKLOG}"
    return endpoint

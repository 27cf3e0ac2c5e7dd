"""The ``[proxy]`` listener: an HTTP proxy that ends the TLS of some hosts and tunnels to others.

The first request head is read before any HTTP channel exists, so nothing has to
be taken back out of one. Where the proxy has names of its own, the same port speaks TLS to
those who begin with it, and the first request head is the one inside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory

from regproxy.config.model import LimitsSection
from regproxy.listeners.head import (
    ESTABLISHED,
    Connect,
    HeadTimeout,
    Other,
    parse,
    render_refusal,
)
from regproxy.listeners.opening import Opening
from regproxy.listeners.tunnel import Tunnels
from regproxy.oci.errors import RegistryError
from regproxy.oci.names import Host
from regproxy.policy.interception import Decision, Intercept, Tunnel


class ConnectFactory(Factory["ConnectProtocol"]):
    """Makes the protocols of the ``[proxy]`` listener.

    Args:
        clock: for the deadlines.
        limits: ``request_head`` bounds the time for the first request head.
        decide: what becomes of a CONNECT.
        intercepted: what speaks on the connection to an intercepted host: TLS first. Raises
            RegistryError if that cannot be.
        plain: answers every other request; it sees the connection from its first byte.
        tunnels: opens the others.
        secure: what speaks with a client that begins with TLS. Raises RegistryError if that
            cannot be; None if the proxy does not speak TLS itself.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        limits: LimitsSection,
        *,
        decide: Callable[[Host], Decision],
        intercepted: Callable[[Host], IProtocolFactory],
        plain: IProtocolFactory,
        tunnels: Tunnels,
        secure: Callable[[], IProtocolFactory] | None = None,
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.decide = decide
        self.intercepted = intercepted
        self.plain = plain
        self.tunnels = tunnels
        self.secure = secure

    def startFactory(self) -> None:
        self.plain.doStart()

    def stopFactory(self) -> None:
        self.plain.doStop()

    def buildProtocol(self, addr: IAddress | None) -> ConnectProtocol:
        return ConnectProtocol(self)


class ConnectProtocol(Opening):
    """Reads the first request head of a connection."""

    def __init__(self, factory: ConnectFactory) -> None:
        super().__init__(factory.clock, factory.limits.request_head)
        self.factory: ConnectFactory = factory

    def read(self, data: bytes) -> None:
        try:
            parsed = parse(bytes(self.held))
        except RegistryError as error:
            self.refuse(error)
            return
        if parsed is None:
            return
        opening, rest = parsed
        self.held = bytearray(rest)
        match opening:
            case Connect(target):
                self._connect(target)
            case Other.REQUEST:
                self.enter(lambda: self.factory.plain)
            case Other.TLS:
                self._secure()

    def overdue(self) -> None:
        self.refuse(HeadTimeout())

    def refusal(self, error: RegistryError) -> bytes:
        return render_refusal(error)

    def _connect(self, target: Host) -> None:
        match self.factory.decide(target):
            case Intercept(host):
                self.enter(partial(self.factory.intercepted, host), ESTABLISHED)
            case Tunnel(host):
                self.dial(self.factory.tunnels.open(host, self.client), ESTABLISHED)

    def _secure(self) -> None:
        if self.factory.secure is not None:
            self.enter(self.factory.secure)
            return
        self._log.warn(
            "{client} speaks TLS to the plain-text proxy port: its proxy URL must begin with"
            " http://, or proxy.tls_names have the name that is in it",
            client=self.client,
        )
        self.stream.abortConnection()

"""The ``[tls]`` listener: TLS straight to the name of a registry, without a CONNECT before it.

The ClientHello is read before anybody ends the TLS: names that are intercepted go to TLS
with a certificate of this proxy's, others are passed on untouched to the name's own server, or
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from regproxy.config.model import LimitsSection
from regproxy.listeners.opening import Opening
from regproxy.listeners.tunnel import Tunnels
from regproxy.oci.errors import BadGateway, BadRequest, Denied, Misdirected, RegistryError
from regproxy.oci.names import Host
from regproxy.policy.interception import Decision, Intercept, Refuse, Tunnel
from regproxy.tls.hello import Alert, ClientHello, HelloInvalid, HelloReader


class HelloTimeout(BadRequest):
    """The ClientHello did not come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT

    def __init__(self) -> None:
        super().__init__("the ClientHello did not come in time")


class ProxyLoop(BadGateway):
    """A connection that this proxy passed on has come back to it."""

    proxy_status = "proxy_loop_detected"


class HelloFactory(Factory["HelloProtocol"]):
    """Makes the protocols of the ``[tls]`` listener.

    Args:
        clock: for the deadlines.
        limits: ``request_head`` bounds the time for the ClientHello.
        decide: what becomes of a connection to this name, or to none.
        intercepted: what speaks on a connection whose TLS ends here: TLS first. Raises
            RegistryError if that cannot be.
        tunnels: passes on the others.
        log_refusal: is told of the client's address, of the name if there is one, and
            of the reason, when a ClientHello is refused.

    Attributes:
        passed_on: the random bytes of each ClientHello that is passed on, while its
            connection lasts. A name that leads back here, by whatever way, would else be
            passed on again and again: a connection that comes back is known by them.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        limits: LimitsSection,
        *,
        decide: Callable[[str | None], Decision | Refuse],
        intercepted: Callable[[Intercept], IProtocolFactory],
        tunnels: Tunnels,
        log_refusal: Callable[[str, str | None, RegistryError], object],
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.decide = decide
        self.intercepted = intercepted
        self.tunnels = tunnels
        self.log_refusal = log_refusal
        self.passed_on: set[bytes] = set()

    def buildProtocol(self, addr: IAddress | None) -> HelloProtocol:
        return HelloProtocol(self)


class HelloProtocol(Opening):
    """Reads the ClientHello of a connection."""

    def __init__(self, factory: HelloFactory) -> None:
        super().__init__(factory.clock, factory.limits.request_head)
        self.factory: HelloFactory = factory
        self._reader = HelloReader()
        self._passed_on: bytes | None = None

    def read(self, data: bytes) -> None:
        try:
            hello = self._reader.feed(data)
        except HelloInvalid as error:
            self._refuse(None, error)
            return
        if hello is None:
            return
        match self.factory.decide(hello.server_name):
            case Intercept() as decision:
                self.enter(partial(self.factory.intercepted, decision))
            case Tunnel(host):
                self._pass_on(host, hello)
            case Refuse(reason):
                self._refuse(hello.server_name, Misdirected(reason))

    def overdue(self) -> None:
        self._refuse(None, HelloTimeout())

    def refusal(self, error: RegistryError) -> bytes:
        match error:
            case HelloInvalid():
                alert = error.alert
            case HelloTimeout():
                alert = None
            case Misdirected():
                # RFC 6066 section 3.
                alert = Alert.UNRECOGNIZED_NAME
            case Denied():
                alert = Alert.ACCESS_DENIED
            case _:
                alert = Alert.INTERNAL_ERROR
        return b"" if alert is None else alert.record

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._passed_on is not None:
            self.factory.passed_on.remove(self._passed_on)
        super().connectionLost(reason)

    def _pass_on(self, host: Host, hello: ClientHello) -> None:
        if hello.random in self.factory.passed_on:
            loop = f"{host} leads back to this proxy: its own resolver must know the real address"
            self._refuse(host.name, ProxyLoop(loop))
            return
        self._passed_on = hello.random
        self.factory.passed_on.add(hello.random)
        self.dial(self.factory.tunnels.open(host, self.client))

    def _refuse(self, name: str | None, error: RegistryError) -> None:
        self.factory.log_refusal(self.client, name, error)
        self.refuse(error)

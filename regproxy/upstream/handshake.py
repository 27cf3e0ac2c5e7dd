"""Connections through a parent proxy: what is said to it before it only passes bytes on.

A handshake is a generator without I/O. It yields steps: bytes to send, and what reads
the answer; the answer comes back from the ``yield``. When it returns, the connection
belongs to whoever wanted it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final, Generic, TypeVar, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.upstream.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    translated,
)

A = TypeVar("A")

# Of one answer; what comes after it is the other end's. Proxies add a few fields of their own.
ANSWER_LIMIT: Final = 16 * 1024


class AnswerInvalid(ValueError):
    """An answer that does not follow the protocol."""


@frozen
class Step(Generic[A]):
    """One exchange with the parent.

    Attributes:
        data: what is sent.
        parse: given everything that came so far, the answer and the bytes behind it; None
            while it is not complete. Raises AnswerInvalid.
    """

    data: bytes
    parse: Callable[[bytes], tuple[A, bytes] | None]


#: Raises an UpstreamError when the parent refuses.
Handshake = Generator[Step[Any], Any, None]


@implementer(IStreamClientEndpoint)
@frozen
class HandshakeEndpoint:
    """An endpoint behind a parent proxy.

    Attributes:
        parent: the endpoint of the proxy itself.
        begin: begins a handshake.
        name: of the proxy, for messages.
        timeout: seconds for the handshake, in which the proxy connects itself.
    """

    clock: IReactorTime
    parent: IStreamClientEndpoint
    begin: Callable[[], Handshake]
    name: str
    timeout: float

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect. The Deferred fails with an UpstreamError."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        def expired(result: object, timeout: float) -> Failure:
            return Failure(
                UpstreamTimeout(f"{self.name} did not answer within {timeout:g} seconds")
            )

        handshake = self.begin()
        negotiation = await self.parent.connect(_Negotiations(handshake, factory, self.name))
        assert isinstance(negotiation, _Negotiation)
        return await negotiation.done.addTimeout(self.timeout, self.clock, onTimeoutCancel=expired)


class _Negotiations(Factory["_Negotiation"]):
    noisy = False

    def __init__(self, handshake: Handshake, factory: IProtocolFactory, name: str) -> None:
        self._handshake = handshake
        self._factory = factory
        self._name = name

    def buildProtocol(self, addr: IAddress | None) -> _Negotiation:
        return _Negotiation(self._handshake, self._factory, self._name)


@implementer(IHalfCloseableProtocol)
class _Negotiation(Protocol):
    """Speaks with the parent, then passes bytes up to the protocol that was wanted.

    That one gets the transport itself. What comes up goes through here because it works
    over every transport.

    Attributes:
        done: fires with that protocol.
    """

    def __init__(self, handshake: Handshake, factory: IProtocolFactory, name: str) -> None:
        self.done: Deferred[IProtocol] = Deferred(lambda _: self._give_up())
        self._handshake = handshake
        self._factory = factory
        self._name = name
        self._step: Step[Any] | None = None
        self._received = b""
        self._inner: IProtocol | None = None
        self._over = False

    def connectionMade(self) -> None:
        self._advance(None)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._received += data
        while self._step is not None:
            try:
                parsed = self._step.parse(self._received)
            except AnswerInvalid as error:
                self._fail(UpstreamBroken(f"{self._name} {error}"))
                return
            if parsed is None:
                if len(self._received) > ANSWER_LIMIT:
                    self._fail(UpstreamBroken(f"the answer of {self._name} is too long"))
                return
            self._step = None
            answer, self._received = parsed
            self._advance(answer)

    def readConnectionLost(self) -> None:
        inner: object = self._inner
        if IHalfCloseableProtocol.providedBy(inner):
            IHalfCloseableProtocol(inner).readConnectionLost()
        else:
            # For all others a FIN is the end of the connection, as always in Twisted.
            self.connectionLost(connectionDone)
            self._abort()

    def writeConnectionLost(self) -> None:
        inner: object = self._inner
        if IHalfCloseableProtocol.providedBy(inner):
            IHalfCloseableProtocol(inner).writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
        elif not self._over:
            self._over = True
            self.done.errback(translated(cast(Exception, reason.value), self._name))

    def _advance(self, answer: Any) -> None:
        try:
            step = self._handshake.send(answer)
        except StopIteration:
            self._establish()
        except UpstreamError as error:
            self._fail(error)
        else:
            self._step = step
            cast(ITCPTransport, self.transport).write(step.data)

    def _establish(self) -> None:
        transport = cast(ITCPTransport, self.transport)
        self._over = True
        inner = self._factory.buildProtocol(transport.getPeer())
        if inner is None:
            # IProtocolFactory: it does not want the connection.
            self._abort()
            self.done.errback(NoProtocol())
            return
        rest, self._received = self._received, b""
        self._inner = inner
        inner.makeConnection(transport)
        # Whoever waited is there before the other end's first bytes are.
        self.done.callback(inner)
        if rest and self._inner is not None:
            self._inner.dataReceived(rest)

    def _fail(self, error: UpstreamError) -> None:
        self._give_up()
        self.done.errback(error)

    def _give_up(self) -> None:
        self._over = True
        self._step = None
        self._abort()

    def _abort(self) -> None:
        cast(ITCPTransport, self.transport).abortConnection()

"""The name server: clients that know of no proxy come here for what is intercepted.

``twisted.names`` has a server, too. It also answers answers, so that two of its kind keep each
other busy for ever, has no limit of connections, time or sizes, and
sends over UDP what does not fit without a word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, cast

from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.dns.message import (
    TCP_SIZE,
    Answer,
    Query,
    QueryInvalid,
    RCode,
    complaint,
    is_query,
    own_answer,
    read_query,
    reply,
)
from regproxy.policy.resolution import Forward, Own, Refuse, ResolutionRules
from regproxy.upstream.name_servers import NameServers, NoAnswer

# Queries that wait for other name servers, each with a socket: more than a busy site has at
# a time, and few enough for the 1024 open files that some systems allow.
OUTSTANDING: Final = 256
# Bytes. Queries are short, but may have options.
QUERY_SIZE: Final = 4096
# Connections. Over TCP come only those whose answer did not fit.
CONNECTIONS: Final = 128
# Seconds without a query: "of the order of a few seconds" (RFC 7766 section 6.2.3).
IDLE: Final = 10.0


class NameService:
    """Answers queries, whichever way they came.

    Args:
        rules: what to answer with.
        ttl: seconds, for answers that lead here.
        others: who is asked for everything else.
    """

    def __init__(self, rules: ResolutionRules, ttl: int, others: NameServers) -> None:
        self._rules = rules
        self._ttl = ttl
        self._others = others
        self._outstanding = 0

    async def answer(self, data: bytes, client: str, *, datagram: bool) -> bytes | None:
        """The answer to the message *data* from the address *client*; None for silence.

        Args:
            datagram: it has to fit into one.
        """
        if not is_query(data):
            return None
        try:
            query = read_query(data)
        except QueryInvalid as error:
            return complaint(data, error.rcode)
        limit = query.udp_limit if datagram else TCP_SIZE
        answer = await self._answer(query, client)
        return reply(query, answer, recursive=not self._rules.authoritative, limit=limit)

    async def _answer(self, query: Query, client: str) -> Answer:
        if query.edns is not None and query.edns.version > 0:
            return Answer(RCode.BADVERS)
        match self._rules.decide(client, query.question, recursion_desired=query.recursion_desired):
            case Own(addresses):
                return own_answer(addresses, self._ttl)
            case Refuse():
                return Answer(RCode.REFUSED)
            case Forward():
                return await self._forward(query)

    async def _forward(self, query: Query) -> Answer:
        if self._outstanding >= OUTSTANDING:
            return Answer(RCode.SERVFAIL)
        self._outstanding += 1
        try:
            return await self._others.ask(query)
        except NoAnswer:
            return Answer(RCode.SERVFAIL)
        finally:
            self._outstanding -= 1


Current = Callable[[], NameService]


class Datagrams(DatagramProtocol):
    """Queries over UDP.

    Args:
        current: gives the service as the configuration in force wants it.
    """

    noisy = False
    _log = Logger()

    def __init__(self, current: Current) -> None:
        self._current = current

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Answer a query."""

        def send(message: bytes | None) -> None:
            if message is None or self.transport is None:
                return
            try:
                self.transport.write(message, addr)
            except OSError as error:
                # A full buffer, no route: as if it was lost on the way.
                self._log.debug("No answer to {client}: {error}", client=addr[0], error=error)

        answering = ensureDeferred(self._current().answer(datagram, addr[0], datagram=True))
        answering.addCallback(send)
        answering.addErrback(lambda failure: self._log.failure("A query over UDP", failure))


@implementer(IPushProducer)
class Stream(Int16StringReceiver, TimeoutMixin):
    """Queries over one TCP connection (RFC 7766). Answers go out as they are ready."""

    MAX_LENGTH = QUERY_SIZE
    _log = Logger()

    _client: str

    def __init__(self, factory: StreamFactory) -> None:
        self._factory = factory

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        """For TimeoutMixin."""
        return self._factory.clock.callLater(period, func)

    def connectionMade(self) -> None:
        """Begin to wait."""
        transport = cast(ITCPTransport, self.transport)
        self._client = transport.getPeer().host
        # A client that takes no answers is not read from.
        cast(IConsumer, transport).registerProducer(self, True)
        self.setTimeout(IDLE)
        self._factory.used(self)

    def stringReceived(self, string: bytes) -> None:
        """Answer a query."""
        self.resetTimeout()
        self._factory.used(self)
        service = self._factory.current()
        answering = ensureDeferred(service.answer(string, self._client, datagram=False))
        answering.addCallback(lambda message: message is None or self.sendString(message))
        answering.addErrback(lambda failure: self._log.failure("A query over TCP", failure))

    def timeoutConnection(self) -> None:
        """Nothing was asked for too long, or nothing taken."""
        self.cut()

    def cut(self) -> None:
        """Close at once."""
        cast(ITCPTransport, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget it."""
        self.setTimeout(None)
        self._factory.lost(self)


class StreamFactory(Factory):
    """Connections; when there are too many, the one that has been silent longest goes.

    Args:
        current: as in :class:`Datagrams`.
    """

    noisy = False

    def __init__(self, current: Current, clock: IReactorTime) -> None:
        self.current = current
        self.clock = clock
        self._open: OrderedDict[Stream, None] = OrderedDict()

    def buildProtocol(self, addr: IAddress | None) -> Stream:
        """The protocol of a new connection."""
        return Stream(self)

    def used(self, stream: Stream) -> None:
        """*stream* is there, and has something to say."""
        self._open[stream] = None
        self._open.move_to_end(stream)
        if len(self._open) > CONNECTIONS:
            oldest, _ = self._open.popitem(last=False)
            oldest.cut()

    def lost(self, stream: Stream) -> None:
        """*stream* is closed."""
        self._open.pop(stream, None)

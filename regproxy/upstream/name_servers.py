"""Other name servers: asked over UDP, over TCP for what does not fit, and in turn.

Each query has a socket of its own, and so a port that is as hard to guess as its id (RFC
5452 section 9.2). The client of ``twisted.names`` has that, too; but it takes every answer
with the right id, whatever the question in it, keeps all of them for ever,
logs two lines for each query, and does not hear when a server's machine says that nobody
listens there.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, cast

from attrs import evolve
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime, IReadDescriptor, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.dns.cache import AnswerCache
from regproxy.dns.message import EDNS, TCP_SIZE, Answer, MessageInvalid, Query, RCode, read_answer
from regproxy.policy.resolution import ServerAddress
from regproxy.upstream.flights import Flights

# Seconds that a server has to answer, the first time and once more. Clients give up
# after five (resolv.conf(5); Go's resolver has the same).
_PATIENCE: Final = (1.0, 2.0)
_TOTAL: Final = 5.0
# A server that failed is the last choice for so many seconds.
_PENALTY: Final = 30.0
# Answers after which another server may know better: those of resolv.conf(5)'s client.
_UNABLE: Final = frozenset((RCode.SERVFAIL, RCode.NOTIMP, RCode.REFUSED))


class NoAnswer(Exception):
    """No server answered. The message says why not."""


Exchange = Callable[[ServerAddress, Query, float], Coroutine[Deferred[Any], Any, Answer]]


class NameServers:
    """Servers that stand for each other, with what they have said.

    The same question of several askers goes out once, so that whoever floods this proxy
    with it does not get as many chances to guess an id (RFC 5452 section 5).

    Args:
        exchange: asks one server, which has so many seconds.
        servers: in the order of preference.
    """

    _log = Logger()

    def __init__(
        self,
        exchange: Exchange,
        servers: Sequence[ServerAddress],
        cache: AnswerCache,
        clock: IReactorTime,
    ) -> None:
        self._exchange = exchange
        self._servers = servers
        self._cache = cache
        self._clock = clock
        self._flights: Flights[object, Answer] = Flights()
        self._failed: dict[ServerAddress, float] = {}

    async def ask(self, query: Query) -> Answer:
        """The answer to *query*.

        Raises:
            NoAnswer: there is none.
        """
        known = self._cache.get(query.key)
        if known is not None:
            return known
        return await self._flights.join(query.key, lambda: self._ask(query))

    async def _ask(self, query: Query) -> Answer:
        asking = Deferred.fromCoroutine(self._ask_in_turn(query))
        try:
            answer = await asking.addTimeout(_TOTAL, self._clock)
        except TimeoutError:
            raise NoAnswer(f"none within {_TOTAL:g} seconds") from None
        self._cache.put(query.key, answer)
        return answer

    async def _ask_in_turn(self, query: Query) -> Answer:
        for patience in _PATIENCE:
            unable = None
            for server in sorted(self._servers, key=self._has_failed):
                try:
                    answer = await self._exchange(server, query, patience)
                except NoAnswer as error:
                    self._fail(server, str(error))
                    continue
                self._failed.pop(server, None)
                if answer.rcode not in _UNABLE:
                    return answer
                unable = answer
            if unable is not None:
                return unable
        raise NoAnswer("none from any server")

    def _has_failed(self, server: ServerAddress) -> bool:
        since = self._failed.get(server)
        return since is not None and self._clock.seconds() - since < _PENALTY

    def _fail(self, server: ServerAddress, reason: str) -> None:
        if not self._has_failed(server):
            self._log.warn(
                "The name server {server} does not answer: {reason}",
                server=str(server),
                reason=reason,
            )
            self._failed[server] = self._clock.seconds()


class NetworkExchange:
    """An ``Exchange`` over the network."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    async def __call__(self, server: ServerAddress, query: Query, patience: float) -> Answer:
        """Ask *server*, which has *patience* seconds for UDP and as many for TCP.

        Raises:
            NoAnswer: it does not answer.
        """
        # Whatever else the asker has said concerns this proxy and not the next server.
        edns = None if query.edns is None else EDNS(dnssec_ok=query.dnssec_ok)
        query = evolve(query, id=secrets.randbelow(1 << 16), recursion_desired=True, edns=edns)
        try:
            answer = await self._over_udp(server, query).addTimeout(patience, self._reactor)
            if answer.truncated:
                answer = await self._over_tcp(server, query).addTimeout(patience, self._reactor)
        except TimeoutError:
            raise NoAnswer(f"nothing within {patience:g} seconds") from None
        except (OSError, ConnectError, MessageInvalid) as error:
            raise NoAnswer(str(error)) from error
        if answer.truncated:
            raise NoAnswer("truncated over TCP")
        return answer

    def _over_udp(self, server: ServerAddress, query: Query) -> Deferred[Answer]:
        return _Datagrams(self._reactor, server, query).answered

    def _over_tcp(self, server: ServerAddress, query: Query) -> Deferred[Answer]:
        kind = TCP6ClientEndpoint if ":" in server.address else TCP4ClientEndpoint
        endpoint = kind(self._reactor, server.address, server.port, _TOTAL)
        stream = _Stream(query)
        connectProtocol(endpoint, stream).addErrback(stream.failed)
        return stream.answered


@implementer(IReadDescriptor)
class _Datagrams:
    """A query to a server, on a socket that receives from nobody else.

    Attributes:
        answered: fails with OSError when the server's machine refuses.
    """

    def __init__(self, reactor: Any, server: ServerAddress, query: Query) -> None:
        self.answered: Deferred[Answer] = Deferred(lambda _: self._close())
        self._reactor = reactor
        self._query = query
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            # Linux gives it a random port.
            self._socket.connect((server.address, server.port))
            self._socket.send(query.encoded())
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "dns"

    def doRead(self) -> None:
        try:
            answer = read_answer(self._socket.recv(TCP_SIZE), self._query)
        except (BlockingIOError, MessageInvalid):
            # What is no answer may be a guess of somebody who pretends to be the server:
            # the right one may still come.
            return
        except OSError as error:
            self._close()
            self.answered.errback(Failure(error))
            return
        self._close()
        self.answered.callback(answer)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has seen that an error waits, and will not have it read."""
        self._close()
        self.answered.errback(Failure(ConnectionRefusedError("connection refused")))

    def _close(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()


class _Stream(Int16StringReceiver):
    """A query to a server over TCP (RFC 1035 section 4.2.2)."""

    def __init__(self, query: Query) -> None:
        self.answered: Deferred[Answer] = Deferred(lambda _: self._cut())
        self._query = query

    def connectionMade(self) -> None:
        if self.answered.called:
            self._cut()
        else:
            self.sendString(self._query.encoded())

    def stringReceived(self, string: bytes) -> None:
        self._cut()
        if not self.answered.called:
            try:
                self.answered.callback(read_answer(string, self._query))
            except MessageInvalid:
                self.answered.errback()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.failed(Failure(ConnectionAbortedError("closed without an answer")))

    def failed(self, reason: Failure) -> None:
        """There is no connection."""
        if not self.answered.called:
            self.answered.errback(reason)

    def _cut(self) -> None:
        if self.transport is not None:
            cast(ITCPTransport, self.transport).abortConnection()

"""A name server on the loopback interface that says what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import reactor as _global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from regproxy.dns.message import Query, read_query
from regproxy.policy.resolution import ServerAddress
from tests.dns.records import answer_to

_reactor: Any = _global_reactor

#: The messages with which a query is answered.
Script = Callable[[Query], Sequence[bytes]]


class NameServer(DatagramProtocol):
    """One that listens over UDP and TCP, at the same port.

    Attributes:
        over_udp, over_tcp: what it answers with.
        queries: what it was asked over UDP.
        sources: from where.
        streamed: what it was asked over TCP.
        hangs_up: whether it closes connections instead of saying nothing.
        left: fires when a client has closed a connection.
    """

    noisy = False

    def __init__(self, test: TestCase, address: str = "127.0.0.1") -> None:
        self.over_udp: Script = lambda query: [addresses(query)]
        self.over_tcp: Script = lambda query: [addresses(query)]
        self.queries: list[Query] = []
        self.sources: list[tuple[str, int]] = []
        self.streamed: list[Query] = []
        self.hangs_up = True
        self.left: Deferred[None] = Deferred()
        # In this order: few ports are taken by UDP, many by TCP.
        streams = _reactor.listenTCP(0, _StreamFactory(self), interface=address)
        test.addCleanup(streams.stopListening)
        port = listen_udp(test, self, address, streams.getHost().port)
        self.address = ServerAddress(address, port)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        query = read_query(datagram)
        self.queries.append(query)
        self.sources.append(addr)
        assert self.transport is not None
        for message in self.over_udp(query):
            self.transport.write(message, addr)


def listen_udp(
    test: TestCase, protocol: DatagramProtocol, address: str = "127.0.0.1", wanted: int = 0
) -> int:
    """The port where *protocol* listens until *test* is over: the one *wanted*, or any."""
    port = _reactor.listenUDP(wanted, protocol, address)
    test.addCleanup(port.stopListening)
    return int(port.getHost().port)


class _StreamFactory(Factory):
    noisy = False

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def buildProtocol(self, addr: IAddress | None) -> _Stream:
        return _Stream(self._server)


class _Stream(Int16StringReceiver):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def stringReceived(self, string: bytes) -> None:
        server = self._server
        query = read_query(string)
        server.streamed.append(query)
        assert self.transport is not None
        messages = server.over_tcp(query)
        for message in messages:
            # In pieces, as TCP may.
            framed = len(message).to_bytes(2) + message
            self.transport.write(framed[:1])
            self.transport.write(framed[1:])
        if not messages and server.hangs_up:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._server.left.called:
            self._server.left.callback(None)


def addresses(query: Query, *texts: str, ttl: int = 60) -> bytes:
    """The answer with these IPv4 addresses, by default one."""
    host = query.question.host
    assert host is not None
    return answer_to(
        query,
        [
            dns.RRHeader(host, dns.A, ttl=ttl, payload=dns.Record_A(text, ttl))
            for text in texts or ("192.0.2.7",)
        ],
    )


def truncated(query: Query) -> bytes:
    """An answer that did not fit."""
    message = bytearray(answer_to(query, []))
    message[2] |= 2
    return bytes(message)

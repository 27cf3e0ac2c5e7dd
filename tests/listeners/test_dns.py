"""Tests of regproxy.listeners.dns: one message after the other, and on real sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.internet.threads import deferToThread
from twisted.names import client, dns
from twisted.names.error import DNSNameError, DNSQueryRefusedError, DNSServerError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regproxy.dns.cache import AnswerCache
from regproxy.dns.message import (
    EDNS,
    Answer,
    Query,
    Question,
    RCode,
    Type,
    own_answer,
    read_answer,
)
from regproxy.listeners import dns as module
from regproxy.listeners.dns import IDLE, QUERY_SIZE, Datagrams, NameService, StreamFactory
from regproxy.policy.resolution import ResolutionRules, ServerAddress
from regproxy.upstream.name_servers import NameServers, NoAnswer
from tests.dns.test_message import decoded
from tests.support.addresses import addresses

reactor: Any = global_reactor

OURS = "registry.example.test"
OTHER = "other.example.test"
APPLIANCE = addresses("10.0.0.5", "10.0.0.6", "fd00::5")
ELSEWHERE = evolve(own_answer(addresses("192.0.2.7"), 60), authoritative=False, lifetime=60)
NETWORKS = tuple(map(ip_network, ("127.0.0.0/8", "10.0.0.0/8")))


def quads(records: Iterable[Any]) -> list[str]:
    """The addresses in records of type A."""
    return [record.payload.dottedQuad() for record in records]


def query(name: str = OURS, type: int = Type.A, id: int = 7, edns: EDNS | None = None) -> Query:
    return Query(Question.about(name, type), id, edns=edns)


class Others:
    """The other name servers.

    Attributes:
        answer: what they say; None for a failure.
        waiting: the questions that are answered later, if it is a list.
    """

    def __init__(self, clock: Any) -> None:
        self.asked: list[Query] = []
        self.answer: Answer | None = ELSEWHERE
        self.waiting: list[Deferred[Answer]] | None = None
        self.servers = NameServers(
            self._exchange, [ServerAddress("192.0.2.53")], AnswerCache(clock.seconds), clock
        )

    async def _exchange(self, server: ServerAddress, query: Query, patience: float) -> Answer:
        self.asked.append(query)
        if self.waiting is not None:
            self.waiting.append(Deferred())
            return await self.waiting[-1]
        if self.answer is None:
            raise NoAnswer("silence")
        return self.answer


def service(others: Others, *, authoritative: bool = False) -> NameService:
    rules = ResolutionRules(lambda name: name == OURS, APPLIANCE, NETWORKS, authoritative)
    return NameService(rules, 60, others.servers)


class NameServiceTests(SynchronousTestCase):
    """NameService"""

    def setUp(self) -> None:
        self.others = Others(Clock())
        self.service = service(self.others)

    def begin(
        self, message: bytes, client: str = "10.1.2.3", *, datagram: bool = True
    ) -> Deferred[bytes | None]:
        return Deferred.fromCoroutine(self.service.answer(message, client, datagram=datagram))

    def ask(self, query: Query, client: str = "10.1.2.3", **keys: bool) -> dns.Message:
        answer = self.successResultOf(self.begin(query.encoded(), client, **keys))
        assert answer is not None
        message = decoded(answer)
        self.assertTrue(message.answer)
        self.assertEqual(message.id, query.id)
        return message

    def test_ours(self) -> None:
        message = self.ask(query())
        self.assertTrue(message.auth)
        self.assertEqual(quads(message.answers), ["10.0.0.5", "10.0.0.6"])
        message = self.ask(query(type=Type.AAAA))
        self.assertEqual([record.type for record in message.answers], [dns.AAAA])
        self.assertEqual(self.others.asked, [])

    def test_other_types_of_ours(self) -> None:
        """HTTPS and whatever else: there is none, and nobody else is asked."""
        for type in (65, 64, dns.TXT, dns.NS, dns.SOA, dns.CNAME, dns.ALL_RECORDS):
            message = self.ask(query(type=type))
            self.assertEqual((message.rCode, message.answers), (dns.OK, []))
            (record,) = message.authority
            self.assertEqual(record.type, dns.SOA)
        self.assertEqual(self.others.asked, [])

    def test_forwarded(self) -> None:
        """The answer of others is theirs, and kept."""
        for id in (1, 2):
            message = self.ask(query(OTHER, id=id))
            self.assertFalse(message.auth)
            self.assertTrue(message.recAv)
            self.assertEqual(quads(message.answers), ["192.0.2.7"])
        self.assertEqual(len(self.others.asked), 1)

    def test_authoritative(self) -> None:
        self.service = service(self.others, authoritative=True)
        message = self.ask(query(OTHER))
        self.assertEqual((message.rCode, message.recAv), (dns.EREFUSED, 0))
        self.assertEqual(self.ask(query()).rCode, dns.OK)
        self.assertEqual(self.others.asked, [])

    def test_strangers(self) -> None:
        """They are told no more than that."""
        for name in (OURS, OTHER):
            message = self.ask(query(name), "192.0.2.99")
            self.assertEqual((message.rCode, message.answers), (dns.EREFUSED, []))
        self.assertEqual(self.others.asked, [])

    def test_others_fail(self) -> None:
        for answer in (None, Answer(RCode.SERVFAIL)):
            self.others.answer = answer
            message = self.ask(query(OTHER))
            self.assertEqual((message.rCode, message.answers), (dns.ESERVER, []))
        self.assertEqual(self.ask(query()).rCode, dns.OK)

    def test_outstanding(self) -> None:
        """Where too many wait, the next one fails at once, but for names that lead here."""
        self.patch(module, "OUTSTANDING", 3)
        waiting = self.others.waiting = []
        begun = [self.begin(query(f"{n}.example.test").encoded()) for n in range(2)]
        begun.append(self.begin(query("1.example.test", id=8).encoded()))
        self.assertEqual(self.ask(query(OTHER)).rCode, dns.ESERVER)
        self.assertEqual(self.ask(query()).rCode, dns.OK)
        for answer in waiting:
            answer.callback(ELSEWHERE)
        for each in begun:
            self.assertIsNotNone(self.successResultOf(each))
        self.assertEqual(len(self.others.asked), 2)
        self.others.waiting = None
        self.assertEqual(self.ask(query(OTHER)).rCode, dns.OK)

    def test_sizes(self) -> None:
        """Over UDP what does not fit is left out whole, over TCP it is not."""
        self.others.answer = own_answer(APPLIANCE[:1] * 80, 60)
        for edns in (None, EDNS(512), EDNS(65535)):
            message = self.ask(query(OTHER, edns=edns))
            self.assertEqual((message.trunc, message.answers), (1, []))
            message = self.ask(query(OTHER, edns=edns), datagram=False)
            self.assertEqual((message.trunc, len(message.answers)), (0, 80))
        self.others.answer = own_answer(APPLIANCE[:1] * 60, 60)
        for edns, fits in ((None, False), (EDNS(1232), True), (EDNS(600), False)):
            message = self.ask(query("60.example.test", edns=edns))
            self.assertEqual(len(message.answers), 60 * fits)

    def test_edns_version(self) -> None:
        """RFC 6891 section 6.1.3: one that is not known is answered with the one that is."""
        message = self.ask(query(edns=EDNS(version=1)))
        options = dns._OPTHeader.fromRRHeader(message.additional[0])
        self.assertEqual((options.extendedRCODE, message.rCode, options.version), (1, 0, 0))
        self.assertEqual(message.answers, [])

    def test_malformed(self) -> None:
        """As little as possible is said to it: never more than came."""
        loop = query().encoded()[:12] + b"\xc0\x0c\0\1\0\1"
        inverse = bytes([0, 7, 0x09]) + query().encoded()[3:]
        for message, rcode in ((loop, 1), (query().encoded()[:-1], 1), (inverse, 4)):
            answer = self.successResultOf(self.begin(message))
            assert answer is not None
            self.assertEqual(decoded(answer).rCode, rcode)
            self.assertEqual(len(answer), 12)

    def test_silence(self) -> None:
        """Answers are not answered, nor what has no head."""
        answer = self.successResultOf(self.begin(query().encoded()))
        assert answer is not None
        refused = self.successResultOf(self.begin(query(OTHER).encoded(), "192.0.2.99"))
        assert refused is not None
        for message in (answer, refused, b"", b"\0" * 11):
            self.assertIsNone(self.successResultOf(self.begin(message)))

    @given(st.binary(max_size=80))
    def test_noise(self, message: bytes) -> None:
        """Nothing that comes raises, or is answered with more than it brought but a record."""
        answer = self.successResultOf(self.begin(b"\0\1\1\0\0\1" + message))
        self.assertLessEqual(len(answer or b""), 12 + len(message) + 100)


class StreamTests(SynchronousTestCase):
    """Stream, StreamFactory"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.others = Others(self.clock)
        self.service = service(self.others)
        self.factory = StreamFactory(lambda: self.service, self.clock)

    def connect(self) -> tuple[Any, Transport]:
        """The server's end of a new connection."""
        stream = self.factory.buildProtocol(None)
        transport = Transport()
        transport.protocol = stream
        stream.makeConnection(transport)
        return stream, transport

    def answers(self, transport: Transport) -> list[int]:
        """The ids of the answers so far."""
        data, found = transport.value(), []
        while data:
            size = int.from_bytes(data[:2])
            message, data = data[2 : 2 + size], data[2 + size :]
            self.assertEqual(len(message), size)
            found.append(decoded(message).id)
        transport.clear()
        return found

    def test_pipelined(self) -> None:
        """Answers go out as they are ready, and in whatever pieces the queries came."""
        stream, transport = self.connect()
        waiting = self.others.waiting = []
        data = framed(query(OTHER, id=1), query(id=2), query(id=3))
        for octet in data:
            stream.dataReceived(bytes([octet]))
        self.assertEqual(self.answers(transport), [2, 3])
        waiting[0].callback(ELSEWHERE)
        self.assertEqual(self.answers(transport), [1])

    def test_idle(self) -> None:
        """A connection without a query is closed, however it drips."""
        stream, transport = self.connect()
        for octet in framed(query())[:5]:
            self.clock.advance(IDLE / 5)
            stream.dataReceived(bytes([octet]))
        self.assertTrue(transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_busy(self) -> None:
        stream, transport = self.connect()
        for _ in range(3):
            self.clock.advance(IDLE * 0.9)
            stream.dataReceived(framed(query()))
        self.assertFalse(transport.aborted)
        self.clock.advance(IDLE)
        self.assertTrue(transport.aborted)

    def test_too_long(self) -> None:
        """Who announces more than a query has is not waited for."""
        stream, transport = self.connect()
        stream.dataReceived(struct.pack("!H", QUERY_SIZE + 1))
        self.assertTrue(transport.disconnecting)

    def test_many(self) -> None:
        """The connection that has been silent longest makes room."""
        self.patch(module, "CONNECTIONS", 3)
        connections = [self.connect() for _ in range(3)]
        connections[0][0].dataReceived(framed(query()))
        connections.append(self.connect())
        self.assertEqual(
            [transport.aborted for _, transport in connections], [False, True, False, False]
        )
        connections[2][1].loseConnection()
        connections.append(self.connect())
        self.assertEqual(
            [transport.aborted for _, transport in connections],
            [False, True, False, False, False],
        )

    def test_takes_nothing(self) -> None:
        """No queries are read from a client that does not read answers."""
        stream, transport = self.connect()
        self.assertIs(transport.producer, stream)
        stream.pauseProducing()
        stream.dataReceived(framed(query(id=1)))
        self.assertEqual(self.answers(transport), [])
        self.assertEqual(transport.producerState, "paused")
        stream.resumeProducing()
        self.assertEqual(self.answers(transport), [1])

    def test_left(self) -> None:
        """An answer for a client that has gone is nobody's."""
        stream, transport = self.connect()
        waiting = self.others.waiting = []
        stream.dataReceived(framed(query(OTHER)))
        transport.loseConnection()
        waiting[0].callback(ELSEWHERE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silence(self) -> None:
        """Where there is nothing to say, the next query is answered all the same."""
        stream, transport = self.connect()
        stream.dataReceived(b"\0\0" + b"\0\1a" + framed(query(id=3)))
        self.assertEqual(self.answers(transport), [3])

    def test_strangers(self) -> None:
        stream, transport = self.connect()
        transport.peer = IPv4Address("TCP", "192.0.2.99", 4711)
        stream.connectionMade()
        stream.dataReceived(framed(query()))
        self.assertEqual(decoded(transport.value()[2:]).rCode, dns.EREFUSED)


class Transport(StringTransportWithDisconnection):
    """A connection of a client, which notes how it ends."""

    aborted = False
    peer = IPv4Address("TCP", "10.1.2.3", 4711)

    def __init__(self) -> None:
        super().__init__(peerAddress=self.peer)

    def getPeer(self) -> IPv4Address:
        return self.peer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        # The server's end is connected anew in a test.
        self.producer, self.streaming = producer, streaming

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()

    def loseConnection(self) -> None:
        self.disconnecting = True
        super().loseConnection()


def framed(*queries: Query) -> bytes:
    """As they are sent over TCP."""
    messages = [each.encoded() for each in queries]
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)


class SocketTests(TestCase):
    """The whole on real sockets, with the client of ``twisted.names``."""

    address = "127.0.0.1"

    def setUp(self) -> None:
        self.others = Others(reactor)
        self.service = service(self.others)
        # In this order: few ports are taken by UDP, many by TCP.
        factory = StreamFactory(lambda: self.service, reactor)
        streams = reactor.listenTCP(0, factory, interface=self.address)
        self.addCleanup(streams.stopListening)
        self.port = streams.getHost().port
        protocol = Datagrams(lambda: self.service)
        datagrams = reactor.listenUDP(self.port, protocol, self.address, QUERY_SIZE)
        self.addCleanup(datagrams.stopListening)
        self.resolver = client.Resolver(servers=[(self.address, self.port)], reactor=reactor)
        self.addCleanup(self.hang_up)

    def hang_up(self) -> None:
        for connection in self.resolver.connections:
            connection.transport.abortConnection()

    async def test_addresses(self) -> None:
        found = await self.resolver.lookupAddress(OURS)
        self.assertEqual(quads(found[0]), ["10.0.0.5", "10.0.0.6"])
        found = await self.resolver.lookupAddress(OTHER)
        self.assertEqual(quads(found[0]), ["192.0.2.7"])
        self.assertEqual((await self.resolver.lookupText(OURS))[0], [])

    async def test_large(self) -> None:
        """What does not fit into a datagram comes over TCP, though nothing of it came before."""
        self.others.answer = evolve(own_answer(APPLIANCE[:1] * 900, 60), lifetime=60)
        found = await self.resolver.lookupAddress(OTHER)
        self.assertEqual(len(found[0]), 900)
        # The second time it was known.
        self.assertEqual(len(self.others.asked), 1)

    async def test_errors(self) -> None:
        for answer, error in (
            (Answer(RCode.NXDOMAIN), DNSNameError),
            (Answer(RCode.SERVFAIL), DNSServerError),
            (Answer(RCode.REFUSED), DNSQueryRefusedError),
        ):
            self.others.answer = answer
            await self.assertFailure(self.resolver.lookupAddress(OTHER), error)

    async def test_reload(self) -> None:
        """The service of the moment answers, on connections that are open as well."""
        self.others.answer = own_answer(APPLIANCE[:1] * 900, 60)
        await self.resolver.lookupAddress(OTHER)
        self.service = service(self.others, authoritative=True)
        message = await self.resolver.queryTCP([dns.Query(OTHER)])
        self.assertEqual(message.rCode, dns.EREFUSED)

    async def test_noise(self) -> None:
        """Whatever comes before a query, it is answered."""

        def talk() -> bytes:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.settimeout(10)
                sender.connect((self.address, self.port))
                for message in (b"", b"\0", b"\xff" * 4000, query().encoded()[:5]):
                    sender.send(message)
                for size in range(12, 30):
                    sender.send(b"\0\1\1\0\0\1" + b"\xc0" * size)
                    sender.recv(512)
                sender.send(query().encoded())
                return sender.recv(512)

        answer = read_answer(await deferToThread(talk), query())
        self.assertEqual(answer.addresses(Type.A), list(APPLIANCE[:2]))

    async def test_no_way_back(self) -> None:
        """An answer that cannot be sent is as good as lost."""
        datagrams = Datagrams(lambda: self.service)
        port = reactor.listenUDP(0, datagrams, self.address)
        self.addCleanup(port.stopListening)
        datagrams.datagramReceived(query().encoded(), ("127.0.0.1", 0))

    async def test_stopped(self) -> None:
        """An answer that is ready when the port is closed goes nowhere."""
        waiting = self.others.waiting = []
        datagrams = Datagrams(lambda: self.service)
        port = reactor.listenUDP(0, datagrams, self.address)
        datagrams.datagramReceived(query(OTHER).encoded(), ("127.0.0.1", self.port))
        await port.stopListening()
        waiting[0].callback(ELSEWHERE)

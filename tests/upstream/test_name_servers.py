"""Tests of regproxy.upstream.name_servers."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regproxy.dns.cache import AnswerCache
from regproxy.dns.message import EDNS, Answer, Query, Question, RCode, Type, read_answer
from regproxy.policy.resolution import ServerAddress
from regproxy.upstream.name_servers import NameServers, NetworkExchange, NoAnswer
from tests.dns.records import answer_to
from tests.support.name_server import NameServer, addresses, listen_udp, truncated
from tests.support.process import free_port

HOST = "registry.example.test"
QUERY = Query(Question.about(HOST, Type.A))
FIRST, SECOND, THIRD = (ServerAddress(f"10.0.0.{n}") for n in (1, 2, 3))
GOOD = read_answer(addresses(QUERY), QUERY)
NONE = Answer(RCode.NXDOMAIN)
PATIENCE = 5.0


class NameServersTests(SynchronousTestCase):
    """NameServers, without a network."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[ServerAddress, float]] = []
        self.answers: dict[ServerAddress, Answer | None] = {}
        self.servers = self.make(FIRST, SECOND)

    def make(self, *servers: ServerAddress) -> NameServers:
        return NameServers(self.exchange, servers, AnswerCache(self.clock.seconds), self.clock)

    async def exchange(self, server: ServerAddress, query: Query, patience: float) -> Answer:
        """Answer, or let the time go by that the server had."""
        self.asked.append((server, patience))
        answer = self.answers.get(server)
        if answer is None:
            await deferLater(self.clock, patience)
            raise NoAnswer("silence")
        return answer

    def ask(self, query: Query = QUERY) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self.servers.ask(query))

    def questions(self) -> list[ServerAddress]:
        """Who was asked since the last call."""
        asked = [server for server, _ in self.asked]
        self.asked.clear()
        return asked

    def test_first(self) -> None:
        """The first server is asked as long as it answers; that there is no name is an answer."""
        for answer in (GOOD, NONE, Answer(RCode.FORMERR)):
            self.servers = self.make(FIRST, SECOND)
            self.answers = {FIRST: answer}
            self.assertEqual(self.successResultOf(self.ask()), answer)
            self.assertEqual(self.questions(), [FIRST])

    def test_kept(self) -> None:
        """An answer is not asked for again until its time is up."""
        self.answers = {FIRST: GOOD}
        self.successResultOf(self.ask())
        self.clock.advance(20)
        self.assertEqual(self.successResultOf(self.ask()), GOOD.aged(20))
        self.successResultOf(self.ask(evolve(QUERY, checking_disabled=True)))
        self.assertEqual(len(self.questions()), 2)
        self.clock.advance(40)
        self.assertEqual(self.successResultOf(self.ask()), GOOD)
        self.assertEqual(len(self.questions()), 1)

    def test_shared(self) -> None:
        """The same question at the same time goes out once."""
        self.answers = {SECOND: GOOD}
        asking = [self.ask(evolve(QUERY, id=id)) for id in range(10)]
        self.assertEqual(self.questions(), [FIRST])
        self.clock.advance(1)
        self.assertEqual(self.questions(), [SECOND])
        self.assertEqual([self.successResultOf(each) for each in asking], [GOOD] * 10)

    def test_fail_over(self) -> None:
        """After a second it is another one's turn; for half a minute the silent one is the last."""
        self.answers = {SECOND: GOOD}
        with capturedLogs() as events:
            asking = self.ask()
            self.clock.advance(1)
            self.assertEqual(self.successResultOf(asking), GOOD)
            self.assertEqual(self.questions(), [FIRST, SECOND])
            self.answers[SECOND] = NONE
            for _ in range(3):
                self.servers._cache.put(QUERY.key, NONE)
                self.assertEqual(self.successResultOf(self.ask()), NONE)
                self.assertEqual(self.questions(), [SECOND])
                self.clock.advance(9)
        # Once, and not for every question.
        (event,) = events
        self.assertEqual((event["server"], event["reason"]), ("10.0.0.1", "silence"))
        self.clock.advance(3)
        self.answers[FIRST] = GOOD
        self.assertEqual(self.successResultOf(self.ask()), GOOD)
        self.assertEqual(self.questions(), [FIRST])

    def test_unable(self) -> None:
        """A server that cannot tell is asked once, and believed if no other one can."""
        for rcode in (RCode.SERVFAIL, RCode.REFUSED, RCode.NOTIMP):
            unable = Answer(rcode)
            self.answers = {FIRST: unable, SECOND: GOOD}
            self.servers = self.make(FIRST, SECOND)
            self.assertEqual(self.successResultOf(self.ask()), GOOD)
            self.assertEqual(self.questions(), [FIRST, SECOND])
            self.answers[SECOND] = unable
            self.servers = self.make(FIRST, SECOND)
            self.assertEqual(self.successResultOf(self.ask()), unable)
            self.assertEqual(self.questions(), [FIRST, SECOND])
            # It has answered, so it stays the first; what it said is not kept.
            self.answers[FIRST] = GOOD
            self.assertEqual(self.successResultOf(self.ask()), GOOD)
            self.assertEqual(self.questions(), [FIRST])

    def test_all_silent(self) -> None:
        """Each is asked twice, with more patience; a lost packet costs a second."""
        asking = self.ask()
        for _ in range(6):
            self.clock.advance(1)
        self.failureResultOf(asking, NoAnswer)
        self.assertEqual(self.asked[:3], [(FIRST, 1.0), (SECOND, 1.0), (FIRST, 2.0)])
        self.servers = self.make(FIRST)
        asking = self.ask()
        self.clock.advance(1)
        self.answers[FIRST] = GOOD
        self.clock.advance(2)
        self.failureResultOf(asking, NoAnswer)
        self.assertEqual(self.successResultOf(self.ask()), GOOD)

    def test_time(self) -> None:
        """A client gives up after five seconds: nothing goes on after that."""
        self.servers = self.make(FIRST, SECOND, THIRD)
        asking = self.ask()
        for _ in range(4):
            self.clock.advance(1)
        self.assertNoResult(asking)
        self.clock.advance(1)
        failure = self.failureResultOf(asking, NoAnswer)
        self.assertEqual(str(failure.value), "none within 5 seconds")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # The next one begins anew.
        self.answers[FIRST] = GOOD
        self.assertEqual(self.successResultOf(self.ask()), GOOD)

    def test_nobody(self) -> None:
        self.servers = self.make()
        self.failureResultOf(self.ask(), NoAnswer)


class NetworkExchangeTests(TestCase):
    """NetworkExchange, on real sockets."""

    def setUp(self) -> None:
        self.server = NameServer(self)
        self.exchange = NetworkExchange(reactor)

    async def ask(
        self,
        query: Query = QUERY,
        *,
        server: ServerAddress | None = None,
        patience: float = PATIENCE,
    ) -> Answer:
        return await self.exchange(server or self.server.address, query, patience)

    async def fails(self, pattern: str, **arguments: Any) -> None:
        try:
            answer = await self.ask(**arguments)
        except NoAnswer as error:
            self.assertRegex(str(error), pattern)
        else:
            self.fail(f"answered: {answer}")

    async def test_answer(self) -> None:
        answer = await self.ask()
        self.assertEqual(answer.addresses(Type.A), [ip_address("192.0.2.7")])
        self.assertEqual(self.server.streamed, [])

    async def test_ipv6(self) -> None:
        self.server = NameServer(self, "::1")
        self.assertEqual(await self.ask(), GOOD)
        self.server.over_udp = lambda query: [truncated(query)]
        self.assertEqual(await self.ask(), GOOD)

    async def test_what_is_asked(self) -> None:
        """The question in the client's spelling, and no more of what the client said."""
        question = Question.about("ReGiStRy.Example.Test", Type.AAAA)
        asked = Query(question, 4711, False, True, True, EDNS(4096, 0, dnssec_ok=True))
        self.server.over_udp = lambda query: [answer_to(query, [])]
        for query, edns in (
            (asked, EDNS(1232, 0, dnssec_ok=True)),
            (evolve(asked, edns=EDNS(512)), EDNS(1232)),
            (evolve(asked, edns=None), None),
        ):
            await self.ask(query)
            received = self.server.queries.pop()
            self.assertEqual(received, Query(question, received.id, True, True, True, edns))

    async def test_unpredictable(self) -> None:
        """No two queries have the same id and the same port, nor are these in sequence."""
        for _ in range(50):
            await self.ask()
        ids = [query.id for query in self.server.queries]
        ports = [port for _, port in self.server.sources]
        for values in (ids, ports):
            # By chance a few may be: of 50 in 28,000 hardly ever more than one.
            self.assertGreater(len(set(values)), 45)
            steps = {b - a for a, b in pairwise(values)}
            self.assertGreater(len(steps), 40)

    async def test_guesses(self) -> None:
        """What is not the answer does not end the waiting for it."""
        other = Query(Question.about("other.example.test", Type.A))

        def answers(query: Query) -> list[bytes]:
            return [
                b"",
                b"\xff" * 600,
                addresses(evolve(query, id=query.id ^ 1), "192.0.2.66"),
                addresses(evolve(other, id=query.id), "192.0.2.66"),
                addresses(query, "192.0.2.66")[:-1],
                query.encoded(),
                addresses(query),
                addresses(query, "192.0.2.66"),
            ]

        self.server.over_udp = answers
        self.assertEqual(await self.ask(), GOOD)

    async def test_answer_from_elsewhere(self) -> None:
        """Who knows id and port, but is not the server, is not heard."""
        spoofer = DatagramProtocol()
        listen_udp(self, spoofer)

        def answers(query: Query) -> list[bytes]:
            assert spoofer.transport is not None
            spoofer.transport.write(addresses(query, "192.0.2.66"), self.server.sources[-1])
            return [addresses(query)]

        self.server.over_udp = answers
        self.assertEqual(await self.ask(), GOOD)

    async def test_nobody_listens(self) -> None:
        """The server's machine says so at once."""
        await self.fails("refused", server=ServerAddress("127.0.0.1", free_port()), patience=60.0)

    async def test_no_way(self) -> None:
        await self.fails("Permission denied", server=ServerAddress("255.255.255.255"))

    async def test_silence(self) -> None:
        self.server.over_udp = lambda query: []
        await self.fails("nothing within 0.05 seconds", patience=0.05)

    async def test_large(self) -> None:
        """Of what a server sends nothing is cut, whatever size was asked for."""
        texts = [f"10.1.{n >> 8}.{n & 255}" for n in range(3000)]
        self.server.over_udp = lambda query: [addresses(query, *texts)]
        self.assertEqual(len((await self.ask()).addresses(Type.A)), 3000)

    async def test_truncated(self) -> None:
        """What does not fit comes over TCP."""
        texts = [f"10.1.{n >> 8}.{n & 255}" for n in range(3000)]
        self.server.over_udp = lambda query: [truncated(query)]
        self.server.over_tcp = lambda query: [addresses(query, *texts)]
        answer = await self.ask(evolve(QUERY, edns=EDNS(dnssec_ok=True)))
        self.assertEqual(answer.addresses(Type.A), [ip_address(text) for text in texts])
        self.assertEqual(self.server.streamed, self.server.queries)

    async def test_tcp_fails(self) -> None:
        """Without an answer over TCP there is none."""
        self.server.over_udp = lambda query: [truncated(query)]
        cases: dict[str, Callable[[Query], list[bytes]]] = {
            "truncated over TCP": lambda query: [truncated(query)],
            "closed without an answer": lambda query: [],
            "no answer to this query": lambda query: [addresses(evolve(query, id=query.id ^ 1))],
            "breaks off": lambda query: [addresses(query)[:-1]],
            "no message": lambda query: [b""],
        }
        for pattern, script in cases.items():
            self.server.over_tcp = script
            await self.fails(pattern)

    async def test_nobody_listens_over_tcp(self) -> None:
        port = listen_udp(self, _Truncating())
        await self.fails("refused", server=ServerAddress("127.0.0.1", port))

    async def test_silence_over_tcp(self) -> None:
        """The connection is given up with the question."""
        self.server.over_udp = lambda query: [truncated(query)]
        self.server.over_tcp = lambda query: []
        self.server.hangs_up = False
        await self.fails("nothing within 0.5 seconds", patience=0.5)
        await self.server.left


class _Truncating(DatagramProtocol):
    noisy = False

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        message = dns.Message()
        message.fromStr(datagram)
        message.answer = message.trunc = 1
        assert self.transport is not None
        self.transport.write(message.toStr(), addr)

"""Tests of regproxy.upstream.resolver."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.dns.cache import AnswerCache
from regproxy.dns.message import Answer, Query, RCode, Type, own_answer
from regproxy.policy.resolution import ServerAddress
from regproxy.upstream.dial import resolve
from regproxy.upstream.name_servers import NameServers, NoAnswer
from regproxy.upstream.resolver import NameServerResolver
from tests.support.addresses import addresses

HOST = "registry.example.test"
V4, V6 = ["192.0.2.7", "192.0.2.8"], ["2001:db8::7"]


@implementer(IResolutionReceiver)
class Receiver:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        verifyObject(IHostResolution, resolutionInProgress)
        self.told.append(resolutionInProgress.name)

    def addressResolved(self, address: IAddress) -> None:
        self.told.append(address)

    def resolutionComplete(self) -> None:
        self.told.append("complete")


class NameServerResolverTests(SynchronousTestCase):
    """NameServerResolver"""

    def setUp(self) -> None:
        self.asked: list[Query] = []
        self.answers: dict[int, Answer | None] = {
            Type.A: own_answer(addresses(*V4), 60),
            Type.AAAA: own_answer(addresses(*V6), 60),
        }
        clock = Clock()
        servers = NameServers(
            self.exchange, [ServerAddress("10.0.0.2")], AnswerCache(clock.seconds), clock
        )
        self.resolver = NameServerResolver(servers)

    async def exchange(self, server: ServerAddress, query: Query, patience: float) -> Answer:
        self.asked.append(query)
        answer = self.answers[query.question.type]
        if answer is None:
            raise NoAnswer("silence")
        return answer

    def resolve(self, name: str) -> list[IAddress]:
        return self.successResultOf(Deferred.fromCoroutine(resolve(self.resolver, name, 5000)))

    def test_addresses(self) -> None:
        """Both kinds, IPv4 first, with the port."""
        self.assertEqual(
            self.resolve(HOST),
            [
                IPv4Address("TCP", "192.0.2.7", 5000),
                IPv4Address("TCP", "192.0.2.8", 5000),
                IPv6Address("TCP", "2001:db8::7", 5000),
            ],
        )
        self.assertEqual({query.question.host for query in self.asked}, {HOST})
        self.assertTrue(all(query.recursion_desired for query in self.asked))

    def test_one_kind(self) -> None:
        """A name without IPv6 addresses, or whose look-up of them fails, has the others."""
        for answer in (own_answer([], 60), Answer(RCode.SERVFAIL), None):
            self.answers[Type.AAAA] = answer
            self.assertEqual(len(self.resolve(HOST)), 2)

    def test_none(self) -> None:
        for answer in (Answer(RCode.NXDOMAIN), Answer(RCode.REFUSED), None):
            self.answers = {Type.A: answer, Type.AAAA: answer}
            self.assertEqual(self.resolve(HOST), [])

    def test_failure_is_logged(self) -> None:
        self.answers[Type.A] = None
        with capturedLogs() as events:
            self.resolve(HOST)
        (event,) = (event for event in events if "name" in event)
        self.assertEqual((event["name"], event["reason"]), (HOST, "none from any server"))

    def test_no_name(self) -> None:
        """Nothing is asked about what is no host name."""
        self.assertEqual(self.resolve("a..b"), [])
        self.assertEqual(self.asked, [])

    def test_interface(self) -> None:
        """What IHostnameResolver promises."""
        receiver = Receiver()
        resolution = self.resolver.resolveHostName(
            receiver, HOST, 7, [IPv6Address], transportSemantics="UDP"
        )
        self.assertEqual(receiver.told, [HOST, IPv6Address("UDP", "2001:db8::7", 7), "complete"])
        resolution.cancel()

    def test_literal(self) -> None:
        """An address is its own."""
        for text, family in {"192.0.2.9": IPv4Address, "2001:db8::9": IPv6Address}.items():
            receiver = Receiver()
            self.resolver.resolveHostName(receiver, text, 7)
            self.assertEqual(receiver.told, [text, family("TCP", text, 7), "complete"])
        self.assertEqual(self.asked, [])

"""Tests of regproxy.dns.cache."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from regproxy.dns.cache import AnswerCache
from regproxy.dns.message import Answer, Query, Question, RCode, Type, read_answer
from tests.dns.records import answer_to

QUERY = Query(Question.about("a.test", Type.A))
DAY = 86400


def answer(ttl: int) -> Answer:
    """One with an address, that may be kept for *ttl* seconds."""
    record = dns.RRHeader("a.test", dns.A, ttl=ttl, payload=dns.Record_A("10.0.0.7"))
    return read_answer(answer_to(QUERY, [record]), QUERY)


def ttl_of(answer: Answer | None) -> int:
    """The TTL of its first record."""
    assert answer is not None
    return int.from_bytes(answer.records[answer.ttls[0] :][:4])


class AnswerCacheTests(SynchronousTestCase):
    """AnswerCache"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = AnswerCache(self.clock.seconds)

    def test_lifetime(self) -> None:
        """An answer is kept until its time is up, and says how much is left."""
        self.cache.put("a", answer(60))
        self.assertEqual(ttl_of(self.cache.get("a")), 60)
        self.clock.advance(59.5)
        self.assertEqual(ttl_of(self.cache.get("a")), 1)
        self.clock.advance(0.5)
        self.assertIsNone(self.cache.get("a"))
        self.assertEqual(len(self.cache), 0)

    def test_unknown(self) -> None:
        self.cache.put("a", answer(60))
        self.assertIsNone(self.cache.get("b"))

    def test_not_to_be_kept(self) -> None:
        """Nor is what was known before: the world has changed."""
        self.cache.put("a", answer(60))
        self.cache.put("a", Answer(RCode.SERVFAIL))
        self.assertIsNone(self.cache.get("a"))
        self.assertEqual(len(self.cache), 0)

    def test_replaced(self) -> None:
        self.cache.put("a", answer(60))
        self.clock.advance(59)
        self.cache.put("a", answer(30))
        self.assertEqual(ttl_of(self.cache.get("a")), 30)

    def test_longest(self) -> None:
        """Nothing is kept for more than a day."""
        self.cache.put("a", answer(7 * DAY))
        self.clock.advance(DAY - 1)
        self.assertEqual(ttl_of(self.cache.get("a")), 6 * DAY + 1)
        self.clock.advance(1)
        self.assertIsNone(self.cache.get("a"))

    def test_room(self) -> None:
        """What was used longest ago goes."""
        self.cache = AnswerCache(self.clock.seconds, size=2500)
        for key in "abc":
            self.cache.put(key, answer(60))
        self.cache.get("a")
        self.cache.put("d", answer(60))
        self.assertEqual([key for key in "abcd" if self.cache.get(key)], ["a", "c", "d"])

    def test_larger_than_the_room(self) -> None:
        self.cache = AnswerCache(self.clock.seconds, size=100)
        self.cache.put("a", answer(60))
        self.assertEqual(len(self.cache), 0)

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 2))))
    def test_bounded(self, steps: list[tuple[int, int, int]]) -> None:
        """However it is used, the room is that of what is kept."""
        cache = AnswerCache(self.clock.seconds, size=3000)
        for key, ttl, seconds in steps:
            cache.put(key, answer(ttl))
            self.clock.advance(seconds)
            cache.get((key + 1) % 10)
            self.assertLessEqual(len(cache), 4)
        for key in range(10):
            cache.put(key, Answer(RCode.SERVFAIL))
        self.assertEqual(cache._room, 3000)

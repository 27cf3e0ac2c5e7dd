"""Tests for :mod:`regproxy.listeners.opening`, with openings of one line."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from regproxy.listeners.opening import HELD_LIMIT, LINGER, Opening
from regproxy.listeners.tunnel import IStream
from regproxy.oci.errors import BadRequest, Denied, RegistryError
from tests.support.keepers import Keeper, Keepers
from tests.support.streams import MemoryStream


class Line(Opening):
    """Goes on after a line feed; an empty line is refused."""

    def __init__(self, clock: Clock, inner: IProtocol | None) -> None:
        super().__init__(clock, 30.0)
        self.inner = inner

    def read(self, data: bytes) -> None:
        line, end, rest = bytes(self.held).partition(b"\n")
        if not end:
            return
        if not line:
            self.refuse(BadRequest("empty"))
            return
        self.held = bytearray(rest)
        self.hand_over(self.inner)

    def overdue(self) -> None:
        self.refuse(BadRequest("late"))

    def refusal(self, error: RegistryError) -> bytes:
        return error.message.encode()


@implementer(IHalfCloseableProtocol)
class Finisher(Keeper):
    """Wants to hear of a FIN."""

    finished = False

    def readConnectionLost(self) -> None:
        self.finished = True

    def writeConnectionLost(self) -> None:
        """Nothing depends on that."""


class OpeningTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def open(self, inner: IProtocol | None, *pieces: bytes) -> MemoryStream:
        """A client that has sent *pieces*."""
        stream = MemoryStream(Line(self.clock, inner))
        for piece in pieces:
            stream.send(piece)
        return stream

    def assertOver(self, stream: MemoryStream, answer: bytes) -> None:
        """The client got *answer* and the end of the connection; nothing is left."""
        self.assertEqual(stream.take(), answer)
        self.assertTrue(stream.write_closed)
        stream.finish()
        self.assertTrue(stream.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HandOverTests(OpeningTestCase):
    def test_rest(self) -> None:
        """What is held, then what comes."""
        inner = Keeper()
        stream = self.open(inner, b"lin", b"e\nre")
        self.assertIs(inner.transport, stream)
        stream.send(b"st")
        self.assertEqual(inner.data, b"rest")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_as_another_transport(self) -> None:
        inner, other = Keeper(), MemoryStream(Keeper())
        opening = Line(self.clock, None)
        MemoryStream(opening)
        opening.hand_over(inner, cast(IStream, other))
        self.assertIs(inner.transport, other)

    def test_nobody(self) -> None:
        self.assertTrue(self.open(None, b"line\n").aborted)

    def test_end(self) -> None:
        """It is passed on, with its reason."""
        inner = Keeper()
        self.open(inner, b"line\n").lose(ConnectionLost())
        assert inner.lost is not None
        inner.lost.trap(ConnectionLost)

    def test_enter(self) -> None:
        """The protocol is built for the client; the answer goes first."""
        opening = Line(self.clock, None)
        stream, keepers = MemoryStream(opening), Keepers()
        opening.enter(lambda: keepers, b"welcome")
        self.assertEqual(stream.take(), b"welcome")
        self.assertEqual(keepers.addresses, [stream.getPeer()])

    def test_closed_door(self) -> None:
        """The reason is the answer instead."""

        def entrance() -> Keepers:
            raise Denied("closed")

        opening = Line(self.clock, None)
        stream = MemoryStream(opening)
        opening.enter(entrance, b"welcome")
        self.assertOver(stream, b"closed")


class HalfCloseTests(OpeningTestCase):
    def test_before(self) -> None:
        """A client that finishes before anybody goes on has left."""
        stream = self.open(Finisher(), b"lin")
        stream.finish()
        self.assertTrue(stream.lost)

    def test_for_those_who_want_it(self) -> None:
        inner = Finisher()
        stream = self.open(inner, b"line\n")
        stream.finish()
        self.assertTrue(inner.finished)
        self.assertFalse(stream.lost)

    def test_for_the_others_it_is_the_end(self) -> None:
        inner = Keeper()
        stream = self.open(inner, b"line\n")
        stream.finish()
        assert inner.lost is not None
        inner.lost.trap(ConnectionDone)

    def test_one_opening_after_the_other(self) -> None:
        """As behind a load balancer."""
        inner = Finisher()
        stream = self.open(Line(self.clock, inner), b"one\ntwo\nrest")
        self.assertEqual(inner.data, b"rest")
        stream.finish()
        self.assertTrue(inner.finished)
        stream.lose(ConnectionLost())
        self.assertIsNotNone(inner.lost)


class RefusalTests(OpeningTestCase):
    def test_answer(self) -> None:
        self.assertOver(self.open(None, b"\n"), b"empty")

    def test_deadline(self) -> None:
        """It is absolute."""
        stream = self.open(None)
        for _ in range(29):
            stream.send(b"x")
            self.clock.advance(1)
        self.assertEqual(stream.take(), b"")
        self.clock.advance(1)
        self.assertOver(stream, b"late")

    def test_lingering(self) -> None:
        """The client has time to read the answer, but not for ever."""
        stream = self.open(None, b"\n", b"more")
        stream.take()
        self.clock.advance(LINGER - 0.1)
        self.assertFalse(stream.aborted)
        self.clock.advance(0.1)
        self.assertTrue(stream.aborted)

    def test_client_leaves(self) -> None:
        self.open(None, b"lin").finish()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DialTests(OpeningTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tunnel: Deferred[IProtocol] = Deferred()
        self.opening = Line(self.clock, None)
        self.stream = MemoryStream(self.opening)
        self.stream.send(b"first")

    async def wait(self) -> IProtocol:
        return await self.tunnel

    def test_open(self) -> None:
        """What was held and what came meanwhile are passed on, after the answer."""
        self.opening.dial(self.wait(), b"welcome")
        self.stream.send(b"second")
        self.assertEqual(self.stream.take(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        inner = Keeper()
        self.tunnel.callback(inner)
        self.assertEqual(self.stream.take(), b"welcome")
        self.assertEqual(inner.data, b"firstsecond")

    def test_held_bytes_are_bounded(self) -> None:
        self.opening.dial(self.wait())
        self.stream.send(bytes(HELD_LIMIT - 5))
        self.assertTrue(self.stream.reading)
        self.stream.send(b"x")
        self.assertFalse(self.stream.reading)
        self.tunnel.callback(Keeper())
        self.assertTrue(self.stream.reading)

    def test_refused(self) -> None:
        self.opening.dial(self.wait(), b"welcome")
        self.tunnel.errback(Denied("private address"))
        self.assertOver(self.stream, b"private address")

    def test_client_leaves(self) -> None:
        cancelled: list[object] = []
        self.tunnel = Deferred(cancelled.append)
        self.opening.dial(self.wait())
        self.stream.finish()
        self.assertEqual(cancelled, [self.tunnel])

    def test_broken(self) -> None:
        """An error that nobody expects is logged and ends the connection."""
        self.opening.dial(self.wait())
        self.tunnel.errback(ZeroDivisionError())
        self.assertTrue(self.stream.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

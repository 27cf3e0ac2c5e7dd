"""Tests for :mod:`regproxy.upstream.handshake`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, NoProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from regproxy.upstream.errors import (
    ParentProxyRefused,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from regproxy.upstream.handshake import (
    ANSWER_LIMIT,
    AnswerInvalid,
    Handshake,
    HandshakeEndpoint,
    Step,
)
from tests.support.streams import MemoryEndpoint, MemoryStream


def line(data: bytes) -> tuple[bytes, bytes] | None:
    """Answers end with a line feed."""
    text, end, rest = data.partition(b"\n")
    if text.startswith(b"?"):
        raise AnswerInvalid("says something strange")
    return (text, rest) if end else None


def asking(*questions: bytes) -> Handshake:
    """Each question wants "yes"."""
    for question in questions:
        answer: bytes = yield Step(question, line)
        if answer != b"yes":
            raise ParentProxyRefused("the proxy said no")


class Recording(Protocol):
    """What was wanted: remembers what comes up."""

    def __init__(self) -> None:
        self.received = b""
        self.events: list[str] = []

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append(f"lost: {type(reason.value).__name__}")


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recording):
    """One that goes on after a FIN."""

    def readConnectionLost(self) -> None:
        self.events.append("read closed")

    def writeConnectionLost(self) -> None:
        self.events.append("write closed")


class HandshakeEndpointTests(SynchronousTestCase):
    """HandshakeEndpoint"""

    kind: type[Recording] = Recording

    def setUp(self) -> None:
        self.clock = Clock()
        self.parent = MemoryEndpoint()

    def connect(
        self, *questions: bytes, factory: IProtocolFactory | None = None
    ) -> Deferred[IProtocol]:
        endpoint = HandshakeEndpoint(
            self.clock, self.parent, lambda: asking(*questions), "the proxy", 10.0
        )
        return endpoint.connect(factory or Factory.forProtocol(self.kind))

    def established(self) -> tuple[Recording, MemoryStream]:
        """What was wanted, and the connection as the parent sees it."""
        connecting = self.connect(b"one")
        stream = self.parent.accept()
        stream.send(b"yes\n")
        inner = self.successResultOf(connecting)
        assert isinstance(inner, Recording)
        self.assertEqual(stream.take(), b"onehello")
        return inner, stream

    def test_steps(self) -> None:
        """A question is asked when the one before has its answer, however that comes."""
        connecting = self.connect(b"one", b"two")
        stream = self.parent.accept()
        self.assertEqual(stream.take(), b"one")
        for piece in b"y", b"e", b"s":
            stream.send(piece)
        self.assertEqual(stream.take(), b"")
        stream.send(b"\n")
        self.assertEqual(stream.take(), b"two")
        self.assertNoResult(connecting)
        stream.send(b"yes\n")
        self.assertIsInstance(self.successResultOf(connecting), Recording)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_together(self) -> None:
        """Also with what the other end said, which is there when the Deferred has fired."""
        connecting = self.connect(b"one", b"two")
        early: list[bytes] = []

        def connected(inner: IProtocol) -> IProtocol:
            assert isinstance(inner, Recording)
            early.append(inner.received)
            return inner

        connecting.addCallback(connected)
        self.parent.accept().send(b"yes\nyes\nfrom the other end")
        inner = self.successResultOf(connecting)
        assert isinstance(inner, Recording)
        self.assertEqual((early, inner.received), ([b""], b"from the other end"))

    def test_nothing_to_ask(self) -> None:
        connecting = self.connect()
        self.parent.accept()
        self.assertIsInstance(self.successResultOf(connecting), Recording)

    def test_bytes_pass(self) -> None:
        """Up through here, down on the transport itself; the end as it is."""
        inner, stream = self.established()
        self.assertIs(inner.transport, stream)
        stream.send(b"more")
        self.assertEqual(inner.received, b"more")
        stream.lose(ConnectionLost())
        self.assertEqual(inner.events, ["lost: ConnectionLost"])

    def test_fin(self) -> None:
        """It is the end, for a protocol that knows no half of a connection."""
        inner, stream = self.established()
        stream.finish()
        self.assertEqual(inner.events, ["lost: ConnectionDone"])
        self.assertTrue(stream.aborted)
        stream.take()
        self.assertEqual(inner.events, ["lost: ConnectionDone"])

    def test_half_close(self) -> None:
        """Others learn of it, and go on."""
        self.kind = HalfCloseable
        inner, stream = self.established()
        stream.finish()
        self.assertEqual(inner.events, ["read closed"])
        self.assertFalse(stream.aborted)
        IHalfCloseableProtocol(stream.protocol).writeConnectionLost()
        stream.lose(ConnectionDone())
        self.assertEqual(inner.events, ["read closed", "write closed", "lost: ConnectionDone"])

    def test_refused(self) -> None:
        """The connection is broken, and what still comes is dropped."""
        connecting = self.connect(b"one", b"two")
        stream = self.parent.accept()
        stream.send(b"no\nyes\n")
        self.failureResultOf(connecting, ParentProxyRefused)
        self.assertTrue(stream.aborted)
        stream.send(b"more\n")
        self.assertEqual(stream.take(), b"one")

    def test_invalid(self) -> None:
        connecting = self.connect(b"one")
        stream = self.parent.accept()
        stream.send(b"?")
        failure = self.failureResultOf(connecting, UpstreamBroken)
        self.assertEqual(failure.value.message, "the proxy says something strange")
        self.assertTrue(stream.aborted)

    def test_endless_answer(self) -> None:
        connecting = self.connect(b"one")
        stream = self.parent.accept()
        stream.send(b"x" * ANSWER_LIMIT)
        self.assertNoResult(connecting)
        stream.send(b"x")
        failure = self.failureResultOf(connecting, UpstreamBroken)
        self.assertEqual(failure.value.message, "the answer of the proxy is too long")
        self.assertTrue(stream.aborted)

    def test_closed(self) -> None:
        connecting = self.connect(b"one")
        self.parent.accept().lose(ConnectionDone())
        failure = self.failureResultOf(connecting, UpstreamBroken)
        self.assertEqual(
            failure.value.message, "the proxy closed the connection before it answered"
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fin_instead_of_an_answer(self) -> None:
        connecting = self.connect(b"one")
        stream = self.parent.accept()
        stream.finish()
        self.failureResultOf(connecting, UpstreamBroken)
        self.assertTrue(stream.aborted)

    def test_silent(self) -> None:
        """The deadline is absolute, and begins with the connection."""
        connecting = self.connect(b"one", b"two")
        self.clock.advance(100)
        stream = self.parent.accept()
        self.clock.advance(9)
        stream.send(b"yes\n")
        self.assertNoResult(connecting)
        self.clock.advance(1)
        failure = self.failureResultOf(connecting, UpstreamTimeout)
        self.assertEqual(failure.value.message, "the proxy did not answer within 10 seconds")
        self.assertTrue(stream.aborted)

    def test_unreachable(self) -> None:
        connecting = self.connect(b"one")
        self.parent.fail(UpstreamUnreachable("cannot connect to it"))
        self.failureResultOf(connecting, UpstreamUnreachable)

    def test_cancelled(self) -> None:
        """Before and after the connection."""
        connecting = self.connect(b"one")
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(self.parent.cancelled)
        self.parent = MemoryEndpoint()
        connecting = self.connect(b"one")
        stream = self.parent.accept()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(stream.aborted)
        stream.take()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_wanted_any_more(self) -> None:
        """A factory may refuse the connection."""

        class Refusing(Factory[Protocol]):
            def buildProtocol(self, addr: object) -> None:
                return None

        connecting = self.connect(factory=Refusing())
        stream = self.parent.accept()
        self.failureResultOf(connecting, NoProtocol)
        self.assertTrue(stream.aborted)

    def test_begun_anew(self) -> None:
        """Each connection has a handshake of its own."""
        for _ in range(2):
            self.established()
            self.parent = MemoryEndpoint()

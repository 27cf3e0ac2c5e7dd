"""Tests for :mod:`regproxy.registry.transfer`."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest
from regproxy.registry.transfer import receive, relay
from regproxy.store.disk import BlobDirectory
from regproxy.store.errors import SizeMismatch
from regproxy.store.fill import HIGH, Fill
from regproxy.store.index import Index
from regproxy.store.store import Store
from regproxy.upstream.errors import BodyIncomplete, UpstreamTimeout
from tests.support.upstream import FakeResponse, Reply
from tests.support.workers import Later, Now

IDLE = 60.0
CONTENT = bytes(1000)


class ReceiveTests(SynchronousTestCase):
    """receive"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.root = Path(self.mktemp())
        directory = BlobDirectory(self.root)
        directory.prepare()
        index = Index(self.root / "index.sqlite3", Now())
        index.open()
        self.addCleanup(index.close)
        self.workers = Later()
        self.store = Store(directory, index, self.workers, self.clock.seconds)
        self.response = FakeResponse(b"GET", Reply(body=None))

    def begin(self, content: bytes, size: int | None = None) -> Fill:
        """A transfer of *content*."""
        beginning = ensureDeferred(self.store.begin(Digest.of(content), size))
        self.workers.all()
        fill: Fill = self.successResultOf(beginning)
        receive(self.response, fill, self.clock, IDLE)
        return fill

    def check_over(self) -> None:
        """Nothing is left: no file, no timer, no reader of the response."""
        self.workers.all()
        self.assertEqual(list((self.root / "fills").iterdir()), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.response.ended)

    def test_whole(self) -> None:
        fill = self.begin(CONTENT, len(CONTENT))
        ended = fill.when_ended()
        for start in range(0, 1000, 300):
            self.response.send(CONTENT[start : start + 300])
        self.response.end()
        self.check_over()
        self.successResultOf(ended)
        self.assertTrue(self.store.has(Digest.of(CONTENT)))

    def test_breaks_off(self) -> None:
        ended = self.begin(CONTENT).when_ended()
        self.response.send(CONTENT[:10])
        self.response.break_off()
        self.workers.all()
        self.failureResultOf(ended, BodyIncomplete)
        self.check_over()

    def test_stalls(self) -> None:
        ended = self.begin(CONTENT).when_ended()
        self.response.send(CONTENT[:10])
        self.clock.advance(IDLE)
        self.workers.all()
        self.failureResultOf(ended, UpstreamTimeout)
        self.assertTrue(self.response.aborted)
        self.check_over()

    def test_too_long(self) -> None:
        """What ends the fill ends the transfer."""
        ended = self.begin(CONTENT, 5).when_ended()
        self.response.send(CONTENT)
        self.failureResultOf(ended, SizeMismatch)
        self.assertTrue(self.response.aborted)
        self.check_over()

    def test_slow_disk(self) -> None:
        """The upstream waits for the disk, and its time does not run meanwhile."""
        content = bytes(HIGH + 1)
        fill = self.begin(content)
        ended = fill.when_ended()
        self.response.send(content)
        self.assertTrue(self.response.paused)
        self.clock.advance(2 * IDLE)
        self.workers.all()
        self.assertFalse(self.response.paused)
        self.response.end()
        self.check_over()
        self.successResultOf(ended)


class Client:
    """Who a body is relayed to."""

    def __init__(self) -> None:
        self.body = b""
        self.producer: IPushProducer | None = None

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.body += data


class RelayTests(SynchronousTestCase):
    """relay"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.client = Client()

    def relay(self, response: FakeResponse) -> Deferred[None]:
        return ensureDeferred(relay(response, self.client, self.clock, IDLE))

    def check_over(self) -> None:
        self.assertIsNone(self.client.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """A body that has come whole before anybody asked for it."""
        self.successResultOf(self.relay(FakeResponse(b"GET", Reply(body=b"abc"))))
        self.assertEqual(self.client.body, b"abc")
        self.check_over()

    def test_pace(self) -> None:
        """The client's; and while it is behind the upstream's time does not run."""
        response = FakeResponse(b"GET", Reply(body=None))
        relaying = self.relay(response)
        response.send(b"abc")
        assert self.client.producer is not None
        self.client.producer.pauseProducing()
        response.send(b"def")
        self.clock.advance(2 * IDLE)
        self.assertEqual(self.client.body, b"abc")
        self.client.producer.resumeProducing()
        self.assertEqual(self.client.body, b"abcdef")
        response.end()
        self.successResultOf(relaying)
        self.check_over()

    def test_breaks_off(self) -> None:
        response = FakeResponse(b"GET", Reply(body=None))
        relaying = self.relay(response)
        response.break_off()
        self.failureResultOf(relaying, BodyIncomplete)
        self.check_over()

    def test_client_leaves(self) -> None:
        """However it is said, the upstream's connection is given up."""
        for how in "cancel", "stop":
            response = FakeResponse(b"GET", Reply(body=None))
            relaying = self.relay(response)
            if how == "cancel":
                relaying.cancel()
            else:
                assert self.client.producer is not None
                self.client.producer.stopProducing()
            self.failureResultOf(relaying, CancelledError)
            self.assertTrue(response.aborted)
            self.check_over()

"""Tests for :mod:`regproxy.registry.transfer`: how content gets here, whatever upstream does."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import RegistryLimits, RegistrySection
from regproxy.oci.names import Digest, Host
from regproxy.registry.transfer import relay
from regproxy.store.disk import Workers
from regproxy.store.fill import HIGH
from regproxy.upstream.errors import BodyIncomplete, UpstreamUnreachable
from tests.support.front import OPEN, Client, FrontTestCase
from tests.support.upstream import Answer as Scripted
from tests.support.upstream import FakeResponse, Reply
from tests.support.workers import Later

MiB = 1 << 20
BLOB = bytes(range(256)) * 8
SIZE = len(BLOB)
LATER = 60.0


class TransferTestCase(FrontTestCase):
    """A blob whose first bytes have come."""

    content = BLOB

    def setUp(self) -> None:
        super().setUp()
        self.target = self.upstream.serve_blob(OPEN, "app", self.content)
        self.url = OPEN + self.target

    def answers(self, *replies: Scripted) -> None:
        """Upstream answers one GET after the other so."""
        self.upstream.on("GET", self.url, *replies)

    def begin(self, *replies: Scripted, login: str | None = None) -> Client:
        """A client begins; these are the answers to the GETs after its own."""
        self.answers(Reply(200, {}, None, len(self.content)), *replies)
        client = self.ask("GET", OPEN, self.target, login)
        self.upstream.responses[-1].send(self.content[:1000])
        return client

    def part(self, start: int, stop: int | None = None, body: bytes | None = None) -> Reply:
        """A 206 with that part of the content."""
        size = len(self.content)
        stop = size if stop is None else stop
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        return Reply(206, headers, self.content[start:stop] if body is None else body)

    def ranges(self) -> list[str | None]:
        """The Range of each GET up to now."""
        fields = [one.headers.getRawHeaders("range") for one in self.upstream.asked]
        return [None if field is None else field[0] for field in fields]

    def assertGets(self, client: Client) -> None:
        """All of the content, and nothing else."""
        answer = client.answer()
        self.assertEqual((answer.status, answer.whole), (200, True))
        self.assertTrue(answer.body == self.content)
        self.assertTrue(self.stored(self.content))


class ResumeTests(TransferTestCase):
    """A transfer goes on where it stopped, and its clients do not notice."""

    def test_breaks_off(self) -> None:
        client = self.begin(self.part(1000))
        self.upstream.responses[0].break_off()
        self.assertEqual(self.ranges(), [None])
        self.clock.advance(LATER)
        self.assertGets(client)
        self.assertEqual(self.ranges(), [None, "bytes=1000-"])
        self.assertEqual(self.store.fill_counts.resumed, 1)

    def test_stalls(self) -> None:
        client = self.begin(self.part(1000))
        self.clock.advance(self.config.limits.upstream_idle)
        self.assertTrue(self.upstream.responses[0].aborted)
        self.clock.advance(LATER)
        self.assertGets(client)

    def test_limits_of_the_registry(self) -> None:
        """One may be silent for longer, or be slower, than others."""
        idle = self.config.limits.upstream_idle
        for limits, silent, stalled in (
            (RegistryLimits(upstream_idle=2 * idle), 1.5 * idle, 2 * idle),
            # A hundred bytes are too few elsewhere.
            (RegistryLimits(upstream_rate=1), 0.5 * idle, 1.5 * idle),
        ):
            self.setUp()
            registries = {Host.parse(OPEN): RegistrySection(limits=limits)}
            self.start(evolve(self.config, registries=self.config.registries | registries))
            client = self.begin(self.part(1000))
            response = self.upstream.responses[0]
            self.clock.advance(silent)
            response.send(self.content[1000:1100])
            self.clock.advance(stalled - silent - 1)
            self.assertFalse(response.aborted)
            self.clock.advance(1)
            self.assertTrue(response.aborted)
            self.clock.advance(LATER)
            self.assertGets(client)

    def test_unreachable_for_a_while(self) -> None:
        """Each try waits longer, and one that succeeds goes on."""
        down = UpstreamUnreachable("down")
        client = self.begin(down, Reply(503), Reply(429), self.part(1000))
        self.upstream.responses[0].break_off()
        for _ in range(10):
            self.clock.advance(LATER)
        self.assertGets(client)
        self.assertEqual(set(self.ranges()[1:]), {"bytes=1000-"})

    def test_several_breaks(self) -> None:
        client = self.begin(self.part(1000, 1500), self.part(1500))
        self.upstream.responses[0].break_off()
        for _ in range(4):
            self.clock.advance(LATER)
        self.assertGets(client)
        self.assertEqual(self.ranges()[:3], [None, "bytes=1000-", "bytes=1500-"])

    def test_no_ranges(self) -> None:
        """A server that answers with everything is read, and what is here is skipped."""
        client = self.begin(Reply(200, {}, BLOB))
        self.upstream.responses[0].break_off()
        self.clock.advance(LATER)
        self.assertGets(client)

    def test_gives_up(self) -> None:
        """After a bounded number of tries; the client is cut off."""
        client = self.begin(UpstreamUnreachable("down"))
        self.upstream.responses[0].break_off()
        client.answer()
        for _ in range(20):
            self.clock.advance(LATER)
        self.assertFalse(client.answer().whole)
        self.assertTrue(client.cut)
        self.assertLess(len(self.ranges()), 12)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_picked_up(self) -> None:
        """What had come before that is not fetched again."""
        self.begin(UpstreamUnreachable("down"))
        self.upstream.responses[0].break_off()
        for _ in range(20):
            self.clock.advance(LATER)
        self.upstream.asked.clear()
        self.answers(self.part(1000))
        client = self.ask("GET", OPEN, self.target)
        self.assertGets(client)
        self.assertEqual(self.ranges(), ["bytes=1000-"])

    def test_refused(self) -> None:
        """An answer that is none is the end of it."""
        for reply in (
            Reply(404, {}, b"gone"),
            Reply(206, {}, BLOB[1000:]),
            Reply(206, {"Content-Range": "bytes 2-1/0"}, BLOB[1000:]),
            Reply(206, {"Content-Range": f"bytes 1000-{SIZE}/{SIZE + 1}"}, b"x" * (SIZE - 999)),
        ):
            client = self.begin(reply)
            self.upstream.responses[-1].break_off()
            client.answer()
            self.clock.advance(LATER)
            self.assertFalse(client.answer().whole)
            self.assertTrue(client.cut)
            self.assertFalse(self.stored(BLOB))

    def test_other_content(self) -> None:
        """The rest of something else is found out."""
        client = self.begin(self.part(1000, body=bytes(SIZE - 1000)))
        self.upstream.responses[0].break_off()
        client.answer()
        self.clock.advance(LATER)
        self.assertFalse(client.answer().whole)
        self.assertTrue(client.cut)
        self.assertFalse(self.stored(BLOB))

    def test_login_runs_out(self) -> None:
        """Upstream is asked again in the name of the latest client, then of earlier ones."""
        alice = self.begin(Reply(401), self.part(1000), login="Bearer alice")
        bob = self.ask("GET", OPEN, self.target, "Bearer bob")
        self.upstream.asked.clear()
        self.upstream.responses[0].break_off()
        self.clock.advance(LATER)
        self.assertGets(alice)
        self.assertGets(bob)
        logins = [asked.authorization for asked in self.upstream.asked]
        self.assertEqual(logins, [b"Bearer bob", b"Bearer alice"])


class DesertedTests(TransferTestCase):
    """Everybody has left."""

    def test_finishes(self) -> None:
        """What is not very large is fetched to its end, over breaks too."""
        client = self.begin(self.part(1000))
        client.leave()
        self.upstream.responses[0].break_off()
        self.clock.advance(LATER)
        self.assertTrue(self.stored(BLOB))

    def test_abandoned(self) -> None:
        """Of what is very large only little has come: it is given up."""
        self.answers(Reply(200, {}, None, 2048 * MiB))
        client = self.ask("GET", OPEN, self.target)
        (response,) = self.upstream.responses
        response.send(BLOB)
        self.assertFalse(response.aborted)
        client.leave()
        self.assertTrue(response.aborted)


class AheadTests(TransferTestCase):
    """A reader that waits far ahead of the transfer."""

    content = bytes(range(256)) * (24 * MiB // 256)

    def test_own_request(self) -> None:
        """It gets its bytes by a request of its own, and they are not fetched again."""
        start = 20 * MiB
        pending: Deferred[Reply] = Deferred()
        leader = self.begin(pending)
        reader = self.ask("GET", OPEN, self.target, Range=f"bytes={start}-")
        self.assertRegex(self.ranges()[-1] or "", rf"^bytes={start}-")
        pending.callback(self.part(start))
        answer = reader.answer()
        self.assertEqual(answer.status, 206)
        self.assertTrue(answer.body == self.content[start:-1])
        self.upstream.responses[0].send(self.content[1000:start])
        self.clock.advance(0)
        if not self.upstream.responses[0].ended:
            self.upstream.responses[0].send(self.content[start:])
            self.upstream.responses[0].end()
        self.assertTrue(reader.answer().body == self.content[start:])
        self.assertGets(leader)

    def test_no_ranges(self) -> None:
        """Where the server knows no ranges it waits."""
        start = 20 * MiB
        leader = self.begin(Reply(200, {}, None, len(self.content)))
        reader = self.ask("GET", OPEN, self.target, Range=f"bytes={start}-{start + 9}")
        self.assertEqual(reader.answer().body, b"")
        self.upstream.responses[0].send(self.content[1000:])
        self.upstream.responses[0].end()
        self.assertEqual(reader.answer().body, self.content[start : start + 10])
        self.assertGets(leader)

    def test_near(self) -> None:
        """One that is near waits as well."""
        leader = self.begin()
        reader = self.ask("GET", OPEN, self.target, Range="bytes=2000-2009")
        self.assertEqual(self.ranges(), [None])
        self.upstream.responses[0].send(self.content[1000:])
        self.upstream.responses[0].end()
        self.assertEqual(reader.answer().body, self.content[2000:2010])
        self.assertGets(leader)


class SlowDiskTests(TransferTestCase):
    """The disk is slower than upstream."""

    content = bytes(HIGH + MiB)

    def disk_workers(self) -> Workers:
        self.disk = Later()
        return self.disk

    def test_back_pressure(self) -> None:
        """Upstream waits, and its time does not run meanwhile."""
        self.answers(Reply(200, {}, None, len(self.content)))
        client = self.ask("GET", OPEN, self.target)
        self.disk.all()
        (response,) = self.upstream.responses
        response.send(self.content)
        self.assertTrue(response.paused)
        self.clock.advance(2 * self.config.limits.upstream_idle)
        self.disk.all()
        self.assertFalse(response.paused)
        response.end()
        self.disk.all()
        self.assertEqual(len(self.ranges()), 1)
        self.assertTrue(self.store.has(Digest.of(self.content)))
        self.assertGets(client)


class Reader:
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

    IDLE = 60.0

    def setUp(self) -> None:
        self.clock = Clock()
        self.reader = Reader()

    def relay(self, response: FakeResponse) -> Deferred[None]:
        return ensureDeferred(relay(response, self.reader, self.clock, self.IDLE))

    def check_over(self) -> None:
        self.assertIsNone(self.reader.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """A body that has come whole before anybody asked for it."""
        self.successResultOf(self.relay(FakeResponse(b"GET", Reply(body=b"abc"))))
        self.assertEqual(self.reader.body, b"abc")
        self.check_over()

    def test_pace(self) -> None:
        """The reader's; and while it is behind the upstream's time does not run."""
        response = FakeResponse(b"GET", Reply(body=None))
        relaying = self.relay(response)
        response.send(b"abc")
        assert self.reader.producer is not None
        self.reader.producer.pauseProducing()
        response.send(b"def")
        self.clock.advance(2 * self.IDLE)
        self.assertEqual(self.reader.body, b"abc")
        self.reader.producer.resumeProducing()
        self.assertEqual(self.reader.body, b"abcdef")
        response.end()
        self.successResultOf(relaying)
        self.check_over()

    def test_breaks_off(self) -> None:
        response = FakeResponse(b"GET", Reply(body=None))
        relaying = self.relay(response)
        response.break_off()
        self.failureResultOf(relaying, BodyIncomplete)
        self.check_over()

    def test_reader_leaves(self) -> None:
        """However it is said, the upstream's connection is given up."""
        for how in "cancel", "stop":
            response = FakeResponse(b"GET", Reply(body=None))
            relaying = self.relay(response)
            if how == "cancel":
                relaying.cancel()
            else:
                assert self.reader.producer is not None
                self.reader.producer.stopProducing()
            self.failureResultOf(relaying, CancelledError)
            self.assertTrue(response.aborted)
            self.check_over()

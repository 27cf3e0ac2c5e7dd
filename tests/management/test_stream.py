"""Tests for :mod:`regproxy.management.stream`: what one client after the other is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attrs import evolve, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from regproxy.management.encoding import encode
from regproxy.management.jobs import MAX_FAILURES, MAX_TEXT, Progress
from regproxy.management.stream import (
    INTERVAL,
    MAX_IMAGES,
    MAX_REQUESTS,
    MAX_STREAMS,
    MAX_STREAMS_EACH,
    MAX_WAITING,
    SHARE,
    SILENCE,
    STATS_EACH,
    event,
)
from regproxy.management.values import JobImage, JobKind, JobState
from regproxy.oci.names import Digest, Host, Repository
from regproxy.store.fill import Fill, Origin
from regproxy.store.housekeeping import StoreStats
from regproxy.web.access_log import AccessRecord
from tests.support.api import NEIGHBOUR, ApiCase
from tests.support.streams import SEND_BUFFER, MemoryStream

RECORD = AccessRecord(
    time=1.0,
    client="10.0.0.7",
    way="connect",
    method="GET",
    registry="ghcr.io",
    repository="o/app",
    reference="latest",
    status=200,
    bytes=1000,
    duration=0.02,
    cache="hit",
    reason=None,
)
CONTENT = b"content of a layer"


@frozen
class Told:
    """One event, as a browser has it."""

    kind: str
    value: Any
    id: str | None


def events(text: str) -> Iterator[Told]:
    """What is in a stream, by the rules of the HTML standard, section 9.2.6."""
    blocks = text.split("\n\n")
    assert blocks.pop() == "", "an event is not whole"
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            yield Told(fields["event"], json.loads(fields["data"]), fields.get("id"))


def unchunked(data: bytes) -> bytes:
    """The body that is in chunks."""
    body = b""
    while data:
        length, _, data = data.partition(b"\r\n")
        body += data[: int(length, 16)]
        data = data[int(length, 16) + 2 :]
    return body


class StreamCase(ApiCase):
    def setUp(self) -> None:
        super().setUp()

        async def stats() -> StoreStats:
            # How much is free is the business of the whole machine.
            return StoreStats(1, 2, 3, 4, 5, 6, 7, 8)

        self.patch(self.rooms.housekeeping, "stats", stats)

    def follow(self, query: str = "", **fields: str) -> MemoryStream:
        """A client that begins to follow."""
        return self.send("GET", f"/events{query}", fields)

    def text(self, stream: MemoryStream) -> str:
        """What a client reads next."""
        data = stream.take()
        if data.startswith(b"HTTP/1.1"):
            head, _, data = data.partition(b"\r\n\r\n")
            self.assertIn(b" 200 ", head)
            self.assertIn(b"\r\nContent-Type: text/event-stream", head)
            self.assertIn(b"\r\nCache-Control: no-store", head)
        return unchunked(data).decode()

    def read(self, stream: MemoryStream, kind: str | None = None) -> list[Told]:
        """The events that a client reads next, of one kind or of all."""
        found = events(self.text(stream))
        return [each for each in found if kind in (None, each.kind)]

    def look(self, times: int = 1) -> None:
        """Time for so many looks goes by."""
        for _ in range(times):
            self.clock.advance(INTERVAL)

    def request(self, **changes: Any) -> None:
        """A request ends."""
        self.events.record(evolve(RECORD, **changes))

    def fill(self, size: int | None = len(CONTENT)) -> Fill:
        """A transfer begins."""
        fill = self.finish(self.store.begin(Digest.of(CONTENT), size))
        fill.origin = Origin(Host("ghcr.io"), Repository("o/app"), "blob")
        return fill


class EventTests(StreamCase):
    """What is told"""

    def test_form(self) -> None:
        self.assertEqual(event("stats", {"a": "b\n"}), b'event: stats\ndata: {"a":"b\\n"}\n\n')
        self.assertEqual(event("request", 1, 7), b"id: 7\nevent: request\ndata: 1\n\n")

    def test_begin(self) -> None:
        """Who begins is told at once how things are."""
        stream = self.follow()
        text = self.text(stream)
        self.assertTrue(text.startswith("retry: 2000\n\n"))
        (stats,) = events(text)
        self.assertEqual(stats.kind, "stats")
        self.assertEqual(stats.value, self.ask("GET", "/stats").json)

    def test_stats(self) -> None:
        """When they have changed, and not at each look."""
        stream = self.follow()
        self.read(stream)
        self.look(3 * STATS_EACH)
        self.assertEqual(self.text(stream), "")
        for _ in range(4):
            self.traffic.record(RECORD)
            self.look()
        told = self.read(stream, "stats")
        self.assertEqual(len(told), 4 // STATS_EACH)
        # Twisted's clock stands still: this is what counts only.
        self.assertEqual({each.id for each in told}, {None})

    def test_requests(self) -> None:
        self.request(reference="before")
        stream = self.follow()
        self.assertEqual(self.read(stream, "request"), [])
        self.request(reference="one")
        self.request(reference="two")
        self.assertEqual(self.text(stream), "")
        self.look()
        told = self.read(stream)
        self.assertEqual([each.value["reference"] for each in told], ["one", "two"])
        self.assertEqual([each.id for each in told], [str(each.value["id"]) for each in told])
        self.look()
        self.assertEqual(self.read(stream, "request"), [])

    def test_herd(self) -> None:
        """Of many at a time the latest are told of."""
        stream = self.follow()
        self.read(stream)
        for number in range(MAX_REQUESTS + 50):
            self.request(reference=str(number))
        self.look()
        told = [each.value["reference"] for each in self.read(stream, "request")]
        self.assertEqual(told, [str(number) for number in range(50, MAX_REQUESTS + 50)])

    def test_long_requests(self) -> None:
        """Of long ones, fewer."""
        stream = self.follow()
        self.read(stream)
        for number in range(20):
            self.request(reference=f"{number} {'x' * 10000}")
        self.look()
        told = [each.value["reference"] for each in self.read(stream, "request")]
        self.assertLess(sum(map(len, told)), SHARE)
        self.assertEqual([int(each.split()[0]) for each in told], [14, 15, 16, 17, 18, 19])

    def test_fill(self) -> None:
        """From its beginning to its end."""
        stream = self.follow()
        self.read(stream)
        fill = self.fill()
        fill.write(0, CONTENT[:4])
        self.look()
        (told,) = self.read(stream, "fill")
        self.assertEqual((told.value["state"], told.value["stored"]), ("running", 4))
        fill.write(4, CONTENT[4:])
        self.look()
        (told,) = self.read(stream, "fill")
        self.assertEqual((told.value["state"], told.value["stored"]), ("done", len(CONTENT)))
        self.look(5)
        self.assertEqual(self.read(stream, "fill"), [])

    def test_job(self) -> None:
        stream = self.follow()
        self.read(stream)
        wait: Deferred[None] = Deferred()

        async def work(progress: Progress) -> None:
            for number in range(MAX_IMAGES + 1):
                progress.images[str(number)] = JobImage(str(number), JobState.RUNNING)
            await wait
            del progress.images["0"]

        job = self.parts.jobs.start(JobKind.WARM, work)
        self.look()
        (told,) = self.read(stream, "job")
        self.assertEqual((told.value["id"], told.value["state"]), (job.id, "running"))
        self.assertEqual(told.value["images"], [])
        wait.callback(None)
        self.look()
        (told,) = self.read(stream, "job")
        self.assertEqual((told.value["state"], len(told.value["images"])), ("done", MAX_IMAGES))
        self.look(3)
        self.assertEqual(self.read(stream, "job"), [])

    def test_long_jobs(self) -> None:
        """One that is longer than its share is told of, and those after it too."""
        stream = self.follow()
        self.read(stream)

        async def work(progress: Progress) -> None:
            for _ in range(MAX_FAILURES):
                progress.fail("\N{SNOWMAN}" * MAX_TEXT)
            self.assertGreater(len(encode(progress.failures)), SHARE)

        started = [self.parts.jobs.start(JobKind.WARM, work).id for _ in range(2)]
        told = []
        for _ in started:
            self.look()
            told += [each.value["id"] for each in self.read(stream, "job")]
        self.assertEqual(sorted(told), sorted(started))

    def test_many_jobs(self) -> None:
        """Each has its turn, however much there is to be told of others."""
        stream = self.follow()
        self.read(stream)
        running: list[Progress] = []

        async def work(progress: Progress) -> None:
            for _ in range(MAX_FAILURES):
                progress.fail("x" * MAX_TEXT)
            self.assertGreater(2 * len(encode(progress.failures)), SHARE)
            running.append(progress)
            await Deferred()

        started = [self.parts.jobs.start(JobKind.WARM, work).id for _ in range(3)]
        told = []
        for _ in started * 2:
            for progress in running:
                progress.done += 1
            self.look()
            told += [each.value["id"] for each in self.read(stream, "job")]
        self.assertEqual(sorted(told), sorted(started * 2))

    def test_silence(self) -> None:
        """A comment shows that there is somebody."""
        stream = self.follow()
        self.read(stream)
        self.look(SILENCE)
        self.assertEqual(self.text(stream), ": nothing new\n\n")


class ComingBackTests(StreamCase):
    def test_missed(self) -> None:
        """What came after the last event that a client has seen comes first, and once."""
        for reference in "abc":
            self.request(reference=reference)
        first, *_ = (each.id for each in reversed(self.events.latest()))
        for query, fields in (("", {"Last-Event-ID": str(first)}), (f"?since={first}", {})):
            stream = self.follow(query, **fields)
            told = [each.value["reference"] for each in self.read(stream, "request")]
            self.assertEqual(told, ["b", "c"])
            self.look()
            self.assertEqual(self.read(stream, "request"), [])

    def test_field_counts(self) -> None:
        """A browser that comes back asks for the same URL."""
        self.request()
        (last,) = self.events.latest()
        stream = self.follow("?since=0", **{"Last-Event-ID": str(last.id)})
        self.assertEqual(self.read(stream, "request"), [])

    def test_missed_while_others_follow(self) -> None:
        """Neither twice nor never."""
        self.follow()
        (before,) = [each.id for each in self.events.latest(1)] or [0]
        self.request(reference="a")
        self.look()
        self.request(reference="b")
        stream = self.follow(f"?since={before}")
        told = [each.value["reference"] for each in self.read(stream, "request")]
        self.look()
        told += [each.value["reference"] for each in self.read(stream, "request")]
        self.assertEqual(told, ["a", "b"])

    def test_late(self) -> None:
        """Who comes later is told of what goes on, and of nothing that is over."""

        async def at_once(progress: Progress) -> None:
            pass

        async def for_ever(progress: Progress) -> None:
            await Deferred()

        self.parts.jobs.start(JobKind.GC, at_once)
        self.follow()
        self.parts.jobs.start(JobKind.GC, at_once)
        job = self.parts.jobs.start(JobKind.WARM, for_ever)
        self.fill().write(0, CONTENT[:4])
        self.look()
        told = self.read(self.follow())
        self.assertEqual([each.kind for each in told], ["stats", "fill", "job"])
        self.assertEqual(told[-1].value["id"], job.id)


class BoundTests(StreamCase):
    """Clients that do not read, or leave"""

    def test_hangs(self) -> None:
        """Who does not read is cut off before much waits for it; the others go on."""
        reads, hangs = self.follow(), self.follow()
        looks = 0
        while not hangs.aborted:
            self.read(reads)
            for _ in range(MAX_REQUESTS):
                self.request(reference="x" * 300)
            self.look()
            looks += 1
            self.assertLess(looks, 100)
        # What was written may stay with the system; the rest is gone.
        self.assertLess(hangs.held_most, SEND_BUFFER + 2 * SHARE)
        self.assertGreater(looks * SHARE, MAX_WAITING - 2 * SHARE)
        hangs.take()
        self.request(reference="last")
        self.look()
        self.assertEqual(self.read(reads, "request")[-1].value["reference"], "last")
        self.assertFalse(reads.aborted)
        self.assertIn("it does not read what it is told", self.house.log.records[0].reason or "")

    def test_slow(self) -> None:
        """Who was behind for a while misses nothing."""
        stream = self.follow()
        for number in range(4 * MAX_REQUESTS):
            self.request(reference=f"{number} {'x' * 150}")
            if number % MAX_REQUESTS == MAX_REQUESTS - 1:
                self.look()
        data = stream.take()
        while more := stream.take():
            data += more
        told = list(events(unchunked(data.partition(b"\r\n\r\n")[2]).decode()))
        seen = [int(each.value["reference"].split()[0]) for each in told if each.kind == "request"]
        self.assertEqual(seen, list(range(4 * MAX_REQUESTS)))
        self.assertGreater(stream.pauses, 0)

    def test_stalls(self) -> None:
        """Who reads nothing at all is cut off though little waits for it."""
        stream = self.follow()
        for _ in range(3):
            for _ in range(MAX_REQUESTS):
                self.request(reference="x" * 200)
            self.look()
        self.assertGreater(stream.pauses, 0)
        self.clock.advance(self.house.limits.stall)
        self.assertTrue(stream.aborted)

    def test_too_many(self) -> None:
        clients = [IPv4Address("TCP", f"10.0.0.{each}", 1) for each in range(MAX_STREAMS)]
        streams = [self.send("GET", "/events", client=client) for client in clients]
        answer = self.ask("GET", "/events")
        self.assertEqual(answer.status, 503)
        streams[0].finish()
        self.read(self.follow())

    def test_too_many_for_one(self) -> None:
        """One client leaves room for the others."""
        streams = [self.follow() for _ in range(MAX_STREAMS_EACH)]
        answer = self.ask("GET", "/events")
        self.assertEqual(answer.status, 429)
        self.assertEqual(answer.json["detail"], "127.0.0.1 follows 16 times already")
        self.assertEqual(self.ask("HEAD", "/events").status, 200)
        self.read(self.send("GET", "/events", client=NEIGHBOUR))
        streams[0].finish()
        self.read(self.follow())

    def test_end(self) -> None:
        """Streams end whole, so that their clients come back; nobody begins another one."""
        streams = [self.follow(), self.follow()]
        self.parts.broadcast.close()
        for stream in streams:
            self.assertTrue(stream.take().endswith(b"\r\n0\r\n\r\n"))
        self.assertEqual(self.house.statuses, [200, 200])
        answer = self.ask("GET", "/events")
        self.assertEqual(
            (answer.status, answer.json["detail"]), (503, "the proxy is being stopped")
        )

    def test_nobody_looks(self) -> None:
        """When the last one has left, nothing goes on."""
        for _ in range(2):
            streams = [self.follow(), self.follow()]
            self.assertTrue(self.clock.getDelayedCalls())
            for stream in streams:
                stream.finish()
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.request()
        self.assertEqual(self.read(self.follow(), "request"), [])

    def test_head(self) -> None:
        stream = self.send("HEAD", "/events")
        self.assertIn(b" 200 ", stream.take())
        self.assertEqual(len(self.house.log.records), 1)

    def test_mistake(self) -> None:
        """A look that fails is in the log, and clients come back."""
        stream = self.follow()

        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        self.patch(self.events, "latest", fail)
        self.look()
        self.assertTrue(stream.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.house.log.records[0].reason, "internal error")

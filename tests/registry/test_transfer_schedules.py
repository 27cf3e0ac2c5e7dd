"""Whatever happens in whatever order, no reader is deceived and nothing is left behind.

The whole road, from upstream's answers to the last byte at a client, on real files: only
the network, the threads and the time are the test's.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import LimitsSection
from regproxy.oci.names import Digest
from regproxy.policy.filling import FillRules, Phase
from regproxy.policy.spans import Spans
from regproxy.registry.transfer import Transfer
from regproxy.store import fill as fill_module
from regproxy.store.disk import BlobDirectory
from regproxy.store.fill import Fill, FillReader
from regproxy.store.partial import Partial, resumable
from regproxy.upstream.errors import UpstreamUnreachable
from regproxy.web.sender import Buffered, send
from tests.support.descriptors import open_below
from tests.support.upstream import FakeResponse, Reply
from tests.support.workers import Later

RULES: Final = FillRules(
    tries=3,
    first_delay=1,
    last_delay=2,
    progress=12,
    far=12,
    window=16,
    side_requests=2,
    skip=3,
    finish_abandoned=40,
)
LIMITS: Final = LimitsSection(upstream_rate=0)
HIGH: Final = 24
# The most that one read from a socket brings.
CHUNK: Final = 6

# How upstream answers a question for a part; the first is how it should.
HONEST: Final = "right"
ANSWERS: Final = (
    HONEST,
    HONEST,
    "to the end",
    "short",
    "elsewhere",
    "beyond",
    "whole",
    "failed",
    "down",
)
DEADLY: Final = ("gone", "malformed", "another size")
SIDE_CARS: Final = ("untouched", "untouched", "torn", "lost", "lies")


@define(eq=False)
class Client:
    """A reader, and the sender that serves it."""

    reader: FillReader
    start: int
    end: int | None
    taken: bytes = b""
    complete: bool | None = None
    sending: Deferred[None] = field(init=False)
    producer: IPushProducer | None = None

    def begin(self) -> None:
        self.sending = ensureDeferred(
            send(lambda: Buffered(self), self.reader, self.start, self.end)
        )
        self.sending.addBoth(self.over)

    def over(self, result: object) -> None:
        self.complete = not isinstance(result, Failure)
        self.reader.close()

    def move(self, move: str) -> None:
        """The connection takes no more, or takes more: "pause" or "resume"."""
        if self.producer is not None:
            getattr(self.producer, f"{move}Producing")()

    # The consumer.

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        """It stays known: this is called in the middle of ``over``."""

    def write(self, data: bytes) -> None:
        self.taken += data
        if self.end is not None and self.start + len(self.taken) >= self.end:
            assert self.reader.verified, "the last byte was sent before the check"


@define(eq=False)
class Stream:
    """The body of one answer, which comes as the test says."""

    response: FakeResponse
    position: int
    rest: bytes
    honest: bool

    @property
    def flows(self) -> bool:
        """Whether anything can come now."""
        return self.response.taken and not self.response.ended and not self.response.paused


@define(eq=False)
class Question:
    """A question to upstream that was not answered yet."""

    start: int
    stop: int | None
    waiter: Deferred[FakeResponse]


class World:
    """One process: a fill, its transfer, its clients, and the upstream that they see."""

    def __init__(self, directory: BlobDirectory, content: bytes, sent: bytes) -> None:
        self.directory = directory
        self.content = content
        self.sent = sent
        self.digest = Digest.of(content)
        # A process that was killed may have got as far as the rename.
        self.inherited = directory.path(self.digest).exists()
        self.clock = Clock()
        self.workers = Later()
        self.streams: list[Stream] = []
        self.questions: list[Question] = []
        self.clients: list[Client] = []
        self.asked = 1
        self.fetched = 0
        # Bytes of honest answers that were here already.
        self.twice = 0

    def begin(self, how: str, announced: bool) -> None:
        """The first question and its answer."""
        begun = resumable(self.directory.fills, self.digest)
        if begun >= len(self.content):
            # What a server answers with 416 is asked for again as a whole.
            begun = 0
        whole = begun == 0 or how == "whole"
        stream = self.stream("whole" if whole else how, begun, None, announced)
        # All of it is the right answer to who has nothing.
        stream.honest = how != "elsewhere" and not (whole and begun)
        size = len(self.sent) if whole and announced else None
        opened = Partial.open(self.directory.fills, self.digest, size)
        self.left = Spans(opened.stored)
        self.fill = Fill(
            self.directory,
            self.workers,
            self.clock,
            lambda *_: succeed(None),
            self.digest,
            opened,
        )
        self.here = Spans(opened.stored)
        self.join(0, None)
        transfer = Transfer(self.fill, self.fetch, RULES, LIMITS, self.clock, lambda: None)
        transfer.start(stream.response)

    def fetch(self, start: int, stop: int | None) -> Deferred[FakeResponse]:
        self.asked += 1
        question = Question(start, stop, Deferred(lambda _: self.questions.remove(question)))
        self.questions.append(question)
        return question.waiter

    def answer(self, question: Question, how: str) -> None:
        self.questions.remove(question)
        if how == "down":
            question.waiter.errback(UpstreamUnreachable("down"))
        else:
            stream = self.stream(how, question.start, question.stop, True)
            question.waiter.callback(stream.response)

    def stream(self, how: str, start: int, stop: int | None, announced: bool) -> Stream:
        total = len(self.sent)
        code, size, end = 206, total, total if stop is None else min(stop, total)
        match how:
            case "whole":
                code, start, end = 200, 0, total
            case "to the end":
                end = total
            case "short":
                end = min(end, start + 2)
            case "elsewhere":
                start, end = start // 2, total
            case "beyond":
                start, end = min(start + 7, total - 1), total
            case "another size":
                size = total + 1
            case "failed" | "gone":
                code = 503 if how == "failed" else 404
        headers = {} if code != 206 else {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        if how == "malformed":
            headers = {}
        length = end - start if announced or code != 200 else -1
        response = FakeResponse(b"GET", Reply(code, headers, None, length))
        body = self.sent[start:end] if code in (200, 206) else b""
        stream = Stream(response, start, body, how == HONEST)
        self.streams.append(stream)
        return stream

    def come(self, stream: Stream, count: int) -> None:
        """Up to *count* bytes arrive, and the end after the last."""
        data, stream.rest = stream.rest[:count], stream.rest[count:]
        if data and self.fill.state.phase is Phase.RECEIVING:
            start, end = stream.position, stream.position + len(data)
            new = sum(stop - begin for begin, stop in self.here.missing(start, end))
            self.here.add(start, end)
            self.fetched += len(data)
            self.twice += (len(data) - new) if stream.honest else 0
        stream.position += len(data)
        if data:
            stream.response.send(data)
        if not stream.rest and not stream.response.ended:
            stream.response.end()

    def join(self, start: int, end: int | None) -> None:
        client = Client(self.fill.reader(), start, end)
        self.clients.append(client)
        client.begin()

    def waiting(self) -> list[Client]:
        """Who is not served to the end yet."""
        return [client for client in self.clients if client.complete is None]

    def settle(self) -> None:
        """From now on everybody does what he should."""
        for _ in range(400):
            for question in tuple(self.questions):
                if question in self.questions:
                    self.answer(question, HONEST)
            for stream in self.streams:
                if stream.flows:
                    self.come(stream, CHUNK)
            self.workers.all()
            for client in self.waiting():
                client.move("resume")
            if self.fill.state.over and not self.waiting() and not len(self.workers):
                return
            if not any(stream.flows for stream in self.streams) and not self.questions:
                self.clock.advance(1)
        raise AssertionError("the fill never ends")

    def kill(self) -> None:
        """The process is gone, and the files stay."""
        root = f"{self.directory.root.resolve()}/"
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(root):
                    os.close(int(name))


class ScheduleCase(SynchronousTestCase):
    """Has small steps, so that little content takes many."""

    def setUp(self) -> None:
        self.patch(fill_module, "HIGH", HIGH)
        self.patch(fill_module, "LOW", 6)
        self.patch(fill_module, "HASH_STEP", 16)
        self.patch(fill_module, "SIDE_CAR_STEP", 12)

    def directory(self) -> BlobDirectory:
        directory = BlobDirectory(Path(self.mktemp()))
        directory.prepare()
        return directory


class AnswersTests(ScheduleCase):
    """Upstreams that are not what they should be, one by one."""

    CONTENT = bytes(range(90))

    def begin(self, here: int = 10) -> World:
        """A transfer, with so many bytes *here*."""
        world = World(self.directory(), self.CONTENT, self.CONTENT)
        world.begin("whole", True)
        while world.fetched < here:
            self.come(world, world.streams[0])
        return world

    def come(self, world: World, stream: Stream, count: int = CHUNK) -> None:
        world.come(stream, count)
        world.workers.all()

    def ask_again(self, world: World, how: str) -> Stream:
        """The transfer breaks off, and its next question is answered so."""
        world.streams[-1].response.break_off()
        world.clock.advance(RULES.last_delay)
        (question,) = world.questions
        world.answer(question, how)
        return world.streams[-1]

    def test_another_size(self) -> None:
        """The content cannot be right, and nothing more of it is fetched."""
        world = self.begin()
        answer = self.ask_again(world, "another size")
        self.assertIs(world.fill.state.phase, Phase.FAILED)
        self.assertTrue(answer.response.aborted)
        world.settle()
        self.assertEqual(list(world.directory.fills.iterdir()), [])

    def test_no_ranges(self) -> None:
        """The answer is read from the start, once, though it begins with what is here."""
        world = self.begin(60)
        answer = self.ask_again(world, "whole")
        while not answer.response.ended:
            self.come(world, answer)
        self.assertEqual(world.asked, 2)
        self.assertIs(world.fill.state.phase, Phase.COMMITTED)

    def test_never_what_it_was_asked_for(self) -> None:
        """It is given up after some tries, and what is here is kept."""
        for how in ("beyond", "short", "failed"):
            world = self.begin(60)
            answer = self.ask_again(world, how)
            for _ in range(60):
                if answer.flows:
                    self.come(world, answer)
                elif world.questions:
                    world.answer(world.questions[0], how)
                    answer = world.streams[-1]
                else:
                    world.clock.advance(RULES.last_delay)
            self.assertIs(world.fill.state.phase, Phase.FAILED, how)
            world.settle()
            self.assertGreaterEqual(resumable(world.directory.fills, world.digest), 60)

    def test_what_a_reader_got_is_not_fetched_again(self) -> None:
        world = self.begin()
        world.join(50, 60)
        (question,) = world.questions
        self.assertEqual((question.start, question.stop), (50, 60))
        world.answer(question, HONEST)
        side = world.streams[-1]
        while not side.response.ended:
            self.come(world, side)
        self.assertFalse(side.response.aborted)
        self.assertEqual(world.clients[-1].taken, self.CONTENT[50:59])
        while not world.streams[0].response.ended:
            self.come(world, world.streams[0])
        self.assertTrue(world.streams[0].response.aborted)
        (question,) = world.questions
        self.assertEqual((question.start, question.stop), (60, None))
        self.assertLessEqual(world.fetched, 60 + CHUNK)
        world.settle()
        self.assertIs(world.fill.state.phase, Phase.COMMITTED)

    def test_killed_before_the_commit(self) -> None:
        """All is here: nothing of the answer is read."""
        world = self.begin(84)
        world.come(world.streams[0], CHUNK)
        world.workers.step()
        world.fill._partial.note(90, Spans([(0, 90)]))
        world.kill()
        again = World(world.directory, self.CONTENT, self.CONTENT)
        again.begin("whole", True)
        self.assertTrue(again.streams[0].response.aborted)
        again.settle()
        self.assertEqual(again.fetched, 0)
        self.assertIs(again.fill.state.phase, Phase.COMMITTED)

    def test_goes_on_without_end(self) -> None:
        """Everything is here, and the server does not say that this was all."""
        world = self.begin()
        stream = world.streams[0]
        stream.response.send(self.CONTENT[stream.position :])
        world.workers.all()
        self.assertIs(world.fill.state.phase, Phase.COMMITTED)
        self.assertTrue(stream.response.aborted)


class ScheduleTests(ScheduleCase):
    """Random schedules."""

    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def test_every_order(self, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, 90))
        content = bytes(data.draw(st.integers(0, 255)) ^ at for at in range(size))
        sent = bytearray(content)
        wrong = data.draw(st.integers(0, 5)) == 0
        if wrong:
            sent[data.draw(st.integers(0, size - 1))] ^= 1
        directory = self.directory()
        worlds = [World(directory, content, bytes(sent))]
        lies = False
        deadly = data.draw(st.booleans())
        answers = ANSWERS + DEADLY if deadly else ANSWERS
        worlds[-1].begin(HONEST, data.draw(st.booleans()))
        for _ in range(data.draw(st.integers(0, 60))):
            if self.move(worlds[-1], data, answers) == "kill":
                worlds[-1].kill()
                lies = self.harm(worlds[-1], data) or lies
                worlds.append(World(directory, content, bytes(sent)))
                first = data.draw(st.sampled_from((HONEST, HONEST, "whole", "elsewhere")))
                worlds[-1].begin(first, data.draw(st.booleans()))
            self.check_memory(worlds[-1])
        worlds[-1].settle()
        self.check(worlds[-1], wrong=wrong or lies)
        # The next one has what is left, if anything is, and succeeds if it is right.
        if not wrong and worlds[-1].fill.state.phase is Phase.FAILED:
            for _ in range(2):
                last = World(directory, content, content)
                last.begin(HONEST, True)
                last.settle()
                self.check(last, wrong=lies)
                if not lies:
                    break
                lies = False
            self.assertIs(last.fill.state.phase, Phase.COMMITTED)

    def move(self, world: World, data: st.DataObject, answers: tuple[str, ...]) -> str:
        """One thing happens."""
        flowing = [stream for stream in world.streams if stream.flows]
        moves = ["worker", "worker", "tick"]
        moves += ["come"] * 4 * bool(flowing) + ["break", "stall"] * bool(flowing)
        moves += ["answer"] * 3 * bool(world.questions)
        moves += ["leave", "pause", "resume"] * bool(world.waiting())
        moves += ["join", "join"] * (not world.fill.state.over) + ["kill"]
        move = data.draw(st.sampled_from(moves))
        match move:
            case "worker":
                world.workers.step()
            case "tick":
                world.clock.advance(1)
            case "come":
                stream = data.draw(st.sampled_from(flowing))
                world.come(stream, data.draw(st.integers(1, CHUNK)))
            case "break":
                data.draw(st.sampled_from(flowing)).response.break_off()
            case "stall":
                world.clock.advance(LIMITS.upstream_idle)
            case "answer":
                question = data.draw(st.sampled_from(world.questions))
                world.answer(question, data.draw(st.sampled_from(answers)))
            case "leave":
                data.draw(st.sampled_from(world.waiting())).sending.cancel()
            case "pause" | "resume":
                client = data.draw(st.sampled_from(world.waiting()))
                client.move(move)
            case "join":
                start, end = 0, world.fill.state.size
                if end is not None and end <= len(world.content) and data.draw(st.booleans()):
                    start = data.draw(st.integers(0, end))
                    end = data.draw(st.integers(start, end))
                world.join(start, end)
        return move

    def harm(self, world: World, data: st.DataObject) -> bool:
        """What a kill does to the side-car; whether it tells lies then."""
        side_cars = list(world.directory.fills.glob("*.json"))
        how = data.draw(st.sampled_from(SIDE_CARS))
        for side_car in side_cars:
            noted = side_car.read_bytes()
            if how == "torn":
                side_car.write_bytes(noted[: data.draw(st.integers(0, len(noted)))])
            elif how == "lost":
                side_car.unlink()
            elif how == "lies":
                size = len(world.content)
                side_car.write_text(f'{{"size": {size}, "stored": [[0, {size}]]}}')
        return how == "lies" and bool(side_cars)

    def check_memory(self, world: World) -> None:
        """What waits for the disk is bounded, whatever the sources do."""
        self.assertLessEqual(world.fill._queued, HIGH + CHUNK * (1 + RULES.side_requests))

    def check(self, world: World, *, wrong: bool) -> None:
        """What must be true when a fill is over, of its clients, its files and its upstream."""
        fill, content = world.fill, world.content
        self.assertTrue(fill.state.over)
        right = fill.state.phase is Phase.COMMITTED
        for client in world.clients:
            whole = content[client.start : client.end]
            if client.complete:
                self.assertTrue(right)
                self.assertEqual(client.taken, whole)
            elif client.end is not None and client.start < client.end:
                # As announced, which need not have been the size of the content.
                self.assertLess(len(client.taken), client.end - client.start)
            if not wrong:
                self.assertTrue(whole.startswith(client.taken))
        path = world.directory.path(world.digest)
        self.assertEqual(path.exists(), right or world.inherited)
        if path.exists():
            self.assertEqual(path.read_bytes(), content)
        self.check_left(world, wrong)
        self.assertEqual(open_below(world.directory.root), [])
        self.assertEqual(world.clock.getDelayedCalls(), [])
        self.assertEqual(world.questions, [])
        self.assertEqual([one for one in world.streams if not one.response.ended], [])
        self.check_fetched(world)

    def check_left(self, world: World, wrong: bool) -> None:
        """Nothing, or what can be gone on with."""
        files = {path.suffix for path in world.directory.fills.iterdir()}
        self.assertIn(files, (set(), {".part", ".json"}))
        if files:
            self.assertIs(world.fill.state.phase, Phase.FAILED)
            opened = Partial.open(world.directory.fills, world.digest, None)
            self.assertGreater(opened.stored.total, 0)
            self.assertEqual(opened.stored, world.here)
            for start, end in opened.stored:
                data = os.pread(opened.descriptor, end - start, start)
                if not wrong:
                    self.assertEqual(data, world.content[start:end])
            os.close(opened.descriptor)

    def check_fetched(self, world: World) -> None:
        """Honest answers bring a byte twice only near what was brought out of order.

        Before it is left out, each stretch of that costs at most ``skip`` bytes and two
        reads: the transfer's that meets it, and the last one of the range ahead that is
        overtaken. There are at most as many as questions after the first, and as stretches
        that an earlier process left. One question for all of it brings nothing twice.
        """
        stretches = world.asked - 1 + len(list(world.left))
        self.assertLessEqual(world.twice, (RULES.skip + 2 * CHUNK) * stretches)

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest
from regproxy.store import fill as fill_module
from regproxy.store.disk import BlobDirectory
from regproxy.store.errors import DigestMismatch, IndexFailed, SizeMismatch
from regproxy.store.fill import Fill, FillReader, Phase
from regproxy.web.sender import send
from tests.support.descriptors import open_below
from tests.support.workers import Later

CONTENT = b"some content of a layer"


class Broke(Exception):
    """The upstream broke off."""


@implementer(IPushProducer)
class Source:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class FillCase(SynchronousTestCase):
    """Has a directory, workers that work when told, and an index that takes everything."""

    def setUp(self) -> None:
        self.prepare(Path(self.mktemp()))

    def prepare(self, root: Path) -> None:
        self.directory = BlobDirectory(root)
        self.directory.prepare()
        self.workers = Later()
        self.recorded: list[tuple[Digest, int]] = []

    def record(self, digest: Digest, size: int) -> Deferred[None]:
        self.recorded.append((digest, size))
        return succeed(None)

    def fill(self, content: bytes, size: int | None = None, algorithm: str = "sha256") -> Fill:
        """A fill of *content*, *size* bytes announced."""
        path = self.directory.fills / "partial"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        digest = Digest.of(content, algorithm)
        return Fill(self.directory, self.workers, self.record, digest, size, descriptor, path)

    def check_kept(self, content: bytes, algorithm: str = "sha256") -> None:
        """Exactly one file is left, and every file is closed."""
        kept = [path for path in self.directory.root.rglob("*") if path.is_file()]
        self.assertEqual(kept, [self.directory.path(Digest.of(content, algorithm))])
        self.assertEqual(kept[0].read_bytes(), content)
        self.check_closed()

    def check_nothing_left(self) -> None:
        """No file is left, and every file is closed."""
        left = [path for path in self.directory.root.rglob("*") if path.is_file()]
        self.assertEqual(left, [])
        self.check_closed()

    def check_closed(self) -> None:
        self.assertEqual(open_below(self.directory.root), [])


class FillTests(FillCase):
    def test_whole(self) -> None:
        for algorithm in ("sha256", "sha512"):
            self.prepare(Path(self.mktemp()))
            fill = self.fill(CONTENT, len(CONTENT), algorithm)
            ended = fill.when_ended()
            fill.write(CONTENT[:5])
            fill.write(CONTENT[5:])
            fill.finish()
            self.assertNoResult(ended)
            self.workers.all()
            self.successResultOf(ended)
            self.successResultOf(fill.when_ended())
            self.assertIs(fill.phase, Phase.COMMITTED)
            self.assertEqual(self.recorded, [(fill.digest, len(CONTENT))])
            self.check_kept(CONTENT, algorithm)

    def test_empty(self) -> None:
        fill = self.fill(b"", 0)
        fill.finish()
        self.workers.all()
        self.check_kept(b"")

    def test_length_not_announced(self) -> None:
        fill = self.fill(CONTENT)
        reader = fill.reader()
        self.assertIsNone(reader.size)
        fill.write(CONTENT)
        fill.finish()
        self.workers.all()
        self.assertEqual(reader.size, len(CONTENT))
        reader.close()
        self.check_kept(CONTENT)

    def test_verified_before_it_is_durable(self) -> None:
        """The last byte need not wait for the disk's cache."""
        fill = self.fill(CONTENT)
        fill.write(CONTENT)
        fill.finish()
        self.workers.step()
        self.assertEqual((fill.phase, fill.verified), (Phase.VERIFIED, True))
        self.assertFalse(self.directory.path(fill.digest).exists())
        self.workers.all()

    def test_wrong_digest(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(CONTENT[:-1] + b"!")
        fill.finish()
        self.workers.all()
        self.failureResultOf(fill.when_ended(), DigestMismatch)
        self.assertFalse(fill.verified)
        self.check_nothing_left()

    def test_too_short(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT) + 1)
        fill.write(CONTENT)
        fill.finish()
        self.workers.all()
        self.failureResultOf(fill.when_ended(), SizeMismatch)
        self.check_nothing_left()

    def test_too_long_is_not_written(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(CONTENT)
        fill.write(b"!")
        self.assertIs(fill.phase, Phase.FAILED)
        fill.write(b"!")
        fill.finish()
        self.workers.all()
        self.failureResultOf(fill.when_ended(), SizeMismatch)
        self.check_nothing_left()

    def test_source_fails(self) -> None:
        fill = self.fill(CONTENT)
        ended, changed = fill.when_ended(), fill.when_changed()
        fill.write(CONTENT)
        fill.fail(Failure(Broke()))
        self.failureResultOf(changed, Broke)
        self.failureResultOf(ended, Broke)
        self.failureResultOf(fill.when_changed(), Broke)
        self.workers.all()
        self.check_nothing_left()

    def test_source_fails_with_nothing_to_write(self) -> None:
        fill = self.fill(CONTENT)
        fill.fail(Failure(Broke()))
        self.failureResultOf(fill.when_ended(), Broke)
        self.workers.all()
        self.check_nothing_left()

    def test_source_fails_too_late(self) -> None:
        """All bytes are here and right: what the source says then is of no interest."""
        fill = self.fill(CONTENT)
        fill.write(CONTENT)
        fill.finish()
        self.workers.step()
        fill.fail(Failure(Broke()))
        self.workers.all()
        fill.fail(Failure(Broke()))
        self.successResultOf(fill.when_ended())
        self.check_kept(CONTENT)

    def test_no_reader_of_a_fill_that_is_over(self) -> None:
        """Its descriptor is closed, and may be another file's by now."""
        fill = self.fill(CONTENT)
        fill.fail(Failure(Broke()))
        self.assertRaises(ValueError, fill.reader)
        self.workers.all()

    def broken(self, *_: object, **__: object) -> Any:
        raise OSError("broken")

    def test_disk_fails(self) -> None:
        fill = self.fill(CONTENT)
        self.patch(os, "pwrite", self.broken)
        fill.write(CONTENT)
        self.workers.all()
        self.failureResultOf(fill.when_ended(), OSError)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.check_nothing_left()

    def test_disk_fails_after_the_source(self) -> None:
        fill = self.fill(CONTENT)
        self.patch(os, "pwrite", self.broken)
        fill.write(CONTENT)
        fill.fail(Failure(Broke()))
        self.workers.all()
        self.failureResultOf(fill.when_ended(), Broke)
        self.check_nothing_left()

    def test_disk_fails_at_the_commit(self) -> None:
        """The readers have what they were promised; nobody else gets it."""
        fill = self.fill(CONTENT)
        reader = fill.reader()
        self.patch(os, "fsync", self.broken)
        fill.write(CONTENT)
        fill.finish()
        self.workers.all()
        self.failureResultOf(fill.when_ended(), OSError)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertTrue(reader.verified)
        self.assertEqual(reader.readable(0), len(CONTENT))
        self.assertEqual(self.successResultOf(reader.read(0, 100)), CONTENT)
        reader.close()
        self.check_nothing_left()

    def test_index_fails(self) -> None:
        """Content stands whole under its name; that no row tells of it costs nothing yet."""
        self.patch(self, "record", lambda *_: fail(IndexFailed("full")))
        fill = self.fill(CONTENT)
        fill.write(CONTENT)
        fill.finish()
        self.workers.all()
        self.failureResultOf(fill.when_ended(), IndexFailed)
        self.flushLoggedErrors(IndexFailed)
        self.check_kept(CONTENT)

    def test_partial_file_cannot_be_removed(self) -> None:
        fill = self.fill(CONTENT)
        self.patch(Path, "unlink", self.broken)
        fill.fail(Failure(Broke()))
        self.workers.all()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_source_waits_for_the_disk(self) -> None:
        self.patch(fill_module, "HIGH", 10)
        self.patch(fill_module, "LOW", 5)
        source = Source()
        fill = self.fill(CONTENT)
        fill.produced_by(source)
        fill.write(CONTENT[:8])
        self.assertEqual(source.told, [])
        fill.write(CONTENT[8:12])
        fill.write(CONTENT[12:])
        self.assertEqual(source.told, ["pause"])
        self.workers.step()
        self.assertEqual(source.told, ["pause"])
        self.workers.step()
        self.assertEqual(source.told, ["pause", "resume"])
        fill.finish()
        self.workers.all()
        self.check_kept(CONTENT)

    def test_source_that_fails_when_resumed(self) -> None:
        self.patch(fill_module, "HIGH", 1)
        fill = self.fill(CONTENT)
        source = Source()
        source.resumeProducing = lambda: fill.fail(Failure(Broke()))  # type: ignore[method-assign]
        fill.produced_by(source)
        fill.write(CONTENT)
        self.workers.all()
        self.failureResultOf(fill.when_ended(), Broke)
        self.check_nothing_left()

    def test_waiter_that_left(self) -> None:
        fill = self.fill(CONTENT)
        changed = fill.when_changed()
        changed.cancel()
        self.failureResultOf(changed)
        fill.write(CONTENT)
        fill.finish()
        self.workers.all()
        self.check_kept(CONTENT)


class FillReaderTests(FillCase):
    def test_interface(self) -> None:
        fill = self.fill(CONTENT)
        reader = fill.reader()
        verifyObject(IBlob, reader)
        reader.close()
        fill.fail(Failure(Broke()))
        self.workers.all()

    def test_bytes_are_readable_as_soon_as_they_are_on_disk(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT))
        reader = fill.reader()
        changed = reader.when_changed()
        fill.write(CONTENT[:5])
        self.assertEqual(reader.readable(0), 0)
        self.assertNoResult(changed)
        self.workers.step()
        self.successResultOf(changed)
        self.assertEqual([reader.readable(at) for at in (0, 3, 5, 9)], [5, 2, 0, 0])
        self.assertEqual(self.successResultOf(reader.read(1, 3)), CONTENT[1:4])
        fill.fail(Failure(Broke()))
        self.assertEqual(reader.readable(0), 0)
        self.failureResultOf(reader.when_changed(), Broke)
        reader.close()
        self.workers.all()
        self.check_nothing_left()

    def test_outlives_the_fill(self) -> None:
        fill = self.fill(CONTENT)
        reader = fill.reader()
        fill.write(CONTENT)
        fill.finish()
        self.workers.all()
        self.directory.path(fill.digest).unlink()
        self.assertEqual(self.successResultOf(reader.read(0, 100)), CONTENT)
        reader.close()
        self.check_nothing_left()

    def test_closed_twice(self) -> None:
        """The second time, it would be another reader's file."""
        fill = self.fill(CONTENT)
        one, other = fill.reader(), fill.reader()
        one.close()
        one.close()
        fill.write(CONTENT)
        fill.finish()
        self.workers.all()
        self.assertEqual(self.successResultOf(other.read(0, 100)), CONTENT)
        other.close()
        self.check_kept(CONTENT)


@define
class Client:
    """A reader, and the sender that serves it."""

    reader: FillReader
    start: int
    end: int | None
    fill: Fill
    taken: bytes = b""
    complete: bool | None = None
    sending: Deferred[None] = field(init=False)
    producer: IPushProducer = field(init=False)

    def begin(self) -> None:
        self.sending = ensureDeferred(send(self, self.reader, self.start, self.end))
        self.sending.addBoth(self.over)

    def over(self, result: object) -> None:
        self.complete = not isinstance(result, Failure)
        self.reader.close()

    # The consumer.

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        del self.producer

    def write(self, data: bytes) -> None:
        self.taken += data
        if self.end is not None and self.start + len(self.taken) >= self.end:
            assert self.fill.verified, "the last byte was sent before the check"


CHUNKS = st.lists(st.binary(max_size=40), max_size=6)
# What becomes of the source after its chunks.
ENDS = st.sampled_from(["right", "wrong byte", "short", "long", "breaks off"])


class ScheduleTests(FillCase):
    """Whatever happens in whatever order, no reader is ever deceived."""

    @settings(deadline=None)
    @given(CHUNKS, ENDS, st.booleans(), st.booleans(), st.data())
    def test_every_order(
        self, chunks: list[bytes], end: str, announced: bool, slow: bool, data: st.DataObject
    ) -> None:
        self.prepare(Path(self.mktemp()))
        content = b"".join(chunks)
        fill = self.fill(content, len(content) if announced else None)
        ended: list[object] = []
        fill.when_ended().addBoth(ended.append)
        sent = self.sent(chunks, end)
        right = sent is not None and b"".join(sent) == content
        script = self.script(fill, chunks if sent is None else sent, sent is not None)
        clients: list[Client] = []
        if slow:
            patch = self.patch(os, "preadv", lambda *_: 0)
        moves = ["source", "source", "worker", "worker", "join", "leave", "pause", "resume"]
        while script:
            match data.draw(st.sampled_from(moves)):
                case "source":
                    script.pop(0)()
                case "worker":
                    self.workers.step()
                case "join" if fill.phase not in (Phase.COMMITTED, Phase.FAILED):
                    clients.append(self.join(fill, data))
                case "leave" if clients:
                    client = data.draw(st.sampled_from(clients))
                    client.sending.cancel()
                case "pause" | "resume" as order if clients:
                    client = data.draw(st.sampled_from(clients))
                    if client.complete is None:
                        getattr(client.producer, f"{order}Producing")()
        for _ in clients:
            self.workers.all()
            for client in clients:
                if client.complete is None:
                    client.producer.resumeProducing()
        self.workers.all()
        if slow:
            patch.restore()

        self.assertIs(fill.phase, Phase.COMMITTED if right else Phase.FAILED)
        self.assertEqual(len(ended), 1)
        for client in clients:
            self.assertIsNotNone(client.complete)
            whole = content[client.start : client.end]
            if client.complete:
                self.assertTrue(right)
                self.assertEqual(client.taken, whole)
            elif right:
                self.assertTrue(whole.startswith(client.taken))
            elif whole and client.end is not None:
                self.assertLess(len(client.taken), len(whole))
        if right:
            self.check_kept(content)
        else:
            self.check_nothing_left()

    def join(self, fill: Fill, data: st.DataObject) -> Client:
        """A client that wants all of it, or a part when the length is known."""
        start, end = 0, fill.size
        if end is not None and data.draw(st.booleans()):
            start = data.draw(st.integers(0, end))
            end = data.draw(st.integers(start, end))
        client = Client(fill.reader(), start, end, fill)
        client.begin()
        return client

    def sent(self, chunks: list[bytes], end: str) -> list[bytes] | None:
        """What the source sends before it says that this is all; None when it breaks off."""
        match end:
            case "wrong byte":
                return [bytes(byte ^ 1 for byte in chunk) for chunk in chunks]
            case "short":
                return chunks[:-1]
            case "long":
                return [*chunks, b"more"]
            case "breaks off":
                return None
            case _:
                return chunks

    def script(self, fill: Fill, chunks: list[bytes], whole: bool) -> list[Callable[[], None]]:
        """What the source does, step by step."""
        steps = [partial(fill.write, chunk) for chunk in chunks]
        return [*steps, fill.finish if whole else partial(fill.fail, Failure(Broke()))]

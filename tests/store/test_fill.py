from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest
from regproxy.policy.filling import Phase
from regproxy.policy.spans import Spans
from regproxy.store import fill as fill_module
from regproxy.store.disk import BlobDirectory
from regproxy.store.errors import DigestMismatch, DiskFailed, IndexFailed, SizeMismatch
from regproxy.store.fill import Fill
from regproxy.store.partial import Partial
from tests.support.descriptors import open_below
from tests.support.workers import Later

CONTENT = b"some content of a layer"


class Broke(Exception):
    """The upstream broke off."""


@implementer(IPushProducer)
class Source:
    """Notes what it is told.

    Attributes:
        then: what it does when it is resumed.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.then: Callable[[], object] = lambda: None

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self.then()

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
        self.clock = Clock()
        self.recorded: list[tuple[Digest, int]] = []

    def record(self, digest: Digest, size: int) -> Deferred[None]:
        self.recorded.append((digest, size))
        return succeed(None)

    def fill(self, content: bytes, size: int | None = None, algorithm: str = "sha256") -> Fill:
        """A fill of *content*, *size* bytes announced."""
        digest = Digest.of(content, algorithm)
        opened = Partial.open(self.directory.fills, digest, size)
        return Fill(self.directory, self.workers, self.clock, self.record, digest, opened)

    def left(self, fill: Fill) -> Spans:
        """What a later fill would go on with."""
        opened = Partial.open(self.directory.fills, fill.digest, None)
        opened.put_away(opened.size, opened.stored)
        os.close(opened.descriptor)
        return opened.stored

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
            fill.write(0, CONTENT[:5])
            fill.write(5, CONTENT[5:])
            self.assertNoResult(ended)
            self.workers.all()
            self.successResultOf(ended)
            self.successResultOf(fill.when_ended())
            self.successResultOf(fill.when_closed())
            self.assertIs(fill.state.phase, Phase.COMMITTED)
            self.assertEqual(self.recorded, [(fill.digest, len(CONTENT))])
            self.check_kept(CONTENT, algorithm)

    def test_empty(self) -> None:
        for empty in (lambda fill: fill.announce(0), lambda fill: fill.write(0, b"")):
            self.prepare(Path(self.mktemp()))
            empty(self.fill(b"", 0))
            self.workers.all()
            self.check_kept(b"")

    def test_length_not_announced(self) -> None:
        fill = self.fill(CONTENT)
        reader = fill.reader()
        self.assertIsNone(reader.size)
        fill.write(0, CONTENT)
        self.workers.all()
        self.assertFalse(reader.verified)
        fill.announce(len(CONTENT))
        self.assertEqual(reader.size, len(CONTENT))
        self.assertTrue(reader.verified)
        reader.close()
        self.workers.all()
        self.check_kept(CONTENT)

    def test_any_order_and_more_than_once(self) -> None:
        """Whoever brings a byte first has it written; the others are not looked at."""
        fill = self.fill(CONTENT, len(CONTENT))
        for start, end in ((10, 20), (15, 23), (0, 12), (0, 23)):
            wrong = bytes(end - start)
            fill.write(start, wrong if (start, end) == (0, 23) else CONTENT[start:end])
        self.workers.all()
        self.check_kept(CONTENT)

    def test_what_was_on_disk_is_hashed_too(self) -> None:
        """In steps, between which what comes is written."""
        self.patch(fill_module, "HASH_STEP", 4)
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(1, CONTENT[1:])
        self.workers.all()
        self.assertEqual(fill.state.hashed, 0)
        fill.write(0, CONTENT[:1])
        for _ in range(5):
            self.workers.step()
        self.assertIs(fill.state.phase, Phase.RECEIVING)
        self.workers.all()
        self.check_kept(CONTENT)

    def test_verified_before_it_is_durable(self) -> None:
        """The last byte need not wait for the disk's cache."""
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(0, CONTENT)
        self.workers.step()
        self.assertEqual((fill.state.phase, fill.state.verified), (Phase.VERIFIED, True))
        self.assertFalse(self.directory.path(fill.digest).exists())
        self.workers.all()

    def test_wrong_digest(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(0, CONTENT[:-1] + b"!")
        self.workers.all()
        self.failureResultOf(fill.when_ended(), DigestMismatch)
        self.assertFalse(fill.state.verified)
        self.check_nothing_left()

    def test_sizes_that_contradict_each_other(self) -> None:
        """Nothing of it is kept, and nothing of it is written."""
        for contradict in (
            lambda fill: fill.write(len(CONTENT), b"!"),
            lambda fill: fill.announce(len(CONTENT) - 1),
            lambda fill: fill.announce(len(CONTENT) + 1),
        ):
            self.prepare(Path(self.mktemp()))
            fill = self.fill(CONTENT, len(CONTENT))
            contradict(fill)
            self.assertIs(fill.state.phase, Phase.FAILED)
            fill.write(0, CONTENT)
            fill.announce(len(CONTENT))
            self.workers.all()
            self.failureResultOf(fill.when_ended(), SizeMismatch)
            self.check_nothing_left()

    def test_source_fails(self) -> None:
        fill = self.fill(CONTENT)
        ended, changed = fill.when_ended(), fill.when_changed()
        fill.write(0, CONTENT)
        fill.fail(Failure(Broke()))
        self.failureResultOf(changed, Broke)
        self.failureResultOf(ended, Broke)
        self.failureResultOf(fill.when_changed(), Broke)
        self.workers.all()
        self.check_nothing_left()

    def test_source_fails_with_nothing_to_write(self) -> None:
        for keep in (False, True):
            fill = self.fill(CONTENT)
            fill.fail(Failure(Broke()), keep=keep)
            self.failureResultOf(fill.when_ended(), Broke)
            self.workers.all()
            self.check_nothing_left()

    def test_source_fails_too_late(self) -> None:
        """All bytes are here and right: what the source says then is of no interest."""
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(0, CONTENT)
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
        self.assertRaises(ValueError, fill.reader)

    def test_waiter_that_left(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT))
        changed = fill.when_changed()
        changed.cancel()
        self.failureResultOf(changed)
        fill.write(0, CONTENT)
        self.workers.all()
        self.check_kept(CONTENT)


class KeepingTests(FillCase):
    """What a fill that came to nothing leaves for the next one."""

    def broken_off(self, done: int) -> Fill:
        """A fill that breaks off with two pieces here, *done* worker calls later."""
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(0, CONTENT[:5])
        fill.write(8, CONTENT[8:12])
        for _ in range(done):
            self.workers.step()
        fill.fail(Failure(Broke()), keep=True)
        self.assertNoResult(fill.when_closed())
        self.workers.all()
        self.successResultOf(fill.when_closed())
        self.failureResultOf(fill.when_ended(), Broke)
        return fill

    def test_all_that_came(self) -> None:
        """Also what was on its way to the disk, or waited for that."""
        for done in range(3):
            self.prepare(Path(self.mktemp()))
            fill = self.broken_off(done)
            self.assertEqual(self.left(fill), Spans([(0, 5), (8, 12)]))

    def test_gone_on_with(self) -> None:
        self.broken_off(2)
        fill = self.fill(CONTENT)
        self.assertEqual(fill.state.size, len(CONTENT))
        reader = fill.reader()
        self.assertEqual([reader.readable(at) for at in (0, 5, 8)], [5, 0, 4])
        fill.write(5, CONTENT[5:8])
        fill.write(12, CONTENT[12:])
        self.workers.all()
        reader.close()
        self.check_kept(CONTENT)

    def test_whole_already(self) -> None:
        """A process that was killed before the commit left all of it."""
        opened = Partial.open(self.directory.fills, Digest.of(CONTENT), len(CONTENT))
        opened.write([(0, CONTENT)])
        opened.note(len(CONTENT), Spans([(0, len(CONTENT))]))
        os.close(opened.descriptor)
        self.fill(CONTENT).attach(Source())
        self.workers.all()
        self.check_kept(CONTENT)

    def test_wrong_bytes_were_left(self) -> None:
        """It is found out, nothing is kept, and the next one begins anew."""
        fill = self.broken_off(2)
        path = next(self.directory.fills.glob("*.part"))
        path.write_bytes(bytes(12))
        fill = self.fill(CONTENT)
        fill.write(0, CONTENT)
        self.workers.all()
        self.failureResultOf(fill.when_ended(), DigestMismatch)
        self.check_nothing_left()
        self.fill(CONTENT, len(CONTENT)).write(0, CONTENT)
        self.workers.all()
        self.check_kept(CONTENT)

    def test_more_was_left_than_there_is(self) -> None:
        self.broken_off(2)
        short = CONTENT[:10]
        name = Digest.of(short)
        for path in self.directory.fills.iterdir():
            path.rename(path.with_name(path.name.replace(Digest.of(CONTENT).hex, name.hex)))
        self.fill(short, 10).write(0, short)
        self.workers.all()
        self.check_kept(short)

    def test_side_car_is_written_on_the_way(self) -> None:
        """A kill loses no more than a step."""
        self.patch(fill_module, "SIDE_CAR_STEP", 5)
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(0, CONTENT[:6])
        self.workers.step()
        fill.write(6, CONTENT[6:8])
        self.workers.step()
        (side_car,) = self.directory.fills.glob("*.json")
        self.assertIn("[[0, 6]]", side_car.read_text())
        fill.fail(Failure(Broke()))
        self.workers.all()
        self.check_nothing_left()

    def test_side_car_of_the_first_bytes(self) -> None:
        """A kill loses no more than half of what was there, or what is soon here again."""
        self.patch(fill_module, "SIDE_CAR_FIRST", 2)
        fill = self.fill(CONTENT, len(CONTENT))
        noted = []
        for start in range(8):
            fill.write(start, CONTENT[start : start + 1])
            self.workers.all()
            texts = [path.read_text() for path in self.directory.fills.glob("*.json")]
            noted.append([json.loads(text)["stored"] for text in texts])
        two, four, eight = [[[0, 2]]], [[[0, 4]]], [[[0, 8]]]
        self.assertEqual(noted, [[], two, two, four, four, four, four, eight])
        fill.fail(Failure(Broke()))
        self.workers.all()


class DiskTests(FillCase):
    """The disk does not do what it should."""

    def broken(self, *_: object, **__: object) -> Any:
        raise OSError("broken")

    def check_failed(self, fill: Fill) -> None:
        self.failureResultOf(fill.when_ended(), DiskFailed)
        self.flushLoggedErrors()

    def test_write(self) -> None:
        fill = self.fill(CONTENT)
        self.patch(os, "pwrite", self.broken)
        fill.write(0, CONTENT)
        self.workers.all()
        self.check_failed(fill)
        self.check_nothing_left()

    def test_write_after_the_source_failed(self) -> None:
        for keep in (False, True):
            self.prepare(Path(self.mktemp()))
            fill = self.fill(CONTENT)
            patch = self.patch(os, "pwrite", self.broken)
            fill.write(0, CONTENT[:5])
            fill.write(5, CONTENT[5:])
            fill.fail(Failure(Broke()), keep=keep)
            self.workers.all()
            patch.restore()
            self.failureResultOf(fill.when_ended(), Broke)
            self.successResultOf(fill.when_closed())
            self.assertEqual(len(self.flushLoggedErrors(OSError)), int(keep))
            self.assertEqual(self.left(fill), Spans())
            self.check_closed()

    def test_commit(self) -> None:
        """The readers have what they were promised; nobody else gets it."""
        fill = self.fill(CONTENT, len(CONTENT))
        reader = fill.reader()
        self.patch(os, "fsync", self.broken)
        fill.write(0, CONTENT)
        self.workers.all()
        self.check_failed(fill)
        self.assertTrue(reader.verified)
        self.assertEqual(reader.readable(0), len(CONTENT))
        self.assertEqual(self.successResultOf(reader.read(0, 100)), CONTENT)
        reader.close()
        self.check_nothing_left()

    def test_index(self) -> None:
        """Content stands whole under its name; that no row tells of it costs nothing yet."""
        self.patch(self, "record", lambda *_: fail(IndexFailed("full")))
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(0, CONTENT)
        self.workers.all()
        self.check_failed(fill)
        self.check_kept(CONTENT)

    def test_removal(self) -> None:
        fill = self.fill(CONTENT)
        self.patch(Path, "unlink", self.broken)
        fill.fail(Failure(Broke()))
        self.workers.all()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.check_closed()


class SourceTests(FillCase):
    """Sources wait for the disk."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(fill_module, "HIGH", 10)
        self.patch(fill_module, "LOW", 5)
        self.source = Source()

    def test_waits(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT))
        fill.attach(self.source)
        fill.write(0, CONTENT[:8])
        self.assertEqual(self.source.told, [])
        fill.write(8, CONTENT[8:12])
        fill.write(12, CONTENT[12:])
        self.assertEqual(self.source.told, ["pause"])
        self.workers.step()
        self.assertEqual(self.source.told, ["pause"])
        self.workers.step()
        self.assertEqual(self.source.told, ["pause", "resume"])
        self.workers.all()
        self.check_kept(CONTENT)

    def test_comes_while_others_wait(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT))
        fill.write(0, CONTENT[:11])
        fill.attach(self.source)
        self.assertEqual(self.source.told, ["pause"])
        self.workers.all()
        self.assertEqual(self.source.told, ["pause", "resume"])
        fill.fail(Failure(Broke()))
        self.workers.all()

    def test_leaves_while_it_waits(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT))
        fill.attach(self.source)
        fill.write(0, CONTENT[:11])
        fill.detach(self.source)
        self.workers.all()
        self.assertEqual(self.source.told, ["pause"])
        fill.fail(Failure(Broke()))
        self.workers.all()

    def test_brings_too_much_when_resumed(self) -> None:
        """Then the others are not resumed at all."""
        fill = self.fill(CONTENT, len(CONTENT))
        sources = [Source(), Source(), Source()]
        for source in sources:
            source.then = lambda: fill.write(11, CONTENT[11:])
            fill.attach(source)
        fill.write(0, CONTENT[:11])
        self.workers.step()
        self.assertEqual(sum(source.told[-1] == "pause" for source in sources), 3)
        self.assertEqual(sum("resume" in source.told for source in sources), 1)
        self.workers.all()
        self.assertEqual([source.told[-1] for source in sources], ["resume"] * 3)
        self.check_kept(CONTENT)

    def test_fails_when_resumed(self) -> None:
        fill = self.fill(CONTENT)
        self.source.then = lambda: fill.fail(Failure(Broke()))
        fill.attach(self.source)
        fill.write(0, CONTENT)
        self.workers.all()
        self.failureResultOf(fill.when_ended(), Broke)
        self.check_nothing_left()


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
        changed = reader.when_readable(0, None)
        fill.write(0, CONTENT[:5])
        self.assertEqual(reader.readable(0), 0)
        self.assertNoResult(changed)
        self.workers.step()
        self.successResultOf(changed)
        self.assertEqual([reader.readable(at) for at in (0, 3, 5, 9)], [5, 2, 0, 0])
        self.assertEqual(self.successResultOf(reader.read(1, 3)), CONTENT[1:4])
        fill.fail(Failure(Broke()))
        self.assertEqual(reader.readable(0), 0)
        self.failureResultOf(reader.when_readable(0, None), Broke)
        reader.close()
        self.workers.all()
        self.check_nothing_left()

    def test_fails_under_a_read(self) -> None:
        """Nothing of it is given out any more."""
        self.patch(os, "preadv", lambda *_: 0)
        fill = self.fill(CONTENT, len(CONTENT))
        reader = fill.reader()
        fill.write(0, CONTENT[:5])
        self.workers.all()
        reading = reader.read(0, 5)
        fill.fail(Failure(Broke()))
        self.workers.all()
        self.failureResultOf(reading, Broke)
        reader.close()
        self.check_nothing_left()

    def test_demand(self) -> None:
        """It is made by those who wait for bytes, and whoever meets it at once wakes them."""
        fill = self.fill(CONTENT, len(CONTENT))
        reader = fill.reader()
        demands: list[tuple[int, int | None]] = []

        def demanded(offset: int, end: int | None) -> None:
            demands.append((offset, end))
            fill.write(offset, CONTENT[offset:end])
            self.workers.step()

        fill.demand = demanded
        self.successResultOf(reader.when_readable(10, 20))
        waiting = reader.when_readable(12, 20)
        self.assertEqual(demands, [(10, 20)])
        reader.close()
        fill.fail(Failure(Broke()))
        self.failureResultOf(waiting, Broke)
        self.workers.all()

    def test_deserted(self) -> None:
        """When the last reader has left, once; not when it is over."""
        fill = self.fill(CONTENT, len(CONTENT))
        times: list[int] = []
        fill.deserted = lambda: times.append(1)
        one, other = fill.reader(), fill.reader()
        one.close()
        one.close()
        self.assertEqual(len(times), 0)
        other.close()
        self.assertEqual(len(times), 1)
        last = fill.reader()
        fill.fail(Failure(Broke()))
        last.close()
        self.assertEqual(len(times), 1)
        self.workers.all()

    def test_outlives_the_fill(self) -> None:
        fill = self.fill(CONTENT, len(CONTENT))
        reader = fill.reader()
        fill.write(0, CONTENT)
        self.workers.all()
        self.directory.path(fill.digest).unlink()
        self.assertEqual(self.successResultOf(reader.read(0, 100)), CONTENT)
        reader.close()
        self.check_nothing_left()

    def test_closed_twice(self) -> None:
        """The second time, it would be another reader's file."""
        fill = self.fill(CONTENT, len(CONTENT))
        one, other = fill.reader(), fill.reader()
        one.close()
        one.close()
        fill.write(0, CONTENT)
        self.workers.all()
        self.assertEqual(self.successResultOf(other.read(0, 100)), CONTENT)
        other.close()
        self.check_kept(CONTENT)

from __future__ import annotations

import errno
import fcntl
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest
from regproxy.policy.spans import Spans
from regproxy.store.partial import Partial, joined, resumable, sweep
from tests.support.descriptors import open_below

CONTENT = bytes(range(100))
DIGEST = Digest.of(CONTENT)
NAME = f"{DIGEST.algorithm}-{DIGEST.hex}.part"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
SIDE_CARS = st.binary(max_size=20) | st.fixed_dictionaries({"size": JSON, "stored": JSON}).map(
    lambda content: json.dumps(content).encode()
)
SPANS = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=6).map(Spans)


class PartialCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.prepare()

    def prepare(self) -> None:
        self.fills = Path(self.mktemp())
        self.fills.mkdir()
        self.path = self.fills / NAME
        self.side_car = self.fills / f"{NAME}.json"

    def open(self, size: int | None = None) -> Partial:
        return Partial.open(self.fills, DIGEST, size)

    def close(self, *partials: Partial) -> None:
        """As the end of a process does."""
        for partial in partials:
            os.close(partial.descriptor)
        self.assertEqual(open_below(self.fills), [])

    def leave(self, stored: Spans, size: int | None = len(CONTENT)) -> None:
        """Leave a partial file that has *stored*."""
        partial = self.open(size)
        partial.write([(start, CONTENT[start:end]) for start, end in stored])
        partial.put_away(size, stored)
        self.close(partial)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.fills.iterdir())


class OpenTests(PartialCase):
    def test_new(self) -> None:
        partial = self.open(7)
        self.assertEqual((partial.path, partial.stored, partial.size), (self.path, Spans(), 7))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o644)
        self.close(partial)

    @given(SPANS, st.sampled_from([None, len(CONTENT)]), st.sampled_from([None, len(CONTENT)]))
    def test_earlier_one(self, stored: Spans, noted: int | None, announced: int | None) -> None:
        self.prepare()
        self.leave(stored, noted)
        self.assertEqual(resumable(self.fills, DIGEST), stored.run(0))
        partial = self.open(announced)
        self.assertEqual(partial.stored, stored)
        if stored.total:
            self.assertEqual(partial.size, noted or announced)
        for start, end in stored:
            self.assertEqual(os.pread(partial.descriptor, end - start, start), CONTENT[start:end])
        self.close(partial)

    def test_of_another_size(self) -> None:
        """Of no use, and no later process may believe in it."""
        for noted, announced in ((100, 99), (100, 101), (None, 59)):
            self.prepare()
            self.leave(Spans([(0, 10), (50, 60)]), noted)
            partial = self.open(announced)
            self.assertEqual((partial.stored, partial.size), (Spans(), announced))
            self.close(partial)
            self.assertEqual(resumable(self.fills, DIGEST), 0)

    def test_somebody_has_it(self) -> None:
        """Each writes a file of its own; the later one's is not gone on with."""
        first = self.open()
        second = self.open(5)
        self.assertNotEqual(first.path, second.path)
        self.assertEqual((second.stored, second.size, second.lasting), (Spans(), 5, False))
        self.assertEqual(second.path.stat().st_mode & 0o777, 0o644)
        second.write([(0, b"abc")])
        second.note(5, Spans([(0, 3)]))
        second.put_away(5, Spans([(0, 3)]))
        self.assertEqual(self.files(), [NAME])
        self.close(first, second)

    def test_lock_ends_with_its_process(self) -> None:
        first = self.open()
        first.write([(0, CONTENT[:10])])
        first.note(100, Spans([(0, 10)]))
        self.close(first)
        second = self.open()
        self.assertEqual((second.path, second.stored.run(0)), (self.path, 10))
        self.close(second)

    def test_put_away_between_opening_and_locking(self) -> None:
        """The lock on a file that is gone is worth nothing."""
        first = self.open()
        flock = fcntl.flock

        def late(descriptor: int, operation: int) -> None:
            patch.restore()
            first.put_away(None, Spans())
            flock(descriptor, operation)

        patch = self.patch(fcntl, "flock", late)
        second = self.open()
        self.assertFalse(second.lasting)
        self.close(first, second)

    def test_disk_fails(self) -> None:
        """Whatever fails, the file is closed."""

        def broken(*_: object) -> Any:
            raise OSError(errno.EIO, "broken")

        for name in ("utime", "fstat"):
            patch = self.patch(os, name, broken)
            self.assertRaises(OSError, self.open)
            patch.restore()
            self.assertEqual(open_below(self.fills), [])

    @given(SIDE_CARS, st.none() | st.integers(0, 100))
    def test_side_car_that_is_torn_or_lies(self, content: bytes, announced: int | None) -> None:
        """Only what the file can have is believed."""
        self.prepare()
        self.path.write_bytes(CONTENT[:60])
        self.side_car.write_bytes(content)
        partial = self.open(announced)
        most = 60 if partial.size is None else min(60, partial.size)
        self.assertTrue(all(0 <= start < end <= most for start, end in partial.stored))
        if announced is not None:
            self.assertEqual(partial.size, announced)
        self.close(partial)

    def test_side_cars_that_cannot_be_read(self) -> None:
        for content in (b"[" * 100_000, b'{"size": 1e999, "stored": [[0, 1e999]]}', b"\xff", b""):
            self.path.write_bytes(CONTENT)
            self.side_car.write_bytes(content)
            partial = self.open()
            self.assertEqual((partial.stored, partial.size), (Spans(), None))
            self.close(partial)

    def test_side_car_without_its_file(self) -> None:
        self.leave(Spans([(0, 10)]))
        self.path.unlink()
        self.assertEqual(resumable(self.fills, DIGEST), 0)
        partial = self.open()
        self.assertEqual(partial.stored, Spans())
        self.close(partial)


class PutAwayTests(PartialCase):
    def test_next_one_need_not_wait_for_the_last_reader(self) -> None:
        first = self.open()
        first.write([(0, CONTENT[:10])])
        first.put_away(100, Spans([(0, 10)]))
        second = self.open()
        self.assertEqual((second.path, second.stored), (self.path, Spans([(0, 10)])))
        self.close(first, second)

    def test_nothing_to_keep(self) -> None:
        self.leave(Spans([(0, 10)]))
        partial = self.open()
        partial.put_away(100, Spans())
        self.assertEqual(self.files(), [])
        self.close(partial)

    def test_what_is_there_by_now_is_somebody_elses(self) -> None:
        first = self.open()
        self.path.unlink()
        second = self.open()
        first.put_away(None, Spans())
        self.assertTrue(self.path.exists())
        self.close(first, second)

    def test_note_fails(self) -> None:
        """The earlier one stays, and nothing is left of the new one."""
        self.leave(Spans([(0, 10)]))
        partial = self.open()

        def broken(*_: object) -> Any:
            raise OSError(errno.ENOSPC, "full")

        self.patch(Path, "replace", broken)
        self.assertRaises(OSError, partial.note, 100, Spans([(0, 20)]))
        self.assertEqual(self.files(), [NAME, self.side_car.name])
        self.assertEqual(resumable(self.fills, DIGEST), 10)
        self.close(partial)


class BecomeTests(PartialCase):
    def test_whole(self) -> None:
        self.leave(Spans([(0, 10)]))
        partial = self.open()
        final = Path(self.mktemp())
        partial.become(final)
        self.assertTrue(final.exists())
        self.assertEqual(self.files(), [])
        self.close(partial)

    def test_never_what_somebody_else_writes(self) -> None:
        first = self.open()
        self.path.unlink()
        final = Path(self.mktemp())
        self.assertRaises(OSError, first.become, final)
        second = self.open()
        self.assertRaises(OSError, first.become, final)
        self.assertFalse(final.exists())
        self.close(first, second)


class BytesTests(PartialCase):
    @given(
        st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=8)), max_size=8),
        st.integers(1, 7),
    )
    def test_write_though_the_system_stops_short(
        self, pieces: list[tuple[int, bytes]], most: int
    ) -> None:
        self.prepare()
        partial = self.open()
        expected = bytearray(100)
        for offset, data in pieces:
            expected[offset : offset + len(data)] = data
        real = os.pwrite
        patch = self.patch(os, "pwrite", lambda fd, data, at: real(fd, data[:most], at))
        partial.write(pieces)
        patch.restore()
        written = os.pread(partial.descriptor, 100, 0)
        self.assertEqual(written, bytes(expected[: len(written)]))
        stored = joined(Spans(), pieces)
        self.assertEqual(max((end for _, end in stored), default=0), len(written))
        self.close(partial)

    @given(st.integers(0, 100), st.integers(0, 100), st.data())
    def test_read_back(self, start: int, end: int, data: st.DataObject) -> None:
        """Some from memory, the rest from the file."""
        self.prepare()
        partial = self.open()
        partial.write([(0, CONTENT)])
        cuts = sorted(data.draw(st.sets(st.integers(0, 100))))
        known = {one: CONTENT[one:two] for one, two in pairwise(cuts)}
        chunks = b"".join(partial.read_back(known, start, end))
        self.assertEqual(chunks, CONTENT[start:end])
        self.close(partial)

    def test_file_is_shorter_than_it_was(self) -> None:
        partial = self.open()
        partial.write([(0, CONTENT[:10])])
        self.assertRaises(OSError, list, partial.read_back({}, 0, 11))
        self.close(partial)


class SweepTests(PartialCase):
    def age(self, path: Path, when: float) -> None:
        os.utime(path, (when, when))

    def test_old_ones(self) -> None:
        self.leave(Spans([(0, 10)]))
        self.age(self.path, 100)
        for name, when in (("old", 100), ("new", 300)):
            self.fills.joinpath(name).touch()
            self.age(self.fills / name, when)
        self.assertEqual(sweep(self.fills, 200), 2)
        self.assertEqual(self.files(), ["new"])
        self.assertEqual(open_below(self.fills), [])

    def test_not_what_somebody_writes(self) -> None:
        """However long that is ago."""
        partial = self.open()
        self.age(self.path, 100)
        self.assertEqual(sweep(self.fills, 200), 0)
        self.close(partial)

    def test_side_car_goes_with_its_file(self) -> None:
        self.leave(Spans([(0, 10)]))
        self.age(self.side_car, 100)
        self.assertEqual(sweep(self.fills, 200), 0)
        self.path.unlink()
        self.assertEqual(sweep(self.fills, 200), 1)
        self.assertEqual(self.files(), [])

    def test_gone_on_with(self) -> None:
        """What is opened is young again."""
        self.leave(Spans([(0, 10)]))
        self.age(self.path, 100)
        self.close(self.open())
        self.assertEqual(sweep(self.fills, 200), 0)

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.policy.integrity import ContentRecord
from regproxy.store.errors import IndexFailed
from regproxy.store.index import LAG, VARIANTS, Index, TagEntry, TagKey
from regproxy.store.inventory import KEYS
from tests.support.workers import Later, Now

HOST = Host("registry.example.test")
OTHER_HOST = Host("registry.example.test", 5000)
DEBIAN = Repository("library/debian")
ALPINE = Repository("library/alpine")
LATEST = Tag("latest")
ONE, TWO = Digest.of(b"one"), Digest.of(b"two", "sha512")
TYPE = "application/vnd.oci.image.manifest.v1+json"


def record(digest: Digest, size: int, when: float) -> ContentRecord:
    """What there is of content that was just stored."""
    return ContentRecord(digest, size, when, when, when, changed=7)


class IndexCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "index.sqlite3"

    def open(self) -> Index:
        """The index, opened as by a process of its own."""
        index = Index(self.path, Now())
        index.open()
        self.addCleanup(index.close)
        return index


class TagTests(IndexCase):
    def test_every_part_of_the_key_counts(self) -> None:
        index = self.open()
        key = TagKey(HOST, DEBIAN, LATEST, "a/b")
        index.put_tag(key, TagEntry(ONE, TYPE, 1.0))
        for other in (
            TagKey(OTHER_HOST, DEBIAN, LATEST, "a/b"),
            TagKey(HOST, ALPINE, LATEST, "a/b"),
            TagKey(HOST, DEBIAN, Tag("stable"), "a/b"),
            TagKey(HOST, DEBIAN, LATEST, "a/c"),
        ):
            self.assertIsNone(index.tag(other))
        self.assertEqual(index.tag(key), TagEntry(ONE, TYPE, 1.0))

    def test_drop(self) -> None:
        index = self.open()
        keys = [TagKey(HOST, DEBIAN, LATEST, accept) for accept in ("a/b", "a/c")]
        kept = TagKey(HOST, ALPINE, LATEST, "a/b")
        for key in (*keys, kept):
            index.put_tag(key, TagEntry(ONE, TYPE, 1.0))
        self.successResultOf(index.drop_tag(HOST, DEBIAN, LATEST))
        self.assertEqual([index.tag(key) for key in keys], [None, None])
        self.assertIsNotNone(index.tag(kept))

    def test_variants(self) -> None:
        """The latest first; clients cannot make it more than some."""
        index = self.open()
        for number in range(VARIANTS + 5):
            key = TagKey(HOST, DEBIAN, LATEST, f"a/{number}")
            index.put_tag(key, TagEntry(ONE, f"b/{number}", float(number)))
        found = index.variants(HOST, DEBIAN, LATEST)
        self.assertEqual(
            [entry.media_type for entry in found],
            [f"b/{number}" for number in reversed(range(5, VARIANTS + 5))],
        )

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([HOST, OTHER_HOST]),
                st.sampled_from([DEBIAN, ALPINE]),
                st.sampled_from(["", "*/*"]),
                st.sampled_from([ONE, TWO]),
                st.floats(0, 1e10),
            )
        )
    )
    def test_last_write_is_read(
        self, writes: list[tuple[Host, Repository, str, Digest, float]]
    ) -> None:
        """By the process that wrote it and by another one."""
        self.path.unlink(missing_ok=True)
        writer, reader = Index(self.path, Now()), Index(self.path, Now())
        writer.open()
        reader.open()
        expected = {}
        try:
            for host, repository, accept, digest, when in writes:
                key = TagKey(host, repository, LATEST, accept)
                expected[key] = TagEntry(digest, TYPE, when)
                self.successResultOf(writer.put_tag(key, expected[key]))
                for key, entry in expected.items():
                    self.assertEqual(writer.tag(key), entry)
                    self.assertEqual(reader.tag(key), entry)
        finally:
            writer.close()
            reader.close()


class ContentTests(IndexCase):
    def test_membership(self) -> None:
        index = self.open()
        self.assertIsNone(index.membership(HOST, DEBIAN, ONE))
        index.put_membership(HOST, DEBIAN, ONE, "a/b")
        index.put_membership(HOST, DEBIAN, ONE, TYPE)
        self.assertEqual(index.membership(HOST, DEBIAN, ONE), TYPE)
        self.assertIsNone(index.membership(HOST, ALPINE, ONE))
        self.assertIsNone(index.membership(OTHER_HOST, DEBIAN, ONE))
        self.assertIsNone(index.membership(HOST, DEBIAN, TWO))

    def test_content(self) -> None:
        index = self.open()
        self.assertIsNone(index.content(ONE))
        index.put_content(record(ONE, 3, 10.0))
        self.assertEqual(index.content(ONE), record(ONE, 3, 10.0))
        # It is stored anew: nothing of what was known holds.
        index.put_content(record(ONE, 4, 20.0))
        self.assertEqual(index.content(ONE), record(ONE, 4, 20.0))

    def test_last_access(self) -> None:
        index = self.open()
        self.assertIsNone(index.last_access(ONE))
        index.put_content(record(ONE, 3, 10.0))
        index.put_content(record(TWO, 3, 10.0))
        self.assertEqual(index.last_access(ONE), 10.0)
        index.touch({str(ONE): 20.0, str(Digest.of(b"evicted meanwhile")): 20.0})
        self.assertEqual((index.last_access(ONE), index.last_access(TWO)), (20.0, 10.0))
        index.put_content(record(TWO, 3, 30.0))
        self.assertEqual(index.last_access(TWO), 30.0)


class UseTests(IndexCase):
    """When a row about a tag or a repository was last used, to the day."""

    def setUp(self) -> None:
        super().setUp()
        self.time = 1e9
        self.key = TagKey(HOST, DEBIAN, LATEST, "a/b")
        self.index = Index(self.path, Now(), lambda: self.time)
        self.index.open()
        self.addCleanup(self.index.close)
        self.index.put_tag(self.key, TagEntry(ONE, TYPE, 1.0))
        self.index.put_membership(HOST, DEBIAN, ONE, TYPE)
        self.index.put_public(HOST, DEBIAN, 1.0)

    def look_up(self) -> None:
        self.index.tag(self.key)
        self.index.membership(HOST, DEBIAN, ONE)
        self.index.public_at(HOST, DEBIAN)

    def flush(self) -> None:
        self.successResultOf(ensureDeferred(self.index.flush()))

    def used_at(self) -> set[float]:
        with closing(sqlite3.connect(self.path)) as other:
            return {other.execute(f"SELECT used_at FROM {table}").fetchone()[0] for table in KEYS}

    def test_put(self) -> None:
        self.assertEqual(self.used_at(), {1e9})

    def test_looked_up(self) -> None:
        self.time += LAG
        self.look_up()
        self.flush()
        self.assertEqual(self.used_at(), {self.time})

    def test_not_looked_up(self) -> None:
        self.time += LAG
        self.index.tag(TagKey(HOST, DEBIAN, LATEST, ""))
        self.index.membership(HOST, DEBIAN, TWO)
        self.index.public_at(HOST, ALPINE)
        self.flush()
        self.assertEqual(self.used_at(), {1e9})

    def test_to_the_day(self) -> None:
        """So that uses do not cost a write each."""
        self.time += LAG - 1.0
        self.look_up()
        self.flush()
        self.assertEqual(self.used_at(), {1e9})

    def test_variants(self) -> None:
        self.time += LAG
        self.index.variants(HOST, DEBIAN, LATEST)
        self.flush()
        self.assertEqual(self.used_at(), {1e9, self.time})

    def test_clock_was_set_back(self) -> None:
        self.time -= 1.0
        self.look_up()
        self.flush()
        self.assertEqual(self.used_at(), {self.time})

    def test_not_recorded(self) -> None:
        """It is the next time."""
        self.time += LAG
        self.look_up()
        with closing(sqlite3.connect(self.path)) as other:
            other.execute("ALTER TABLE tag RENAME TO away")
            self.failureResultOf(ensureDeferred(self.index.flush()), IndexFailed)
            other.execute("ALTER TABLE away RENAME TO tag")
        self.assertEqual(self.used_at(), {1e9})
        self.flush()
        self.assertEqual(self.used_at(), {self.time})


class ConcurrencyTests(IndexCase):
    def test_writes_are_done_by_the_workers(self) -> None:
        workers = Later()
        index = Index(self.path, workers)
        index.open()
        self.addCleanup(index.close)
        writing = index.put_content(record(ONE, 3, 10.0))
        self.assertIsNone(index.last_access(ONE))
        self.assertNoResult(writing)
        workers.all()
        self.successResultOf(writing)
        self.assertEqual(index.last_access(ONE), 10.0)

    def test_two_processes_write(self) -> None:
        first, second = self.open(), self.open()
        for number in range(10):
            for index in (first, second):
                digest = Digest.of(b"%d" % number)
                self.successResultOf(index.put_content(record(digest, number, float(number))))
        self.assertEqual(second.last_access(Digest.of(b"9")), 9.0)

    def test_read_while_another_process_writes(self) -> None:
        """Readers never wait for the writer."""
        index = self.open()
        index.put_content(record(ONE, 3, 10.0))
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM content")
        self.assertEqual(index.last_access(ONE), 10.0)

    def test_read_fails(self) -> None:
        index = self.open()
        other = sqlite3.connect(self.path)
        other.execute("DROP TABLE content")
        other.close()
        error = self.assertRaises(IndexFailed, index.last_access, ONE)
        self.assertIn(str(self.path), str(error))

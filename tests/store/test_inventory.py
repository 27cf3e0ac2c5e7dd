from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord
from regproxy.store.errors import IndexFailed
from regproxy.store.index import Index
from regproxy.store.inventory import Key, Total
from tests.support.workers import Later, Now


def record(number: int, size: int = 1, when: float = 0.0, verified: float = 0.0) -> ContentRecord:
    """Some content."""
    return ContentRecord(Digest("sha256", f"{number:064x}"), size, when, when, verified, 0)


class InventoryCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "index.sqlite3"
        self.index = Index(self.path, Now())
        self.index.open()
        self.addCleanup(self.index.close)
        self.inventory = self.index.inventory

    def put(self, *records: ContentRecord) -> None:
        for each in records:
            self.successResultOf(self.index.put_content(each))

    def walk(
        self, step: Callable[[ContentRecord | None], Deferred[list[ContentRecord]]]
    ) -> list[ContentRecord]:
        """All pages."""
        walked: list[ContentRecord] = []
        while page := self.successResultOf(step(walked[-1] if walked else None)):
            walked += page
        return walked

    def oldest(self, limit: int = 2) -> list[ContentRecord]:
        return self.walk(lambda after: self.inventory.oldest(after, limit))


class OrderTests(InventoryCase):
    def test_oldest(self) -> None:
        """By last use, several at the same time included."""
        records = [record(n, when=when) for n, when in enumerate((5.0, 1.0, 5.0, 5.0, 2.0))]
        self.put(*records)
        expected = [records[number] for number in (1, 4, 0, 2, 3)]
        for limit in (1, 2, 3, 10):
            self.assertEqual(self.oldest(limit), expected)

    def test_pinned(self) -> None:
        self.put(record(1), record(2))
        self.pin(record(1), True)
        self.assertEqual(self.oldest(), [record(2)])
        # Stored anew, it stays pinned.
        self.put(record(1))
        self.assertEqual(self.oldest(), [record(2)])
        self.pin(record(1), False)
        self.assertEqual(self.oldest(), [record(1), record(2)])

    def pin(self, record: ContentRecord, pinned: bool) -> None:
        """As :mod:`regproxy.store.cataloguing` does."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            statement = "UPDATE content SET pinned = ? WHERE digest = ?"
            connection.execute(statement, (pinned, str(record.digest)))

    def test_due(self) -> None:
        records = [record(n, verified=verified) for n, verified in enumerate((3.0, 0.0, 2.0, 2.0))]
        self.put(*records)
        due = self.walk(lambda after: self.inventory.due(after, 3.0))
        self.assertEqual(due, [records[number] for number in (1, 2, 3)])

    def test_records(self) -> None:
        records = [record(number) for number in range(3)]
        self.put(*records[:2])
        found = self.inventory.records(str(each.digest) for each in records)
        self.assertEqual(self.successResultOf(found), records[:2])

    def compare(self, beginning: str, *here: str) -> tuple[set[str], set[str]]:
        return self.successResultOf(self.inventory.compare("sha256", beginning, set(here)))

    def test_compare(self) -> None:
        """Only what has the beginning, and what it is given."""
        first, second, last = (f"{beginning:<064}" for beginning in ("ab", "ab1", "ac"))
        for name in first, second, last, "ab" + "f" * 62:
            self.put(ContentRecord(Digest("sha256", name), 1, 0.0, 0.0, 0.0, 0))
        self.put(ContentRecord(Digest("sha512", "ab" * 64), 1, 0.0, 0.0, 0.0, 0))
        self.assertEqual(
            self.compare("ab", first, "ab" + "f" * 62, "strange"), ({"strange"}, {second})
        )
        self.assertEqual(self.compare("ac"), (set(), {last}))
        self.assertEqual(self.compare("aa"), (set(), set()))


class ChangeTests(InventoryCase):
    def test_adopt(self) -> None:
        """What is known is known better."""
        self.put(record(1, 10, 5.0, 5.0))
        adopting = self.inventory.adopt([record(1, 11), record(2, 12)])
        self.assertEqual(self.successResultOf(adopting), 1)
        self.assertEqual(self.oldest(), [record(2, 12), record(1, 10, 5.0, 5.0)])

    def test_forget(self) -> None:
        """Not what was stored anew meanwhile; what was used meanwhile, yes."""
        self.put(*(record(number, when=1.0) for number in (1, 2, 3)))
        seen = self.oldest()
        self.put(record(2, when=2.0))
        self.index.touch({str(record(3).digest): 9.0})
        self.successResultOf(self.inventory.forget(seen))
        self.assertEqual(self.oldest(), [record(2, when=2.0)])

    def test_verified(self) -> None:
        self.put(record(1, 10, 5.0, 5.0))
        found = ContentRecord(record(1).digest, 11, 8.0, 8.0, 9.0, 77)
        self.successResultOf(self.inventory.verified(found))
        self.assertEqual(
            self.index.content(found.digest),
            ContentRecord(found.digest, 11, 5.0, 5.0, 9.0, 77),
        )

    def test_verified_without_a_row(self) -> None:
        found = ContentRecord(record(1).digest, 11, 8.0, 8.0, 9.0, 77)
        self.successResultOf(self.inventory.verified(found))
        self.assertEqual(self.index.content(found.digest), found)

    def test_failure(self) -> None:
        with closing(sqlite3.connect(self.path)) as other:
            other.execute("DROP TABLE total")
        self.failureResultOf(self.inventory.total(), IndexFailed)
        self.failureResultOf(self.inventory.forget([record(1)]), IndexFailed).trap(IndexFailed)

    def test_not_in_the_reactor_thread(self) -> None:
        workers = Later()
        index = Index(self.path, workers)
        index.open()
        self.addCleanup(index.close)
        inventory = index.inventory
        results: list[Deferred[Any]] = [
            inventory.total(),
            inventory.oldest(None, 1),
            inventory.due(None, 1.0),
            inventory.compare("sha256", "00", set()),
            inventory.records([str(record(1).digest)]),
            inventory.forget_useless("tag", None, 0.0, 0.0, 1),
            inventory.adopt([record(1)]),
            inventory.forget([record(1)]),
            inventory.verified(record(1)),
        ]
        self.assertEqual(len(workers), len(results))
        workers.all()
        for result in results:
            self.successResultOf(result)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "adopt", "forget", "verified", "touch"]),
                st.integers(1, 4),
                st.integers(0, 100),
            )
        )
    )
    def test_total(self, changes: list[tuple[str, int, int]]) -> None:
        """Whatever is done, it is what adding up would give; another process sees it too."""
        self.inventory.forget(self.oldest())
        other = Index(self.path, Now())
        other.open()
        try:
            for number, (change, which, size) in enumerate(changes):
                inventory = (self.inventory, other.inventory)[number % 2]
                each = record(which, size)
                known = self.index.content(each.digest)
                match change:
                    case "put":
                        self.put(each)
                    case "adopt":
                        inventory.adopt([each])
                    case "forget":
                        inventory.forget([known] if known else [])
                    case "verified":
                        inventory.verified(each)
                    case _:
                        self.index.touch({str(each.digest): 0.0})
                records = self.oldest()
                expected = Total(sum(each.size for each in records), len(records))
                self.assertEqual(self.successResultOf(other.inventory.total()), expected)
        finally:
            other.close()


class ForgetTests(InventoryCase):
    """Rows about upstream, in steps; the rule is tested with :mod:`regproxy.store.forgetting`."""

    KEY = ("host", "repository", "tag", "")

    def put_tags(self, *used_at: float) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany(
                "INSERT INTO tag VALUES ('host', 'repository', ?, '', 'digest', 'type', 0, ?)",
                [(f"tag{number}", when) for number, when in enumerate(used_at)],
            )

    def tags(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [tag for (tag,) in connection.execute("SELECT tag FROM tag")]

    def forget(self, after: Key | None, limit: int) -> tuple[Key | None, int]:
        return self.successResultOf(self.inventory.forget_useless("tag", after, 5.0, 5.0, limit))

    def test_steps(self) -> None:
        self.put_tags(1.0, 9.0, 1.0, 1.0, 9.0)
        last, count = self.forget(None, 2)
        self.assertEqual((last, count), (("host", "repository", "tag1", ""), 1))
        last, count = self.forget(last, 2)
        self.assertEqual((last, count), (("host", "repository", "tag3", ""), 2))
        last, count = self.forget(last, 2)
        self.assertEqual((last, count), (("host", "repository", "tag4", ""), 0))
        self.assertEqual(self.forget(last, 2), (None, 0))
        self.assertEqual(self.tags(), ["tag1", "tag4"])

    def test_used_meanwhile(self) -> None:
        """By another process, between the look and the deletion."""
        self.put_tags(1.0, 1.0)
        database = self.inventory._database
        used = "UPDATE tag SET used_at = 9 WHERE tag = 'tag1'"

        def other(statement: str) -> None:
            if statement.startswith("BEGIN"):
                with closing(sqlite3.connect(self.path)) as connection, connection:
                    connection.execute(used)

        database._writer.set_trace_callback(other)
        self.forget(None, 9)
        self.assertEqual(self.tags(), ["tag1"])

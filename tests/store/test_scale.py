"""A store with much in it: no table is scanned, nothing is sorted, nothing held in memory."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tracemalloc
from collections.abc import Callable, Coroutine
from contextlib import closing
from functools import partial
from typing import Any

from twisted.internet.defer import ensureDeferred

from regproxy.config.model import DAY, CacheSection
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.policy.integrity import ContentRecord
from regproxy.store.catalog import Key, Order
from regproxy.store.database import Database
from regproxy.store.eviction import Eviction
from regproxy.store.forgetting import Forgetting
from regproxy.store.index import TagEntry, TagKey
from regproxy.store.inventory import INSERT, KEYS
from regproxy.store.reconciliation import Reconciled, Reconciliation
from tests.support.caches import CacheCase
from tests.support.workers import no_pause

HOST = Host("registry.example.test")
TYPE = "application/vnd.oci.image.manifest.v1+json"
OTHER_TYPE = "application/vnd.oci.image.index.v1+json"


class ScaleCase(CacheCase):
    """COUNT blobs with a row in each table, used one after the other."""

    COUNT = 20_000

    def setUp(self) -> None:
        super().setUp()
        self.time = 1e9
        self.digests = [Digest.of(b"%d" % number) for number in range(self.COUNT)]
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index, index:
            index.executemany(
                INSERT,
                (
                    (str(digest), 10, 1.0, self.time + number, self.time + number, 0)
                    for number, digest in enumerate(self.digests)
                ),
            )
            rows = [
                (str(HOST), str(self.repository(number)), str(digest), number)
                for number, digest in enumerate(self.digests)
            ]
            index.executemany(
                "INSERT INTO membership VALUES (?1, ?2, ?3, '', ?4 + 1e9)",
                rows,
            )
            index.executemany(
                "INSERT INTO tag VALUES (?1, ?2, 'tag' || ?4, '', ?3, '', 1.0, ?4 + 1e9)", rows
            )
            index.executemany(
                "INSERT OR IGNORE INTO public VALUES (?1, ?2, 1.0, 1e9)", (row[:2] for row in rows)
            )
            # As if each were an image, and every tenth an index of the nine that follow it.
            index.execute("DELETE FROM pending")
            index.execute(
                "UPDATE image SET shown = TRUE, bytes = abs(random()) % 1000, last_used = 1e9"
            )
            index.executemany(
                "INSERT INTO part VALUES (?, ?, FALSE)",
                (
                    (str(self.digests[number - number % 10]), str(digest))
                    for number, digest in enumerate(self.digests)
                    if number % 10
                ),
            )
        self.time += self.COUNT

    def repository(self, number: int) -> Repository:
        return Repository(f"team{number % 100}/application")


class StatementTests(ScaleCase):
    def record(self, number: int) -> ContentRecord:
        found = self.index.content(self.digests[number])
        assert found is not None
        return found

    def calls(self) -> list[Callable[[], object]]:
        """Everything that the index can be asked for."""
        middle = self.record(self.COUNT // 2)
        digest, repository, tag = middle.digest, self.repository(self.COUNT // 2), Tag("tag")
        key = TagKey(HOST, repository, tag, "")
        used = Tag(f"tag{self.COUNT // 2}")
        catalog, curation = self.index.catalog, self.index.curation
        cataloguing = self.index.cataloguing(self.directory, self.workers)
        entry = TagEntry(digest, TYPE, 1.0)
        index, inventory = self.index, self.inventory
        at = middle.last_access
        return [
            lambda: index.put_tag(key, entry),
            lambda: index.tag(key),
            lambda: index.variants(HOST, repository, tag),
            lambda: index.drop_tag(HOST, repository, tag),
            lambda: index.put_membership(HOST, repository, digest, TYPE),
            lambda: index.membership(HOST, repository, digest),
            lambda: index.knows(HOST),
            lambda: index.public_at(HOST, repository),
            lambda: index.put_public(HOST, repository, 1.0),
            lambda: index.put_public(HOST, repository, None),
            lambda: index.put_content(middle),
            lambda: index.content(digest),
            lambda: index.last_access(digest),
            lambda: index.touch({str(digest): at}),
            lambda: ensureDeferred(index.flush()),
            lambda: inventory.total(),
            lambda: inventory.oldest(middle, 32),
            lambda: inventory.due(middle, at + 1000.0),
            lambda: inventory.compare("sha256", "ab", {digest.hex}),
            lambda: inventory.records([str(digest)]),
            lambda: inventory.adopt([middle]),
            lambda: inventory.forget([middle]),
            lambda: inventory.verified(middle),
            lambda: index.put_membership(HOST, repository, digest, OTHER_TYPE),
            lambda: index.adopted_at(HOST, repository, digest),
            lambda: curation.pin(HOST, repository, used, True),
            lambda: catalog.image(HOST, repository, used),
            lambda: catalog.image(HOST, repository, digest),
            lambda: catalog.parts([digest]),
            lambda: ensureDeferred(catalog.blob(digest)),
            lambda: ensureDeferred(catalog.blobs((str(digest),), 100)),
            lambda: ensureDeferred(cataloguing.step()),
            lambda: curation.adopt(HOST, repository, {digest: TYPE}, (used, "", digest), at),
            lambda: curation.pin(HOST, repository, used, False),
            lambda: curation.release(HOST, repository, used),
            *(
                lambda table=table: inventory.forget_useless(
                    table, ("registry", *"z" * (len(KEYS[table]) - 1)), at, at, 32
                )
                for table in KEYS
            ),
        ]

    def lists(self) -> list[Callable[[], object]]:
        """The lists of images, for which the rows of some thousand are looked at."""
        repository, catalog = self.repository(50), self.index.catalog
        kinds: list[dict[str, Any]] = [
            {},
            {"host": HOST},
            {"host": HOST, "repository": repository},
            {"search": "application"},
            {"tagged": True},
        ]

        def page(order: Order, kind: dict[str, Any]) -> None:
            self.finish(catalog.images(order, self.key(order), 100, **kind))

        return [partial(page, order, kind) for order in Order for kind in kinds]

    def key(self, order: Order) -> Key:
        """Of an image in the middle."""
        name = str(HOST), str(self.repository(50)), "tag50", ""
        return name if order is Order.REFERENCE else (1e9, *name)

    def test_repositories(self) -> None:
        """A page of them costs what is in them, and no more."""
        for connection in self.connections():
            connection.set_progress_handler(self.count, 1000)
        self.thousands = 0
        found, _ = self.finish(self.index.catalog.repositories(None, 5))
        self.assertEqual([each.tags for each in found], [self.COUNT // 100] * 5)
        self.assertLess(self.thousands, 5 * self.COUNT // 100 * 60 // 1000)

    def connections(self) -> list[sqlite3.Connection]:
        database = self.index._database
        return [database._reader, database._writer]

    def test_plans(self) -> None:
        """Each statement finds its rows by an index of the database, and in its order."""
        statements: set[str] = set()
        for connection in self.connections():
            connection.set_trace_callback(statements.add)
        # So that all rows that are looked up count as used.
        self.time += 10 * DAY
        for call in [*self.lists(), *self.calls()]:
            call()
        for connection in self.connections():
            connection.set_trace_callback(None)
        plans = {}
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            index.execute("ANALYZE")
            for statement in statements:
                # What a trigger does is a comment.
                if not statement.startswith(("BEGIN", "COMMIT", "--")):
                    rows = index.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
                    plans[statement] = "; ".join(row[3] for row in rows)
        for word in ("tag", "membership", "public", "content", "DELETE", "UPDATE", "used_at = "):
            self.assertTrue(any(word in statement for statement in plans), word)
        for statement, plan in plans.items():
            with self.subTest(statement=statement):
                # One row, and a few.
                if "total" not in statement and "FROM pending" not in statement:
                    self.assertNotIn("SCAN", plan.replace("SCAN CONSTANT ROW", ""))
                # A few rows.
                if "repository=? AND tag=?" not in plan:
                    self.assertNotIn("TEMP B-TREE", plan)

    def test_work(self) -> None:
        """What a call costs does not depend on how much is stored."""
        for connection in self.connections():
            connection.set_progress_handler(self.count, 1000)
        for number, call in enumerate(self.calls()):
            self.thousands = 0
            call()
            self.assertLess(self.thousands, 5, number)

    def test_work_of_lists(self) -> None:
        """What is not found by an index of the database is looked for in many small steps."""
        for connection in self.connections():
            connection.set_progress_handler(self.count, 1000)
        run, most = Database.run, []

        def measured(database: Database, call: Callable[[sqlite3.Connection], Any]) -> Any:
            self.thousands = 0
            try:
                return run(database, call)
            finally:
                most.append(self.thousands)

        self.patch(Database, "run", measured)
        for call in self.lists():
            call()
        self.assertLess(max(most), 60)

    def count(self) -> None:
        self.thousands += 1


class MemoryTests(ScaleCase):
    """What goes through all of it holds little of it at a time."""

    COUNT = 4_000
    # Bytes for each blob. What does not depend on their number is two thirds of it; the
    # names of all files alone would be twice as much.
    LIMIT = 100

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(shutil.rmtree, self.root)
        # pathlib interns each part of a path. The interpreter's table of such strings is as large
        # as the tests before have made it, and grows in leaps.
        self.patch(sys, "intern", str)

    def put_files(self) -> None:
        for digest in self.digests:
            path = self.directory.path(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.truncate(path, 10)

    def peak(self, work: Callable[[], Coroutine[Any, Any, None]]) -> float:
        """Bytes for each blob that *work* needs at most."""
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            self.successResultOf(ensureDeferred(work()))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return (most - before) / self.COUNT

    def test_reconciliation(self) -> None:
        """Nothing to do, all to be adopted, all to be forgotten."""
        self.put_files()
        reconciliation = Reconciliation(self.directory, self.inventory, self.workers, no_pause)
        results = []

        async def run() -> None:
            results.append(await reconciliation.run())

        peaks = [self.peak(run)]
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index, index:
            index.execute("DELETE FROM content")
        peaks.append(self.peak(run))
        shutil.rmtree(self.root / "blobs" / "sha256")
        peaks.append(self.peak(run))
        self.assertEqual(
            results,
            [Reconciled(), Reconciled(adopted=self.COUNT), Reconciled(forgotten=self.COUNT)],
        )
        self.assertLess(max(peaks), self.LIMIT)

    def test_passes_over_the_index(self) -> None:
        async def flush() -> None:
            await self.store.flush_access_times()

        async def evict() -> None:
            rules = CacheSection(inactive=1.0)
            await Eviction(
                self.directory, self.inventory, self.workers, self.store.uses, lambda: self.time
            ).run(rules)

        async def verify() -> None:
            await self.store.verification.verify_before(self.time)

        async def forget() -> None:
            await Forgetting(self.inventory, no_pause, lambda: self.time).run(DAY)

        self.time += 5 * DAY
        for number, digest in enumerate(self.digests):
            self.store.uses.touch(digest)
            self.index.membership(HOST, self.repository(number), digest)
        self.time += 5 * DAY
        for work in (flush, verify, evict, forget):
            with self.subTest(work=work.__name__):
                self.assertLess(self.peak(work), self.LIMIT)
        self.assertEqual(self.rows(), set())
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            for table in KEYS:
                self.assertEqual(index.execute(f"SELECT count(*) FROM {table}").fetchone(), (0,))

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs

from regproxy.config.model import DAY
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.store import forgetting as forgetting_module
from regproxy.store.errors import IndexFailed
from regproxy.store.forgetting import GRACE, Forgetting
from regproxy.store.index import LAG, TagEntry, TagKey
from regproxy.store.inventory import KEYS
from tests.support.caches import CacheCase

HOST = Host("registry.example.test")
INACTIVE = 60 * DAY
START = 1e9


class ForgettingTests(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.time = START
        self.pauses = 0

    async def pause(self) -> None:
        self.pauses += 1

    def forget(self) -> int:
        forgetting = Forgetting(self.inventory, self.pause, lambda: self.time)
        return self.finish(forgetting.run(INACTIVE))

    def learn(self, number: int, digest: Digest) -> None:
        """As from an answer of upstream, in a repository of its own."""
        repository = Repository(f"library/{number}")
        self.index.put_membership(HOST, repository, digest, "a/b")
        self.index.put_tag(self.key(number), TagEntry(digest, "a/b", self.time))
        self.index.put_public(HOST, repository, self.time)

    def key(self, number: int) -> TagKey:
        return TagKey(HOST, Repository(f"library/{number}"), Tag("latest"), "")

    def look_up(self, number: int, digest: Digest) -> None:
        """As for a client."""
        repository = Repository(f"library/{number}")
        self.index.tag(self.key(number))
        self.index.membership(HOST, repository, digest)
        self.index.public_at(HOST, repository)
        self.successResultOf(self.store.flush_access_times())

    def counts(self) -> dict[str, int]:
        """How many rows there are, by table."""
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            return {
                table: index.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in KEYS
            }

    def test_content_is_here(self) -> None:
        """What was not used for as long as content is kept goes, and not before."""
        self.learn(1, self.put(b"one"))
        self.time += INACTIVE + LAG
        self.assertEqual(self.forget(), 0)
        self.time += 1.0
        with capturedLogs() as events:
            self.assertEqual(self.forget(), 3)
        self.assertEqual([event["rows"] for event in events], [3])
        self.assertEqual(self.counts(), {"membership": 0, "tag": 0, "public": 0})

    def test_used(self) -> None:
        """What is looked up now and then stays, however long ago it was learnt."""
        digest = self.put(b"one")
        self.learn(1, digest)
        for _ in range(10):
            self.time += INACTIVE
            self.look_up(1, digest)
            self.assertEqual(self.forget(), 0)
        self.assertEqual(self.index.membership(HOST, Repository("library/1"), digest), "a/b")

    def test_content_is_gone(self) -> None:
        """Not as long as it may be on its way."""
        self.learn(1, Digest.of(b"gone"))
        self.time += GRACE + LAG
        self.assertEqual(self.forget(), 0)
        self.time += 1.0
        self.assertEqual(self.forget(), 2)
        # Whether anybody may read a repository is true of all that is in it.
        self.assertEqual(self.counts(), {"membership": 0, "tag": 0, "public": 1})

    def test_content_comes_back(self) -> None:
        """In time, by whatever way: nobody has to be asked."""
        digest = Digest.of(b"one")
        self.learn(1, digest)
        self.time += GRACE
        self.put(b"one")
        self.time += GRACE + LAG
        self.assertEqual(self.forget(), 0)

    def test_evicted(self) -> None:
        """Of one blob of two."""
        kept, gone = self.put(b"kept"), self.put(b"gone")
        self.learn(1, kept)
        self.learn(2, gone)
        self.inventory.forget([each for each in self.records() if each.digest == gone])
        self.time += GRACE + LAG + 1.0
        self.assertEqual(self.forget(), 2)
        self.assertIsNotNone(self.index.tag(self.key(1)))
        self.assertIsNone(self.index.tag(self.key(2)))

    def test_host(self) -> None:
        """Of which nothing is left is not known any more."""
        self.learn(1, Digest.of(b"gone"))
        self.assertTrue(self.index.knows(HOST))
        self.time += GRACE + LAG + 1.0
        self.forget()
        self.assertFalse(self.index.knows(HOST))

    def test_failure(self) -> None:
        self.index.close()
        forgetting = Forgetting(self.inventory, self.pause, lambda: self.time)
        self.failureResultOf(ensureDeferred(forgetting.run(INACTIVE)), IndexFailed)

    @given(
        st.lists(st.tuples(st.booleans(), st.integers(0, 70), st.integers(0, 70)), max_size=12),
        st.integers(1, 4),
    )
    def test_any(self, rows: list[tuple[bool, int, int]], batch: int) -> None:
        """Each by the days since its last use and by whether its content is here; in steps."""
        self.patch(forgetting_module, "BATCH", batch)
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index, index:
            for table in ("content", *KEYS):
                index.execute(f"DELETE FROM {table}")
        end = START + 200 * DAY
        expected: Counter[str] = Counter(dict.fromkeys(KEYS, 0))
        for number, (here, learnt, used) in enumerate(rows):
            digest = Digest.of(b"%d" % number)
            self.time = end - learnt * DAY
            self.learn(number, digest)
            if here:
                self.put(b"%d" % number)
            if used <= learnt:
                self.time = end - used * DAY
                self.look_up(number, digest)
            # A use within a day of the one before is not recorded.
            age = used if used < learnt else learnt
            stays = age <= 61
            expected["public"] += stays
            for table in "membership", "tag":
                expected[table] += stays and (here or age <= 2)
        self.time = end
        self.pauses = 0
        self.assertEqual(self.forget(), 3 * len(rows) - expected.total())
        self.assertEqual(self.counts(), expected)
        # After each batch.
        self.assertEqual(self.pauses, 3 * -(-len(rows) // batch))

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import CacheSection
from regproxy.oci.names import Digest
from regproxy.policy.eviction import Usage, choose, excess
from regproxy.policy.integrity import ContentRecord

RULES = CacheSection(max_size=1000)
sizes = st.integers(0, 1 << 50)


def record(number: int, size: int = 1, last_access: float = 0.0) -> ContentRecord:
    """Some content."""
    return ContentRecord(Digest.of(b"%d" % number), size, 0.0, last_access, 0.0, 0)


records = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50))).map(
    lambda pairs: [
        record(number, size, float(when))
        for number, (when, size) in enumerate(sorted(pairs, key=lambda pair: pair[0]))
    ]
)


class ExcessTests(SynchronousTestCase):
    def test_within_bounds(self) -> None:
        for stored in (0, 950, 1000):
            self.assertEqual(excess(RULES, Usage(stored, 0)), 0)

    def test_max_size(self) -> None:
        """Some more goes than has to."""
        self.assertEqual(excess(RULES, Usage(1001, 0)), 51)

    def test_min_free(self) -> None:
        rules = CacheSection(min_free=950)
        self.assertEqual(excess(rules, Usage(5000, 950)), 0)
        self.assertEqual(excess(rules, Usage(5000, 900)), 100)

    def test_the_larger_counts(self) -> None:
        rules = CacheSection(max_size=1000, min_free=950)
        self.assertEqual(excess(rules, Usage(1001, 900)), 100)
        self.assertEqual(excess(rules, Usage(1200, 900)), 250)

    def test_full_disk(self) -> None:
        """Room for what had none, and a little in any case."""
        self.assertEqual(excess(RULES, Usage(900, 100), wanted=300), 200)
        self.assertEqual(excess(RULES, Usage(1000, 0), wanted=0), 50)
        self.assertEqual(excess(RULES, Usage(900, 100), wanted=0), 0)

    def test_too_large_for_the_disk(self) -> None:
        """The store is not emptied in vain."""
        self.assertEqual(excess(RULES, Usage(1000, 0), wanted=1001), 50)

    @given(sizes, sizes, sizes, sizes, st.none() | sizes)
    def test_when_it_is_gone(
        self, max_size: int, min_free: int, stored: int, free: int, wanted: int | None
    ) -> None:
        """Afterwards there is no excess, unless the whole store was not enough."""
        rules = CacheSection(max_size=max_size, min_free=min_free)
        gone = excess(rules, Usage(stored, free), wanted)
        self.assertGreaterEqual(gone, 0)
        if gone <= stored:
            self.assertEqual(excess(rules, Usage(stored - gone, free + gone)), 0)
        if gone <= stored and wanted is not None and wanted <= stored + free:
            self.assertGreaterEqual(free + gone, wanted)


class ChooseTests(SynchronousTestCase):
    def choose(self, oldest: list[ContentRecord], excess: int, before: float) -> list[int]:
        chosen = choose(oldest, lambda digest: False, excess, before)
        return [oldest.index(each) for each in chosen]

    def test_least_recently_used_first(self) -> None:
        oldest = [record(number, 10, float(number)) for number in range(5)]
        self.assertEqual(self.choose(oldest, 20, 0.0), [0, 1])
        self.assertEqual(self.choose(oldest, 21, 0.0), [0, 1, 2])
        self.assertEqual(self.choose(oldest, 0, 0.0), [])

    def test_inactive(self) -> None:
        oldest = [record(number, 10, float(number)) for number in range(5)]
        self.assertEqual(self.choose(oldest, 0, 3.0), [0, 1, 2])

    @given(records, st.sets(st.integers(0, 20)), st.integers(0, 500), st.integers(0, 100))
    def test_properties(
        self, oldest: list[ContentRecord], held: set[int], excess: int, before: int
    ) -> None:
        held_digests = {Digest.of(b"%d" % number) for number in held}
        chosen = choose(oldest, held_digests.__contains__, excess, float(before))
        free = [each for each in oldest if each.digest not in held_digests]
        # Nothing that is in use; nothing younger before something older.
        self.assertEqual(chosen, free[: len(chosen)])
        # Enough, if there is enough; everything inactive.
        kept = free[len(chosen) :]
        gone = sum(each.size for each in chosen)
        self.assertTrue(not kept or gone >= excess)
        self.assertTrue(all(each.last_access >= before for each in kept))
        # And no more: without the last one it would not do.
        if chosen and chosen[-1].last_access >= before:
            self.assertLess(gone - chosen[-1].size, excess)

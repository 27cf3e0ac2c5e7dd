from __future__ import annotations

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest
from regproxy.store.errors import IndexFailed
from regproxy.store.uses import BATCH, LastUses, Uses

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


class UsesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.time = 1.0
        self.uses = Uses(lambda: self.time)

    def test_held(self) -> None:
        """By several."""
        self.assertNotIn(ONE, self.uses)
        self.uses.hold(ONE)
        self.uses.hold(ONE)
        self.uses.release(ONE)
        self.assertIn(ONE, self.uses)
        self.assertNotIn(TWO, self.uses)
        self.uses.release(ONE)
        self.assertNotIn(ONE, self.uses)

    def test_touched(self) -> None:
        """It counts as in use until the index knows."""
        told: list[dict[str, float]] = []

        async def record(last: dict[str, float]) -> None:
            told.append(last)

        self.uses.touch(ONE)
        self.time = 2.0
        self.uses.touch(ONE)
        self.assertIn(ONE, self.uses)
        self.successResultOf(ensureDeferred(self.uses.last.tell(record)))
        self.assertEqual(told, [{str(ONE): 2.0}])
        self.assertNotIn(ONE, self.uses)
        self.successResultOf(ensureDeferred(self.uses.last.tell(record)))
        self.assertEqual(len(told), 1)


class LastUsesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.time = 1.0
        self.last: LastUses[int] = LastUses(lambda: self.time)
        self.told: list[tuple[dict[int, float], Deferred[None]]] = []

    def record(self, last: dict[int, float]) -> Deferred[None]:
        recorded: Deferred[None] = Deferred()
        self.told.append((last, recorded))
        return recorded

    def test_batches(self) -> None:
        """However much was used, the index is told of some at a time; the rest counts as new."""
        things = range(BATCH * 2 + 1)
        for thing in things:
            self.last.touch(thing)
        telling = ensureDeferred(self.last.tell(self.record))
        for number in range(3):
            self.assertEqual(len(self.told), number + 1)
            told, recorded = self.told[-1]
            self.assertEqual(
                sum(thing in self.last for thing in things),
                2 * BATCH + 1 - sum(len(batch) for batch, _ in self.told),
            )
            self.assertFalse(any(thing in self.last for thing in told))
            self.assertLessEqual(len(told), BATCH)
            recorded.callback(None)
        self.successResultOf(telling)
        self.assertEqual({thing for told, _ in self.told for thing in told}, set(things))

    def test_not_recorded(self) -> None:
        """It is told the next time; what was used meanwhile is later."""
        self.last.touch(1)
        self.last.touch(2)
        telling = ensureDeferred(self.last.tell(self.record))
        self.time = 2.0
        self.last.touch(1)
        self.told[0][1].errback(IndexFailed("disk full"))
        self.failureResultOf(telling, IndexFailed)
        again = ensureDeferred(self.last.tell(self.record))
        self.assertEqual(self.told[1][0], {1: 2.0, 2: 1.0})
        self.told[1][1].callback(None)
        self.successResultOf(again)

    def test_given_up(self) -> None:
        """At the end of the process: nothing is lost that somebody may still tell."""
        self.last.touch(1)
        telling = ensureDeferred(self.last.tell(self.record))
        telling.addErrback(lambda _: None).cancel()
        self.assertIn(1, self.last)

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest
from regproxy.store.uses import Uses

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
        self.uses.touch(ONE)
        self.time = 2.0
        self.uses.touch(ONE)
        self.assertIn(ONE, self.uses)
        self.assertEqual(self.uses.take(), {ONE: 2.0})
        self.assertNotIn(ONE, self.uses)
        self.assertEqual(self.uses.take(), {})

    def test_given_back(self) -> None:
        """What was used meanwhile is later."""
        self.uses.touch(ONE)
        self.uses.touch(TWO)
        taken = self.uses.take()
        self.time = 2.0
        self.uses.touch(ONE)
        self.uses.give_back(taken)
        self.assertEqual(self.uses.take(), {ONE: 2.0, TWO: 1.0})

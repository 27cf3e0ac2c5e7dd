"""What the loop of the program has to catch."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node import errors


class ErrorTests(SynchronousTestCase):
    def test_one_base(self) -> None:
        """All that can be said of a machine is caught by one name."""
        kinds = [value for value in vars(errors).values() if isinstance(value, type)]
        self.assertGreater(len(kinds), 5)
        for kind in kinds:
            self.assertTrue(issubclass(kind, errors.NodeError), kind)

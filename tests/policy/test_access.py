"""Tests for :mod:`regproxy.policy.access`."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import Access
from regproxy.policy.access import Verdict, may_read


class MayReadTests(SynchronousTestCase):
    """may_read, for all there is to know."""

    def test_shared(self) -> None:
        """Whoever may use the proxy."""
        for granted, public in product((True, False), repeat=2):
            self.assertIs(
                may_read(Access.SHARED, granted=granted, public=public),
                Verdict.SHARED,
            )

    def test_verify(self) -> None:
        for granted, public, expected in (
            (True, True, Verdict.PUBLIC),
            (False, True, Verdict.PUBLIC),
            (True, False, Verdict.GRANTED),
            (False, False, Verdict.CONFIRM),
        ):
            self.assertIs(may_read(Access.VERIFY, granted=granted, public=public), expected)

    def test_serve(self) -> None:
        """No other verdict lets content out."""
        self.assertEqual(
            {verdict for verdict in Verdict if verdict.serve},
            {Verdict.SHARED, Verdict.GRANTED, Verdict.PUBLIC},
        )

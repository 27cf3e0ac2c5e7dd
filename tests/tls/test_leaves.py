"""Tests for regproxy.tls.leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.authority import CertificateAuthority
from regproxy.tls.errors import CAError
from regproxy.tls.leaves import LeafCache
from tests.support.certificates import make_ca

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


class LeafCacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOW
        self.ca_life(3650 * DAY)

    def ca_life(self, life: timedelta) -> None:
        ca = make_ca(not_before=NOW - 9 * DAY, not_after=NOW + life)
        authority = CertificateAuthority(ca.key, (ca.certificate,))
        self.leaves = LeafCache(authority, lambda: self.now, max_entries=3)

    def context(self, name: str = "a.example") -> SSL.Context:
        return self.leaves.context(name)

    def after(self, time: timedelta) -> SSL.Context:
        self.now = NOW + time
        return self.context()

    def test_same_name_same_context(self) -> None:
        self.assertIs(self.context("a.example"), self.context("a.example"))
        self.assertIsNot(self.context("a.example"), self.context("b.example"))

    def test_several_names(self) -> None:
        context = self.leaves.context("a.example", "b.example")
        self.assertIs(self.leaves.context("a.example", "b.example"), context)
        self.assertIsNot(self.context("a.example"), context)

    def test_renewed_at_two_thirds_of_life(self) -> None:
        # 45 days less a second are left of a new leaf, which is back-dated by two.
        first = self.context()
        self.assertIs(self.after(30 * DAY - SECOND), first)
        second = self.after(30 * DAY)
        self.assertIsNot(second, first)
        self.assertIs(self.after(31 * DAY), second)

    def test_renewed_when_the_clock_was_set_back(self) -> None:
        first = self.context()
        self.assertIsNot(self.after(-SECOND), first)

    def test_end_of_the_authority(self) -> None:
        self.ca_life(3 * DAY)
        first = self.context()
        self.assertIs(self.after(2 * DAY - SECOND), first)
        self.assertIsNot(self.after(2 * DAY), first)
        with self.assertRaises(CAError):
            self.after(3 * DAY)

    def test_least_recently_used_goes_first(self) -> None:
        kept, dropped = self.context("a.example"), self.context("b.example")
        self.context("c.example")
        self.context("a.example")
        self.context("d.example")
        self.assertIs(self.context("a.example"), kept)
        self.assertIsNot(self.context("b.example"), dropped)

    def test_counted(self) -> None:
        """What was made, and what is kept of it."""
        for name in "a.example", "a.example", "b.example", "c.example", "d.example":
            self.context(name)
        self.assertEqual((self.leaves.issued, len(self.leaves)), (4, 3))
        self.assertRaises(ValueError, self.context, "*.example")
        self.assertEqual((self.leaves.issued, len(self.leaves)), (4, 3))

    def test_a_name_that_cannot_be_is_not_kept(self) -> None:
        kept = [self.context(name) for name in ("a.example", "b.example", "c.example")]
        for name in ("*.example", "", "no host"):
            self.assertRaises(ValueError, self.context, name)
        self.assertEqual(
            [self.context(name) for name in ("a.example", "b.example", "c.example")], kept
        )

"""Tests for :mod:`regproxy.policy.freshness`."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import FreshnessRule, FreshnessSection
from regproxy.oci.names import Tag
from regproxy.policy.freshness import Freshness, judge, max_age

RULES = FreshnessSection(
    default=10.0,
    stale_if_error=100.0,
    rule=(
        FreshnessRule(re.compile(r"^v?\d+\.\d+\.\d+$"), 1000.0),
        FreshnessRule(re.compile("nightly"), 0.0),
        FreshnessRule(re.compile(".*"), 50.0),
    ),
)


class MaxAgeTests(SynchronousTestCase):
    """max_age"""

    def test_first_rule_counts(self) -> None:
        for tag, seconds in (
            ("1.2.3", 1000.0),
            ("v1.2.3", 1000.0),
            ("1.2.3-nightly", 0.0),
            ("1.2", 50.0),
        ):
            self.assertEqual(max_age(RULES, Tag(tag)), seconds)

    def test_default(self) -> None:
        """Without a rule: ask each time."""
        self.assertEqual(max_age(FreshnessSection(), Tag("latest")), 0.0)
        self.assertEqual(max_age(FreshnessSection(default=5.0), Tag("latest")), 5.0)

    def test_digests(self) -> None:
        """Tags that name a digest have no long age, whatever the rules say."""
        for tag in f"sha256-{'a' * 64}", f"sha256-{'a' * 64}.sig", f"sha512-{'a' * 128}.att":
            self.assertEqual(max_age(RULES, Tag(tag)), 10.0)


class JudgeTests(SynchronousTestCase):
    """judge"""

    def test_judge(self) -> None:
        for tag, age, expected in (
            ("1.2", 0.0, Freshness.FRESH),
            ("1.2", 49.9, Freshness.FRESH),
            ("1.2", 50.0, Freshness.STALE),
            ("1.2", 100.0, Freshness.STALE),
            ("1.2", 100.1, Freshness.EXPIRED),
            ("1.2.3", 999.0, Freshness.FRESH),
            ("1.2.3", 1000.0, Freshness.EXPIRED),
            ("nightly", 0.0, Freshness.STALE),
            ("1.2.3", -1.0, Freshness.STALE),
        ):
            self.assertIs(judge(RULES, Tag(tag), age), expected, (tag, age))

    @given(st.floats(0, 1e9), st.floats(0, 1e9), st.sampled_from(["1.2.3", "nightly", "x"]))
    def test_never_gets_better(self, age: float, later: float, tag: str) -> None:
        """What is older is not good for more."""
        order = [Freshness.FRESH, Freshness.STALE, Freshness.EXPIRED]
        before, after = (judge(RULES, Tag(tag), seconds) for seconds in (age, age + later))
        self.assertLessEqual(order.index(before), order.index(after))

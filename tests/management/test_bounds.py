"""Tests for :mod:`regproxy.management.bounds`: what is checked is what is documented."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.bounds import Between, Count, Length, Pattern

NAME = Pattern("a name", "[a-z]+(?:-[a-z]+)*")


class BoundsTests(SynchronousTestCase):
    def agree(self, bound: Any, value: Any) -> None:
        """The check and the schema say the same."""
        schema = bound.schema()
        Draft202012Validator.check_schema(schema)
        fits = Draft202012Validator(schema).is_valid(value)
        if fits:
            bound.check(value)
        else:
            self.assertRaisesRegex(ValueError, "^expected ", bound.check, value)

    @given(st.integers(-3, 3), st.integers(-3, 3), st.integers(-5, 5))
    def test_between(self, least: int, most: int, value: int) -> None:
        self.agree(Between(least, most), value)

    @given(st.integers(0, 3), st.integers(0, 3), st.text(max_size=5))
    def test_length(self, least: int, most: int, value: str) -> None:
        self.agree(Length(least, most), value)

    @given(st.integers(0, 3), st.integers(0, 3), st.lists(st.none(), max_size=5))
    def test_count(self, least: int, most: int, value: list[None]) -> None:
        self.agree(Count(least, most), value)

    @given(st.text("ab-", max_size=6) | st.from_regex(NAME.pattern, fullmatch=True))
    def test_pattern(self, value: str) -> None:
        self.agree(NAME, value)

    def test_texts(self) -> None:
        bound: Any
        for bound, value, expected in (
            (Between(1, 9), 0, "expected a number from 1 to 9"),
            (Length(1, 9), "", "expected 1 to 9 characters"),
            (Count(1, 9), (), "expected 1 to 9 items"),
            (NAME, "a\n", "expected a name"),
        ):
            with self.assertRaises(ValueError) as caught:
                bound.check(value)
            self.assertEqual(str(caught.exception), expected)

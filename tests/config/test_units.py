"""Tests of regproxy.config.units."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.units import format_duration, format_size, parse_duration, parse_size


class SizeTests(SynchronousTestCase):
    """parse_size and format_size"""

    def test_parse(self) -> None:
        """All units are binary, and case does not matter."""
        for value, size in {
            "32GiB": 32 << 30,
            "512MiB": 512 << 20,
            "1KiB": 1024,
            "64k": 64 << 10,
            "64M": 64 << 20,
            "1g": 1 << 30,
            "2 gib": 2 << 30,
            "0": 0,
            "17": 17,
        }.items():
            self.assertEqual(parse_size(value), size, value)
        self.assertEqual(parse_size(17), 17)

    def test_refused(self) -> None:
        """Decimal units are ambiguous, so they are none; the message gives examples."""
        for value in ("", "GiB", "1GB", "1.5g", "-1", -1, "1t", "1\n", True, 1.0, None, 1 << 63):
            error = self.assertRaises(ValueError, parse_size, value)
            self.assertIn("32GiB", str(error))

    def test_format(self) -> None:
        """The largest unit that leaves a whole number."""
        for size, text in {0: "0", 1: "1", 1024: "1KiB", 1 << 40: "1024GiB", 1025: "1025"}.items():
            self.assertEqual(format_size(size), text)

    @given(st.integers(0, (1 << 63) - 1))
    def test_round_trip(self, size: int) -> None:
        """What is written is read."""
        self.assertEqual(parse_size(format_size(size)), size)


class DurationTests(SynchronousTestCase):
    """parse_duration and format_duration"""

    def test_parse(self) -> None:
        """Sums have their units in order."""
        for value, seconds in {
            "0s": 0.0,
            "30s": 30.0,
            "15m": 900.0,
            "12h": 43200.0,
            "7d": 604800.0,
            "1h30m": 5400.0,
            "1D2H3M4S": 93784.0,
            "0.5s": 0.5,
            "1.5h": 5400.0,
            "90": 90.0,
        }.items():
            self.assertEqual(parse_duration(value), seconds, value)
        self.assertEqual(parse_duration(90), 90.0)
        self.assertEqual(parse_duration(0.25), 0.25)

    def test_refused(self) -> None:
        """The message gives examples."""
        for value in (
            *("", "s", "1w", "30m1h", "1h1h", "-1s", "1 h", "1s\n", "1e3", ".5s", "36526d"),
            *(-1, True, None, math.nan, math.inf, -math.inf, 10**400),
        ):
            error = self.assertRaises(ValueError, parse_duration, value)
            self.assertIn("1h30m", str(error))

    def test_format(self) -> None:
        """Whole units, or a fraction of seconds without an exponent."""
        for seconds, text in {
            0.0: "0s",
            90.0: "1m30s",
            86400.0: "1d",
            93784.0: "1d2h3m4s",
            0.5: "0.5s",
            1e-7: "0.0000001s",
        }.items():
            self.assertEqual(format_duration(seconds), text)

    @given(st.floats(0, 36525 * 86400))
    def test_round_trip(self, value: float) -> None:
        """What is written is read."""
        seconds = parse_duration(value)
        self.assertEqual(parse_duration(format_duration(seconds)), seconds)

"""Tests for :mod:`regproxy.oci.retry_after`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.retry_after import parse_retry_after

# Sun, 06 Nov 1994 08:49:37 GMT, the specification's example.
EXAMPLE = 784111777.0


class RetryAfterTests(SynchronousTestCase):
    """parse_retry_after"""

    def test_seconds(self) -> None:
        self.assertEqual(parse_retry_after(b" 120 ", EXAMPLE), 120.0)
        self.assertEqual(parse_retry_after(b"0", EXAMPLE), 0.0)

    def test_date(self) -> None:
        date = b"Sun, 06 Nov 1994 08:49:37 GMT"
        self.assertEqual(parse_retry_after(date, EXAMPLE - 60), 60.0)
        self.assertEqual(parse_retry_after(date, EXAMPLE + 60), 0.0)

    def test_neither(self) -> None:
        for value in b"", b"soon", b"-1", b"1.5", "²".encode("latin-1"):
            self.assertIsNone(parse_retry_after(value, EXAMPLE), value)

    @given(st.binary(max_size=64))
    def test_anything(self, value: bytes) -> None:
        """Whatever a server sends is no error, and no time before now."""
        seconds = parse_retry_after(value, EXAMPLE)
        self.assertTrue(seconds is None or seconds >= 0)

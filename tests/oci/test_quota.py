"""Tests for :mod:`regproxy.oci.quota`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.quota import Quota, parse_quota


class ParseQuotaTests(SynchronousTestCase):
    """parse_quota"""

    def test_forms(self) -> None:
        """Docker Hub's, and what else the draft allows."""
        for value, expected in {
            b"100;w=21600": Quota(100, 21600),
            b" 76 ; w=21600 ": Quota(76, 21600),
            b"0;w=60": Quota(0, 60),
            b"100": Quota(100),
            b'100;comment="per account";w=60': Quota(100, 60),
            b"100;w=60;policy=x": Quota(100, 60),
            b"10, 10;w=1, 1000;w=3600": Quota(10),
            b"10;w=1, 1000;w=3600": Quota(10, 1),
        }.items():
            self.assertEqual(parse_quota(value), expected, value)

    def test_none(self) -> None:
        """What is no number of requests. A window that is none is not said."""
        for value in b"", b";w=60", b"many", b"-1;w=60", b"1.5", b"1 2", b"9" * 16, b",10":
            self.assertIsNone(parse_quota(value), value)
        for value in b"1;w=", b"1;w=x", b"1;w=1.5", b"1;w=" + b"9" * 10, b"1;xw=60":
            self.assertEqual(parse_quota(value), Quota(1), value)

    @given(st.integers(0, 10**15 - 1), st.none() | st.integers(0, 10**9 - 1))
    def test_round_trip(self, count: int, window: int | None) -> None:
        text = f"{count}" if window is None else f"{count};w={window}"
        self.assertEqual(parse_quota(text.encode()), Quota(count, window))

    @given(st.binary(max_size=40))
    def test_anything(self, value: bytes) -> None:
        """Whatever a server sends, it is a quota or none."""
        quota = parse_quota(value)
        self.assertTrue(quota is None or quota.count >= 0)

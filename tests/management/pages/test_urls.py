"""Tests for :mod:`regproxy.management.pages.urls`."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.pages.urls import url


@frozen
class Asked:
    """A query."""

    text: str | None = None
    number: int | None = None


class UrlTests(SynchronousTestCase):
    """URLs that ask for the same."""

    def test_nothing(self) -> None:
        self.assertEqual(url("/images", Asked()), "/images")

    @given(st.text(min_size=1), st.integers())
    def test_back(self, text: str, number: int) -> None:
        """Any text comes back as it was."""
        parts = urlsplit(url("/images", Asked(text, number)))
        self.assertEqual(parts.path, "/images")
        self.assertEqual(parse_qs(parts.query), {"text": [text], "number": [str(number)]})

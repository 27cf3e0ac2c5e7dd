"""Tests for :mod:`regproxy.management.paging`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.paging import BadCursor, Key, cursor_of, cut, key_of, page_of
from regproxy.management.values import Page

TEXTS = st.lists(st.text(), unique=True, max_size=30)
PARTS = st.text() | st.integers() | st.floats(allow_nan=False)


def key(text: str) -> Key:
    return len(text), text


def walk(items: list[str], limit: int) -> list[str]:
    """All items, part for part."""
    found: list[str] = []
    cursor = None
    while True:
        page = page_of(items, key, limit, cursor)
        assert len(page.items) <= limit
        found += page.items
        if page.next is None:
            return found
        assert page.items
        cursor = page.next


class CursorTests(SynchronousTestCase):
    @given(st.lists(PARTS).map(tuple))
    def test_round_trip(self, key: Key) -> None:
        cursor = cursor_of(key)
        self.assertRegex(cursor, r"\A[A-Za-z0-9_-]+\Z")
        self.assertEqual(key_of(cursor, *map(type, key)), key)

    @given(st.text())
    def test_anything(self, cursor: str) -> None:
        """What is no cursor is refused."""
        try:
            found = key_of(cursor, int, str)
        except BadCursor:
            return
        self.assertEqual(list(map(type, found)), [int, str])

    def test_half_a_character(self) -> None:
        """JSON can have one, SQLite cannot."""
        self.assertRaises(BadCursor, key_of, cursor_of(("\ud800",)), str)

    def test_of_another_list(self) -> None:
        cursor = cursor_of((1, "a"))
        for kinds in ((str, str), (int,), (int, str, int), (bool, str)):
            self.assertRaises(BadCursor, key_of, cursor, *kinds)
        self.assertRaises(BadCursor, key_of, cursor_of((True,)), int)
        self.assertRaises(BadCursor, page_of, ["a"], key, 1, "x")


class PageTests(SynchronousTestCase):
    @given(TEXTS, st.integers(1, 10))
    def test_all_of_it(self, items: list[str], limit: int) -> None:
        self.assertEqual(walk(items, limit), sorted(items, key=key))

    @given(TEXTS, TEXTS, st.integers(1, 10))
    def test_meanwhile(self, before: list[str], after: list[str], limit: int) -> None:
        """What is there all the time is seen once, whatever comes and goes."""
        first = page_of(before, key, limit, None)
        rest: list[str] = []
        cursor = first.next
        while cursor is not None:
            page = page_of(after, key, limit, cursor)
            rest += page.items
            cursor = page.next
        staying = set(before) & set(after)
        seen = [each for each in (*first.items, *rest) if each in staying]
        self.assertEqual(len(seen), len(set(seen)))
        if first.next is not None:
            self.assertEqual(set(seen), staying)

    def test_cut(self) -> None:
        keyed: list[tuple[Key, str]] = [((1,), "a"), ((2,), "b")]
        self.assertEqual(cut(keyed, 2), Page(("a", "b")))
        self.assertEqual(cut(keyed, 1), Page(("a",), cursor_of((1,))))
        self.assertEqual(cut([], 1), Page[str](()))

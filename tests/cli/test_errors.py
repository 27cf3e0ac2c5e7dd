"""Tests of regproxy.cli.errors."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.errors import CommandFailed, NotAllowed, NotReachable, plain


class PlainTests(SynchronousTestCase):
    """plain"""

    @given(st.text())
    def test_one_harmless_line(self, text: str) -> None:
        """Whatever there is becomes one line that can be printed."""
        made = plain(text)
        self.assertTrue(made.isprintable())
        self.assertEqual(plain(made), made)

    def test_words_stay(self) -> None:
        self.assertEqual(plain("Größe: 5 \n\t MiB"), "Größe: 5 MiB")

    def test_escapes_go(self) -> None:
        self.assertEqual(plain("a\x1b[31mb\u202ec"), "a�[31mb�c")


class ErrorTests(SynchronousTestCase):
    """The exceptions."""

    def test_status(self) -> None:
        """Scripts tell them apart."""
        kinds = (CommandFailed, NotReachable, NotAllowed)
        self.assertEqual([kind("x").exit_code for kind in kinds], [1, 3, 4])

    def test_message(self) -> None:
        """It is one line."""
        self.assertEqual(CommandFailed("a\nb").message, "a b")

"""Tests of regproxy.cli.passwords."""

from __future__ import annotations

import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.errors import CommandFailed
from regproxy.cli.passwords import htpasswd_line


class HtpasswdTests(SynchronousTestCase):
    """htpasswd_line"""

    def test_line(self) -> None:
        """The password fits, and two lines never tell that theirs are the same."""
        password = "ü" * 36
        lines = [htpasswd_line("anna", password) for _ in range(2)]
        self.assertNotEqual(*lines)
        for line in lines:
            user, _, hashed = line.partition(":")
            self.assertEqual(user, "anna")
            self.assertTrue(bcrypt.checkpw(password.encode(), hashed.encode()))

    def test_refusals(self) -> None:
        for user, password, expected in (
            ("", "p", "at least one character"),
            ("a:b", "p", "no colon"),
            ("a\nb", "p", "no colon"),
            ("#a", "p", "begins with no #"),
            ("a ", "p", "no spaces around"),
            ("a", "", "is empty"),
            ("a", "p\0q", "is empty, or has a NUL"),
            ("a", "ü" * 37, "has 74 bytes, and bcrypt takes 72"),
        ):
            error = self.assertRaises(CommandFailed, htpasswd_line, user, password)
            self.assertIn(expected, error.message)

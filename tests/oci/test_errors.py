"""Tests of regproxy.oci.errors."""

from __future__ import annotations

import json
from http import HTTPStatus

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci import errors
from regproxy.oci.errors import RegistryError, error_body, shown


class TableTests(SynchronousTestCase):
    """The table of statuses and codes."""

    def test_every_error(self) -> None:
        """Each class has an error status and a code in the specification's form."""
        classes = [
            value
            for value in vars(errors).values()
            if isinstance(value, type) and issubclass(value, RegistryError)
        ]
        self.assertIn(errors.NameInvalid, classes)
        for cls in classes:
            error = cls("text")
            self.assertIsInstance(error.status, HTTPStatus)
            self.assertGreaterEqual(error.status, 400)
            self.assertRegex(error.code, "^[A-Z]+(_[A-Z]+)*$")
            self.assertIn("text", error.message)
            self.assertEqual(str(error), error.message)
            # RFC 9209: what this proxy says itself, it says that it does.
            if cls is not RegistryError:
                self.assertRegex(error.proxy_status or "", "^[a-z]+(_[a-z]+)+$", cls)

    def test_headers_are_one_errors_own(self) -> None:
        """A field set on one error is not on the next."""
        errors.Unavailable("a").headers["Retry-After"] = "1"
        self.assertEqual(errors.Unavailable("b").headers, {})


class BodyTests(SynchronousTestCase):
    """The JSON body."""

    def test_shape(self) -> None:
        """What the distribution specification says."""
        self.assertEqual(
            json.loads(errors.Denied("no").body()),
            {"errors": [{"code": "DENIED", "message": "no"}]},
        )

    @given(st.text(), st.text())
    def test_any_text(self, code: str, message: str) -> None:
        """Always one line of ASCII JSON."""
        body = error_body(code, message)
        self.assertTrue(body.isascii())
        self.assertEqual(body.count(b"\n"), 1)
        self.assertEqual(json.loads(body)["errors"][0], {"code": code, "message": message})


class ShownTests(SynchronousTestCase):
    """shown"""

    def test_cut(self) -> None:
        """A long text is cut with an ellipsis."""
        self.assertEqual(shown("a" * 80), repr("a" * 80))
        self.assertEqual(shown("a" * 81), repr("a" * 79 + "…"))

    @given(st.text())
    def test_printable(self, text: str) -> None:
        """Nothing that moves a cursor gets through."""
        self.assertTrue(shown(text).isprintable())

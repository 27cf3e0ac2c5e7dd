"""Tests for :mod:`regproxy.upstream.logins`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from regproxy.upstream.logins import ICredentials, IdentityToken, Password
from tests.support.credentials import FakeCredentials


class LoginTests(SynchronousTestCase):
    """The values, and the fake."""

    def test_authorization(self) -> None:
        """UTF-8, and colons in the password are its own."""
        self.assertEqual(Password("team", "pa:ß").authorization, b"Basic dGVhbTpwYTrDnw==")

    def test_repr(self) -> None:
        """No secret is in what a log or a traceback may show."""
        for login in (Password("team", "geheim"), IdentityToken("geheim")):
            self.assertNotIn("geheim", repr(login))

    def test_fake(self) -> None:
        verifyObject(ICredentials, FakeCredentials({}))

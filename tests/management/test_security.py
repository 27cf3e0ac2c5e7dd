"""Tests for :mod:`regproxy.management.security`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from regproxy.management.security import NOTHING_ELSE, restrict


class RestrictTests(SynchronousTestCase):
    def fields(self, policy: str | None = None) -> dict[bytes, list[bytes]]:
        request = DummyRequest([b""])
        if policy is None:
            restrict(request)
        else:
            restrict(request, policy)
        return dict(request.responseHeaders.getAllRawHeaders())

    def test_fields(self) -> None:
        self.assertEqual(
            self.fields(),
            {
                b"Content-Security-Policy": [NOTHING_ELSE.encode()],
                b"X-Content-Type-Options": [b"nosniff"],
                b"X-Frame-Options": [b"DENY"],
                b"Cross-Origin-Resource-Policy": [b"same-origin"],
                b"Referrer-Policy": [b"same-origin"],
            },
        )

    def test_policy(self) -> None:
        """A page may need more."""
        fields = self.fields("default-src 'self'")
        self.assertEqual(fields[b"Content-Security-Policy"], [b"default-src 'self'"])

"""Tests for :mod:`regproxy.management.security`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.security import NOTHING_ELSE, restrict
from regproxy.web.site import StrictRequest
from tests.support.sites import House, responses


class RestrictTests(SynchronousTestCase):
    def fields(self, *policy: str) -> dict[str, str]:
        """The fields of an answer."""

        def answer(request: StrictRequest) -> None:
            restrict(request, *policy)
            request.setHeader("Content-Length", "0")
            request.finish()

        house = House.answering(answer)
        (found,) = responses(house.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        return {
            key: value
            for key, value in found.headers.items()
            if key not in ("date", "content-length")
        }

    def test_fields(self) -> None:
        self.assertEqual(
            self.fields(),
            {
                "content-security-policy": NOTHING_ELSE,
                "x-content-type-options": "nosniff",
                "x-frame-options": "deny",
                "cross-origin-resource-policy": "same-origin",
                "referrer-policy": "same-origin",
            },
        )

    def test_policy(self) -> None:
        """A page may need more."""
        fields = self.fields("default-src 'self'")
        self.assertEqual(fields["content-security-policy"], "default-src 'self'")

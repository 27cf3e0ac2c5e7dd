"""Tests for :mod:`regproxy.registry.errors`."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.registry.errors import answer_to
from regproxy.upstream import errors as upstream

REFERENCE = Path(__file__).resolve().parents[2] / "docs/reference/http.md"


def classes(root: type[upstream.UpstreamError]) -> list[type[upstream.UpstreamError]]:
    """All kinds of it."""
    return [kind for child in root.__subclasses__() for kind in (child, *classes(child))]


class AnswerTests(SynchronousTestCase):
    """answer_to"""

    def test_status(self) -> None:
        for error, status, code, token in (
            (upstream.UpstreamUnreachable, 502, "UNAVAILABLE", "destination_unavailable"),
            (upstream.NameUnresolved, 502, "UNAVAILABLE", "dns_error"),
            (upstream.ParentProxyRefused, 502, "UNAVAILABLE", "proxy_configuration_error"),
            (upstream.UpstreamTimeout, 504, "UNAVAILABLE", "connection_timeout"),
            (upstream.UpstreamTLSFailed, 502, "UNAVAILABLE", "tls_certificate_error"),
            (upstream.UpstreamBroken, 502, "UNAVAILABLE", "connection_terminated"),
            (upstream.UpstreamLoginFailed, 502, "UNAVAILABLE", "proxy_configuration_error"),
            (upstream.AddressRefused, 403, "DENIED", "destination_ip_prohibited"),
            (upstream.RedirectRefused, 502, "UNAVAILABLE", "http_response_incomplete"),
            (upstream.BodyIncomplete, 502, "UNAVAILABLE", "http_response_incomplete"),
            (upstream.BodyTooLarge, 502, "UNAVAILABLE", "http_response_body_size"),
            (
                upstream.ResponseHeadTooLarge,
                502,
                "UNAVAILABLE",
                "http_response_header_section_size",
            ),
        ):
            answer = answer_to(error("what happened"))
            self.assertEqual((answer.status, answer.code), (status, code), error)
            self.assertEqual(answer.proxy_status, token)
            self.assertEqual(answer.message, "what happened")

    def test_every_kind(self) -> None:
        """Every kind of failure has its line in the table, and every token one in the docs."""
        documented = set(re.findall(r"^\| `(\w+)` \|", REFERENCE.read_text(), re.MULTILINE))
        for kind in classes(upstream.UpstreamError):
            self.assertIn(answer_to(kind("x")).proxy_status, documented, kind)

    def test_unknown(self) -> None:
        """What has no line is an answer all the same."""
        self.assertEqual(answer_to(upstream.UpstreamError("x")).status, 503)

"""Tests for :mod:`regproxy.upstream.rate_limits`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regproxy.oci.names import DOCKER_HUB, Host
from regproxy.upstream.rate_limits import (
    MAX_READINGS,
    UNSAID_WINDOW,
    RateLimits,
    Reading,
    Speaker,
)

HUB = Host(DOCKER_HUB)


class RateLimitsTests(SynchronousTestCase):
    """RateLimits"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.limits = RateLimits(self.clock)

    def note(
        self, remaining: str, limit: str | None = None, speaker: Speaker = Speaker.OWN
    ) -> None:
        """An answer of Docker Hub."""
        headers = Headers({"RateLimit-Remaining": [remaining]})
        if limit is not None:
            headers.setRawHeaders("RateLimit-Limit", [limit])
        self.limits.note(HUB, speaker, headers)

    def test_last(self) -> None:
        """The last answer counts, for each kind of login apart."""
        self.note("76;w=21600", "100;w=21600", Speaker.ANONYMOUS)
        self.note("199;w=21600", "200;w=21600")
        self.clock.advance(1)
        self.note("198;w=21600", "200;w=21600")
        self.assertEqual(
            self.limits.readings(),
            {
                (HUB, Speaker.ANONYMOUS): Reading(76, 100, 21600, 0.0),
                (HUB, Speaker.OWN): Reading(198, 200, 21600, 1.0),
            },
        )

    def test_nothing_said(self) -> None:
        """Answers without the fields, or with others, leave the last one."""
        self.note("76;w=21600")
        for headers in (
            Headers(),
            Headers({"RateLimit-Limit": ["100;w=21600"]}),
            Headers({"RateLimit-Remaining": ["some"]}),
        ):
            self.limits.note(HUB, Speaker.OWN, headers)
        self.assertEqual(self.limits.readings(), {(HUB, Speaker.OWN): Reading(76, None, 21600, 0)})

    def test_old(self) -> None:
        """When its window is over nobody knows what is left."""
        for remaining, limit, window in (
            ("7;w=60", None, 60),
            ("7", "9;w=60", 60),
            ("7;w=0", "9", UNSAID_WINDOW),
            ("7", None, UNSAID_WINDOW),
        ):
            self.note(remaining, limit)
            self.clock.advance(window - 0.5)
            self.assertEqual(len(self.limits.readings()), 1)
            self.clock.advance(0.5)
            self.assertEqual(self.limits.readings(), {})

    def test_bounded(self) -> None:
        """The one that said nothing for longest goes."""
        headers = Headers({"RateLimit-Remaining": ["1"]})
        hosts = [Host(f"r{number}.example.com") for number in range(MAX_READINGS + 1)]
        for host in (*hosts[:-1], hosts[0], hosts[-1]):
            self.limits.note(host, Speaker.CLIENT, headers)
        kept = [host for host, _ in self.limits.readings()]
        self.assertEqual(len(kept), MAX_READINGS)
        self.assertNotIn(hosts[1], kept)
        self.assertEqual(kept[-2:], [hosts[0], hosts[-1]])

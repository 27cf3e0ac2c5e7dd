"""Tests for :mod:`regproxy.policy.caching`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
)
from regproxy.policy.caching import HIT, CacheStatus, Forward, Kind, NoStore, why_not_stored

LIMIT = 4 << 20


class WhyNotStoredTests(SynchronousTestCase):
    """why_not_stored"""

    def test_status(self) -> None:
        """Nothing but a 200 is the content."""
        for status in 201, 203, 204, 206, 301, 304, 401, 403, 404, 429, 500:
            for kind in Kind:
                reason = why_not_stored(kind, status, OCI_MANIFEST, 1, LIMIT)
                self.assertIs(reason, NoStore.STATUS)

    def test_manifests(self) -> None:
        """Those that can be verified, and others that are not known not to be."""
        known = OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST
        for media_type in *known, "application/json", "application/octet-stream", "x/y; z=1":
            self.assertIsNone(why_not_stored(Kind.MANIFEST, 200, media_type, 1, LIMIT))

    def test_schema_1(self) -> None:
        for media_type in (
            "application/vnd.docker.distribution.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "Application/vnd.docker.distribution.manifest.V1+prettyjws; charset=utf-8",
        ):
            reason = why_not_stored(Kind.MANIFEST, 200, media_type, 1, LIMIT)
            self.assertIs(reason, NoStore.UNVERIFIABLE)

    def test_page(self) -> None:
        for media_type in "text/html", "Text/HTML; charset=utf-8":
            reason = why_not_stored(Kind.MANIFEST, 200, media_type, 1, LIMIT)
            self.assertIs(reason, NoStore.NOT_CONTENT)

    def test_size(self) -> None:
        """Of a manifest, if it is known before it comes."""
        for length, expected in (LIMIT, None), (None, None), (LIMIT + 1, NoStore.TOO_LARGE):
            self.assertIs(why_not_stored(Kind.MANIFEST, 200, OCI_MANIFEST, length, LIMIT), expected)

    def test_blob(self) -> None:
        """A blob may be anything: its digest tells."""
        for media_type in "text/html", "application/vnd.docker.distribution.manifest.v1+json":
            self.assertIsNone(why_not_stored(Kind.BLOB, 200, media_type, LIMIT + 1, LIMIT))


class CacheStatusTests(SynchronousTestCase):
    """CacheStatus"""

    def test_field(self) -> None:
        """RFC 9211 section 2; the examples are those of the reference."""
        for status, field, word in (
            (HIT, "regproxy; hit", "hit"),
            (CacheStatus(detail="fresh"), "regproxy; hit; detail=fresh", "hit"),
            (CacheStatus(Forward.MISS, stored=True), "regproxy; fwd=miss; stored", "miss"),
            (
                CacheStatus(Forward.MISS, collapsed=True),
                "regproxy; fwd=miss; collapsed",
                "collapsed",
            ),
            (CacheStatus(Forward.MISS), "regproxy; fwd=miss", "miss"),
            (
                CacheStatus(Forward.STALE, detail="same"),
                "regproxy; fwd=stale; detail=same",
                "stale",
            ),
            (
                CacheStatus(Forward.MISS, detail=NoStore.STATUS),
                "regproxy; fwd=miss; detail=upstream-status",
                "miss",
            ),
            (CacheStatus(Forward.BYPASS), "regproxy; fwd=bypass", "pass"),
            (CacheStatus(Forward.METHOD), "regproxy; fwd=method", "pass"),
        ):
            self.assertEqual(str(status), field)
            self.assertEqual(status.word, word)

    def test_details_are_tokens(self) -> None:
        """They need no quotes (RFC 8941 section 3.3.4)."""
        for reason in NoStore:
            self.assertRegex(reason.value, "^[a-z*][a-z0-9-]*$")

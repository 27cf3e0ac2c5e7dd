"""Tests for :mod:`regproxy.management.events`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.events import KEPT, Events
from regproxy.management.values import RequestValue
from regproxy.oci.kinds import RequestKind
from regproxy.web.access_log import AccessRecord

STARTED = 1_790_000_000.25
RECORD = AccessRecord(
    time=STARTED,
    client="192.0.2.7",
    way="connect",
    method="GET",
    registry="registry-1.docker.io",
    repository="library/debian",
    reference="latest",
    status=200,
    bytes=1000,
    duration=0.02,
    cache="stale",
    reason="revalidated",
    kind=RequestKind.TAG,
)


class EventsTests(SynchronousTestCase):
    """Events"""

    def setUp(self) -> None:
        self.events = Events(STARTED)

    def record(self, *references: str) -> None:
        for reference in references:
            self.events.record(evolve(RECORD, reference=reference))

    def references(self, limit: int = KEPT, since: int | None = None) -> list[str | None]:
        return [each.reference for each in self.events.latest(limit, since=since)]

    def test_value(self) -> None:
        self.events.record(RECORD)
        (value,) = self.events.latest()
        self.assertEqual(
            value,
            RequestValue(
                id=1_790_000_000_250_000,
                time=datetime(2026, 9, 21, 14, 13, 20, 250_000, UTC),
                client="192.0.2.7",
                way="connect",
                method="GET",
                kind=RequestKind.TAG,
                registry="registry-1.docker.io",
                repository="library/debian",
                reference="latest",
                status=200,
                bytes=1000,
                duration=0.02,
                cache="stale",
                reason="revalidated",
            ),
        )
        self.assertEqual(value.time.utcoffset(), timedelta(0))

    def test_latest_first(self) -> None:
        self.record("a", "b", "c")
        self.assertEqual(self.references(), ["c", "b", "a"])
        self.assertEqual(self.references(2), ["c", "b"])
        self.assertEqual(self.references(0), [])

    def test_bounded(self) -> None:
        """The oldest go; the numbers of the others stay theirs."""
        self.record("first")
        (first,) = self.events.latest()
        self.record(*map(str, range(KEPT)))
        latest = self.events.latest()
        self.assertEqual([each.reference for each in latest], list(map(str, reversed(range(KEPT)))))
        self.assertEqual([each.id for each in latest], list(range(first.id + KEPT, first.id, -1)))

    def test_since(self) -> None:
        """What a reader has not seen yet, be it from before a restart."""
        self.record("a", "b", "c")
        seen = self.events.latest()[1].id
        self.assertEqual(self.references(since=seen), ["c"])
        self.assertEqual(self.references(since=seen + 1), [])
        later = Events(STARTED + 0.001)
        later.record(RECORD)
        self.assertEqual(len(later.latest(since=seen + 1)), 1)

    def test_filters(self) -> None:
        """All that are named have to agree."""
        ghcr = "ghcr.io"
        for registry, cache, status in (
            (ghcr, "hit", 200),
            (ghcr, "hit", 206),
            (ghcr, "miss", 200),
            (None, "none", 400),
            ("quay.io", "hit", 200),
        ):
            self.events.record(evolve(RECORD, registry=registry, cache=cache, status=status))
        latest = self.events.latest
        self.assertEqual(len(latest(registry=ghcr)), 3)
        self.assertEqual(len(latest(registry=ghcr, cache="hit")), 2)
        self.assertEqual([each.status for each in latest(registry=ghcr, cache="hit")], [206, 200])
        self.assertEqual(len(latest(registry=ghcr, cache="hit", status=206)), 1)
        self.assertEqual(len(latest(status=200)), 3)
        (oldest,) = latest(cache="miss")
        self.assertEqual(len(latest(1, registry=ghcr, since=oldest.id)), 0)

    def test_own_pages(self) -> None:
        """Who looks does not see himself."""
        self.events.record(evolve(RECORD, way="management"))
        self.assertEqual(self.events.latest(), ())

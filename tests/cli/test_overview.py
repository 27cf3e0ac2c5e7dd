"""Tests of regproxy.cli.overview."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.overview import Look, status, top
from regproxy.cli.values import Fill, Registry, Stats, read
from tests.support.management_api import NOW, ca, fill, registry, stats
from tests.support.screen import lines_of, red

START = datetime.fromisoformat(NOW)


class StatusTests(SynchronousTestCase):
    """status"""

    def lines(self, **attributes: Any) -> list[str]:
        value = read(Stats, stats(**attributes))
        return lines_of(status(value, START + timedelta(hours=3)))

    def test_numbers(self) -> None:
        lines = self.lines(requests=12345)
        for line in (
            "Running for    3 hours",
            "Requests       12,345",
            "Hits           9 (90.0%)",
            "Saved          4.0 MiB",
            "Store          3.0 GiB of 32.0 GiB (9.4%), 1,234 blobs, 64.0 GiB free on the disk",
            "CA             CN=regproxy, valid for 3652 days, SHA-256 AB:CD",
            "Loop delay     1.0 ms (99th percentile)",
        ):
            self.assertIn(line, lines)
        self.assertNotIn("Damaged", "".join(lines))

    def test_nothing_yet(self) -> None:
        lines = self.lines(hit_ratio=None, hits=0, store=None, loop_delay_p99=None)
        self.assertIn("Hits           0 (no requests yet)", lines)
        self.assertIn("Store          does not answer in time", lines)

    def test_troubles(self) -> None:
        store = stats()["store"] | {"quarantined": 2, "disk_full": 3}
        lines = self.lines(store=store)
        self.assertIn("Damaged        2 files set aside", lines)
        self.assertIn("Disk full      3 times", lines)

    def test_rate_limits(self) -> None:
        limit = {
            "registry": "registry-1.docker.io",
            "login": "anonymous",
            "limit": 100,
            "remaining": 7,
            "window": 21600,
            "seen_at": NOW,
        }
        lines = self.lines(rate_limits=[limit, limit | {"limit": None}])
        self.assertEqual(
            [line.split() for line in lines[-2:]],
            [
                ["registry-1.docker.io", "anonymous", "7", "100"],
                ["registry-1.docker.io", "anonymous", "7"],
            ],
        )

    def test_urgent(self) -> None:
        """What people have to do something about is red."""
        for attributes, text in (
            ({"ca": ca(not_after="2026-12-24T12:00:00Z")}, "valid for 29 days"),
            ({"store": None}, "does not answer in time"),
        ):
            value = read(Stats, stats(**attributes))
            self.assertIn(text, red(status(value, START + timedelta(hours=1))))


class TopTests(SynchronousTestCase):
    """top"""

    def look(self, at: float = 10, fills: Any = (), registries: Any = (), **numbers: Any) -> Look:
        return Look(
            at,
            read(Stats, stats(**numbers)),
            read(tuple[Fill, ...], list(fills)),
            read(tuple[Registry, ...], list(registries)),
        )

    def test_speeds(self) -> None:
        """They are those since the look before."""
        before = self.look(10, requests=10, bytes_to_clients=0)
        lines = lines_of(top(self.look(14, requests=30, bytes_to_clients=8 << 20), before))
        self.assertIn("Requests       30, 5.0/s", lines)
        self.assertIn("To clients     8.0 MiB, 2.0 MiB/s", lines)
        self.assertIn("From upstream  1.0 MiB, 0 B/s", lines)

    def test_first_look(self) -> None:
        """There is no speed yet, nor after a restart of the server."""
        other = self.look(8, started_at="2026-11-20T12:00:00Z")
        for before in (None, other):
            lines = lines_of(top(self.look(), before))
            self.assertIn("To clients     5.0 MiB", lines)
            self.assertIn("No transfers now.", lines)

    def test_registries(self) -> None:
        """The busiest is first."""
        lines = lines_of(
            top(
                self.look(
                    registries=[
                        registry("ghcr.io", requests=1),
                        registry("quay.io", requests=4, hits=1, backoff_seconds=9.6),
                        registry("gcr.io", requests=2, last_error="[x] no route"),
                    ]
                ),
                None,
            )
        )
        self.assertEqual(
            [" ".join(line.split()) for line in lines if ".io" in line],
            [
                "quay.io 4 25.0% 0 B 0 B 0 left alone for 10 s",
                "gcr.io 2 0.0% 0 B 0 B 0 [x] no route",
                "ghcr.io 1 0.0% 0 B 0 B 0",
            ],
        )

    def test_fills(self) -> None:
        lines = lines_of(
            top(
                self.look(
                    fills=[
                        fill(size=4 << 20, stored=2 << 20, readers=3, bytes_per_second=1 << 20),
                        fill(size=None, stored=5),
                    ]
                ),
                None,
            ),
            width=140,
        )
        known, unknown = (line for line in lines if "ghcr.io/o/a blob" in line)
        self.assertEqual(known.split()[-4:], ["4.0", "MiB", "1.0", "MiB/s"])
        self.assertEqual(unknown.split()[-4:], ["5", "B", "0", "B/s"])

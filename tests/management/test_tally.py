"""Tests for :mod:`regproxy.management.tally`."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import Config, InterceptionSection, RegistrySection
from regproxy.management.tally import DURATIONS, Histogram, Traffic, outcome
from regproxy.oci.names import Host
from regproxy.web.access_log import AccessRecord

CONFIG = Config(Path("data"), registries={Host("registry.example.com", 5000): RegistrySection()})
RECORD = AccessRecord(
    time=1.0,
    client="192.0.2.7",
    way="connect",
    method="GET",
    registry="registry-1.docker.io",
    repository="library/debian",
    reference="latest",
    status=200,
    bytes=1000,
    duration=0.02,
    cache="hit",
    reason=None,
)


class HistogramTests(SynchronousTestCase):
    """Histogram"""

    def test_bounds(self) -> None:
        """A bound belongs to its bucket, as Prometheus's ``le`` means it."""
        histogram = Histogram((1.0, 2.0))
        for value in 0.0, 1.0, 1.5, 2.0, 2.5, 100.0:
            histogram.add(value)
        self.assertEqual(histogram.counts, [2, 2, 2])
        self.assertEqual(histogram.sum, 107.0)

    @given(st.lists(st.floats(0, 1000)))
    def test_all_are_counted(self, values: list[float]) -> None:
        histogram = Histogram(DURATIONS)
        for value in values:
            histogram.add(value)
        for index, bound in enumerate(DURATIONS):
            expected = sum(value <= bound for value in values)
            self.assertEqual(sum(histogram.counts[: index + 1]), expected)
        self.assertEqual(sum(histogram.counts), len(values))

    def test_durations_rise(self) -> None:
        self.assertEqual(list(DURATIONS), sorted(set(DURATIONS)))


class TrafficTests(SynchronousTestCase):
    """Traffic"""

    def setUp(self) -> None:
        self.traffic = Traffic(CONFIG)

    def test_record(self) -> None:
        """Requests, bytes and seconds, by what they were."""
        for record in (
            RECORD,
            RECORD,
            evolve(RECORD, status=206, bytes=1),
            evolve(RECORD, status=404, bytes=7, cache="miss"),
            evolve(RECORD, status=499, bytes=5, way="tls"),
            evolve(RECORD, registry=None, cache="none", way="management", duration=400.0),
        ):
            self.traffic.record(record)
        hub = "registry-1.docker.io"
        self.assertEqual(
            self.traffic.requests,
            {
                ("connect", hub, "hit", "2xx"): 3,
                ("connect", hub, "miss", "4xx"): 1,
                ("tls", hub, "hit", "499"): 1,
                ("management", "none", "none", "2xx"): 1,
            },
        )
        self.assertEqual(
            self.traffic.sent,
            {
                ("connect", hub, "hit"): 2001,
                ("connect", hub, "miss"): 7,
                ("tls", hub, "hit"): 5,
                ("management", "none", "none"): 1000,
            },
        )
        durations = self.traffic.durations["connect", "hit"]
        self.assertEqual((sum(durations.counts), round(durations.sum, 6)), (3, 0.06))
        self.assertEqual(durations.counts[DURATIONS.index(0.025)], 3)
        self.assertEqual(self.traffic.durations["management", "none"].counts[-1], 1)

    def test_strangers(self) -> None:
        """However many hosts clients ask for: what is not known by name is one."""
        for number in range(3000):
            for suffix in ".example.org", ".gcr.io", ".example.org:5000":
                self.traffic.record(evolve(RECORD, registry=f"h{number}{suffix}"))
        for registry in "[2001:db8::1]", "no host", "", "registry.example.com:5000":
            self.traffic.record(evolve(RECORD, registry=registry))
        self.assertEqual(
            self.traffic.requests,
            {
                ("connect", "other", "hit", "2xx"): 6003,
                ("connect", "*.gcr.io", "hit", "2xx"): 3000,
                ("connect", "registry.example.com:5000", "hit", "2xx"): 1,
            },
        )

    def test_follow(self) -> None:
        """What was counted stays; a new configuration may know other names."""
        self.traffic.record(RECORD)
        self.traffic.follow(Config(Path("data"), interception=InterceptionSection(hosts=())))
        self.traffic.record(RECORD)
        names = [registry for _, registry, _, _ in self.traffic.requests]
        self.assertEqual(names, ["registry-1.docker.io", "other"])
        self.assertEqual(self.traffic.name_of(Host("docker.io")), "other")

    def test_outcome(self) -> None:
        for status, name in {200: "2xx", 304: "3xx", 404: "4xx", 499: "499", 504: "5xx"}.items():
            self.assertEqual(outcome(status), name)

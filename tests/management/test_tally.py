"""Tests for :mod:`regproxy.management.tally`."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import Config, InterceptionSection, RegistrySection
from regproxy.management.tally import DURATIONS, Served, Traffic, outcome
from regproxy.oci.kinds import RequestKind
from regproxy.oci.names import Host
from regproxy.web.access_log import AccessRecord, UnderWay

CONFIG = Config(Path("data"), registries={Host("registry.example.com", 5000): RegistrySection()})
HUB = "registry-1.docker.io"
RECORD = AccessRecord(
    time=1.0,
    client="192.0.2.7",
    way="connect",
    method="GET",
    registry=HUB,
    repository="library/debian",
    reference="latest",
    status=200,
    bytes=1000,
    duration=0.02,
    cache="hit",
    reason=None,
    kind=RequestKind.TAG,
)
# Of the proxy's own pages.
PAGE = evolve(
    RECORD, registry=None, cache="none", way="management", kind=RequestKind.OTHER, duration=400.0
)
TUNNEL = evolve(RECORD, registry="example.org", cache="tunnel", kind=RequestKind.TUNNEL)


@frozen
class Sending:
    """A request that is being answered."""

    registry: str | None
    sentLength: int


class TrafficTests(SynchronousTestCase):
    """Traffic"""

    def setUp(self) -> None:
        self.traffic = Traffic(CONFIG)

    def record(self, *records: AccessRecord) -> None:
        for record in records:
            self.traffic.record(record)

    def test_record(self) -> None:
        """Requests, bytes and seconds, by what they were."""
        self.record(
            RECORD,
            RECORD,
            evolve(RECORD, status=206, bytes=1),
            evolve(RECORD, status=206, bytes=30, kind=RequestKind.BLOB),
            evolve(RECORD, status=404, bytes=7, cache="miss"),
            evolve(RECORD, status=499, bytes=5, way="tls"),
            PAGE,
        )
        self.assertEqual(
            self.traffic.requests(),
            {
                ("connect", HUB, "tag", "hit", "2xx"): 3,
                ("connect", HUB, "blob", "hit", "2xx"): 1,
                ("connect", HUB, "tag", "miss", "4xx"): 1,
                ("tls", HUB, "tag", "hit", "499"): 1,
                ("management", "none", "other", "none", "2xx"): 1,
            },
        )
        self.assertEqual(
            self.traffic.sent(),
            {
                ("connect", HUB, "hit"): 2031,
                ("connect", HUB, "miss"): 7,
                ("tls", HUB, "hit"): 5,
                ("management", "none", "none"): 1000,
            },
        )
        durations = self.traffic.durations()
        tags = durations["connect", "tag", "hit"]
        self.assertEqual((sum(tags.counts), round(tags.sum, 6)), (3, 0.06))
        self.assertEqual(tags.counts[DURATIONS.index(0.025)], 3)
        self.assertEqual(durations["management", "other", "none"].counts[-1], 1)

    def test_durations_of_all(self) -> None:
        """Registries and outcomes are taken together, and looking changes nothing."""
        self.record(RECORD, evolve(RECORD, registry="quay.io"), evolve(RECORD, status=304))
        for _ in range(2):
            ((labels, histogram),) = self.traffic.durations().items()
            self.assertEqual(labels, ("connect", "tag", "hit"))
            self.assertEqual(sum(histogram.counts), 3)

    def test_durations_rise(self) -> None:
        self.assertEqual(list(DURATIONS), sorted(set(DURATIONS)))

    def test_served(self) -> None:
        """What was given of content, and which of it a registry did not have to send."""
        blob = evolve(RECORD, kind=RequestKind.BLOB, bytes=100)
        self.record(
            *(evolve(blob, cache=cache) for cache in ("hit", "collapsed", "miss", "pass")),
            evolve(blob, kind=RequestKind.MANIFEST),
            evolve(blob, kind=RequestKind.TAG, cache="stale", status=304, bytes=0),
            evolve(blob, status=499, bytes=40),
            # Refused, and asked for on the way to it.
            evolve(blob, status=401, cache="pass", bytes=3),
            evolve(blob, kind=RequestKind.TOKEN, cache="pass", bytes=4),
            evolve(blob, registry="quay.io", cache="miss"),
            TUNNEL,
            PAGE,
        )
        self.assertEqual(
            self.traffic.served(), {HUB: Served(7, 5, 547), "quay.io": Served(1, 0, 100)}
        )

    def test_served_so_far(self) -> None:
        """Bytes of a long answer are there as it goes on; those of pages are nobody's."""
        under_way: set[UnderWay] = {Sending(HUB, 70), Sending(None, 5), Sending("quay.io", 8)}
        traffic = Traffic(CONFIG, under_way)
        traffic.record(RECORD)
        expected = {HUB: Served(1, 1, 70 + RECORD.bytes), "quay.io": Served(0, 0, 8)}
        self.assertEqual(traffic.served(), expected)

    def test_served_together(self) -> None:
        self.assertEqual(Served(1, 2, 3) + Served(10, 20, 30), Served(11, 22, 33))

    def test_strangers(self) -> None:
        """However many hosts clients ask for: what is not known by name is one."""
        for number in range(3000):
            for suffix in ".example.org", ".gcr.io", ".example.org:5000":
                self.record(evolve(RECORD, registry=f"h{number}{suffix}"))
        for registry in "[2001:db8::1]", "no host", "", "registry.example.com:5000":
            self.record(evolve(RECORD, registry=registry))
        self.assertEqual(
            self.traffic.requests(),
            {
                ("connect", "other", "tag", "hit", "2xx"): 6003,
                ("connect", "*.gcr.io", "tag", "hit", "2xx"): 3000,
                ("connect", "registry.example.com:5000", "tag", "hit", "2xx"): 1,
            },
        )

    def test_follow(self) -> None:
        """What came before stays as it was; a new configuration may know other names."""
        self.record(RECORD)
        self.traffic.follow(Config(Path("data"), interception=InterceptionSection(hosts=())))
        self.record(RECORD)
        names = [registry for _, registry, *_ in self.traffic.requests()]
        self.assertEqual(names, [HUB, "other"])
        self.assertEqual(self.traffic.name_of(Host("docker.io")), "other")

    def test_outcome(self) -> None:
        for status, name in {200: "2xx", 304: "3xx", 404: "4xx", 499: "499", 504: "5xx"}.items():
            self.assertEqual(outcome(status), name)

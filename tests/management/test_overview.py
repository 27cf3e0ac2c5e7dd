"""Tests for :mod:`regproxy.management.overview`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import fail
from twisted.web.http_headers import Headers

from regproxy import __version__
from regproxy.config.model import Config, Push, RegistrySection
from regproxy.management.loop_delay import INTERVAL, RECENT
from regproxy.management.values import RateLimitValue, RegistryValue, Stats, StoreValue
from regproxy.oci.kinds import RequestKind
from regproxy.oci.names import DOCKER_HUB, Host
from regproxy.store.errors import IndexFailed
from regproxy.store.housekeeping import StoreStats
from regproxy.upstream.errors import UpstreamBroken
from regproxy.upstream.rate_limits import Speaker
from regproxy.web.access_log import AccessRecord
from tests.support.api import PartsCase
from tests.support.upstream import FakeUpstream, Reply

HUB = Host(DOCKER_HUB)
RECORD = AccessRecord(
    time=1.0,
    client="10.0.0.7",
    way="connect",
    method="GET",
    registry=DOCKER_HUB,
    repository="library/debian",
    reference="latest",
    status=200,
    bytes=1000,
    duration=0.02,
    cache="hit",
    reason=None,
    kind=RequestKind.BLOB,
)


class StatsTests(PartsCase):
    maxDiff = None

    def stats(self) -> Stats:
        return self.finish(self.parts.overview.stats())

    def test_nothing(self) -> None:
        stats = self.stats()
        self.assertEqual(stats.version, __version__)
        self.assertEqual(stats.started_at, datetime.fromtimestamp(1000.0, UTC))
        self.assertIsNone(stats.hit_ratio)
        self.assertIsNone(stats.loop_delay_p99)
        self.assertEqual((stats.requests, stats.hits, stats.bytes_saved), (0, 0, 0))
        self.assertEqual((stats.connections, stats.ca), (3, self.rooms.ca()))

    def test_traffic(self) -> None:
        for change in (
            {},
            {"cache": "miss", "bytes": 500},
            {"registry": "ghcr.io"},
            {"kind": RequestKind.PING, "bytes": 3},
        ):
            self.traffic.record(evolve(RECORD, **change))
        self.ledger.of(HUB).bytes = 600
        stats = self.stats()
        self.assertEqual((stats.requests, stats.hits, stats.hit_ratio), (3, 2, 2 / 3))
        self.assertEqual(stats.bytes_to_clients, 2503)
        self.assertEqual(stats.bytes_from_upstream, 600)
        self.assertEqual(stats.bytes_saved, 1903)

    def test_more_fetched_than_sent(self) -> None:
        """As when all clients have left: nothing was saved, and nothing less than that."""
        self.ledger.of(HUB).bytes = 600
        self.assertEqual(self.stats().bytes_saved, 0)

    def test_store(self) -> None:
        self.put(b"content")
        store = self.stats().store
        assert store is not None
        self.assertEqual((store.bytes, store.blobs), (7, 1))
        self.assertGreater(store.free, 0)
        self.assertEqual(set(StoreStats.__annotations__), set(StoreValue.__annotations__))

    def test_store_that_fails(self) -> None:
        self.patch(self.rooms.housekeeping, "stats", lambda: fail(IndexFailed("disk I/O error")))
        self.assertIsNone(self.stats().store)

    def test_rate_limits(self) -> None:
        """Readings have the time that people have."""
        self.clock.advance(50)
        self.rooms.rate_limits.note(
            HUB, Speaker.OWN, Headers({"ratelimit-remaining": ["76;w=21600"]})
        )
        self.clock.advance(10)
        self.time += 10
        self.assertEqual(
            self.stats().rate_limits,
            (
                RateLimitValue(
                    registry=DOCKER_HUB,
                    login="own",
                    limit=None,
                    remaining=76,
                    window=21600,
                    seen_at=datetime.fromtimestamp(1000.0, UTC),
                ),
            ),
        )

    def test_loop_delay(self) -> None:
        """What was long ago is not told."""
        self.rooms.loop_delay.startService()
        self.addCleanup(self.rooms.loop_delay.stopService)
        self.clock.advance(INTERVAL + 2.0)
        self.assertAlmostEqual(self.stats().loop_delay_p99 or 0.0, 2.0)
        for _ in range(RECENT):
            self.clock.advance(INTERVAL)
        self.assertAlmostEqual(self.stats().loop_delay_p99 or 0.0, 0.0)


class RegistriesTests(PartsCase):
    maxDiff = None

    def registries(self) -> dict[str, RegistryValue]:
        found = self.parts.overview.registries()
        self.assertEqual([each.name for each in found], sorted(each.name for each in found))
        return {each.name: each for each in found}

    def test_none(self) -> None:
        """What is only intercepted when somebody asks for it is not shown."""
        self.assertEqual(self.registries(), {})

    def test_configured(self) -> None:
        section = RegistrySection(
            upstream=("https://mirror.example.com", "https://ghcr.io"),
            username="team",
            password="hunter2",
            push=Push.DENY,
        )
        config = Config(Path("data"), registries={Host("ghcr.io"): section})
        self.parts.overview.follow(config)
        found = self.registries()
        self.assertEqual(
            found["ghcr.io"],
            RegistryValue(
                name="ghcr.io",
                upstream=section.upstream,
                auth="inject",
                access="shared",
                push="deny",
                requests=0,
                hits=0,
                bytes_to_clients=0,
                bytes_from_upstream=0,
                errors=0,
                last_error=None,
                last_error_at=None,
                backoff_seconds=0.0,
                latency_p50=None,
            ),
        )
        self.assertNotIn("hunter2", repr(found))

    def test_used(self) -> None:
        self.traffic.record(RECORD)
        self.traffic.record(evolve(RECORD, cache="miss"))
        figures = self.ledger.of(HUB)
        figures.bytes = 900
        for seconds in (0.1, 0.2, 0.9):
            figures.answered(seconds)
        figures.failed(UpstreamBroken("it broke off"))
        found = self.registries()
        hub = found[DOCKER_HUB]
        self.assertEqual(hub.upstream, ("https://registry-1.docker.io",))
        self.assertEqual((hub.requests, hub.hits), (2, 1))
        self.assertEqual((hub.bytes_to_clients, hub.bytes_from_upstream), (2000, 900))
        self.assertEqual((hub.errors, hub.last_error), (1, "it broke off"))
        self.assertEqual(hub.last_error_at, datetime.fromtimestamp(1000.0, UTC))
        self.assertEqual(hub.latency_p50, 0.2)

    def test_pattern(self) -> None:
        """What counts under a pattern has no one address."""
        self.traffic.record(evolve(RECORD, registry="eu.gcr.io"))
        found = self.registries()
        self.assertEqual(list(found), ["*.gcr.io"])
        self.assertEqual((found["*.gcr.io"].upstream, found["*.gcr.io"].auth), ((), "forward"))

    def test_no_registries(self) -> None:
        """What is counted and belongs to none."""
        for registry in (None, "example.com", "not a host"):
            self.traffic.record(evolve(RECORD, registry=registry))
        self.assertEqual(self.registries(), {})

    def test_backoff(self) -> None:
        self.traffic.record(RECORD)
        upstream = FakeUpstream()
        upstream.on("HEAD", f"{HUB}/", Reply(429, {"Retry-After": "60"}))
        asking = upstream.request(b"HEAD", HUB, b"/", headers=Headers())
        self.rooms.backoff.note(HUB, self.finish(asking))
        self.clock.advance(15)
        self.assertEqual(self.registries()[DOCKER_HUB].backoff_seconds, 45.0)

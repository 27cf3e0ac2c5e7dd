"""Tests for :mod:`regproxy.management.metrics`: the page, as Prometheus's own parser reads it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from attrs import evolve
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_open_metrics,
)
from twisted.internet.defer import fail
from twisted.internet.protocol import Protocol

from regproxy import __version__
from regproxy.config.model import CacheSection
from regproxy.management.blobs import Unsent
from regproxy.management.metrics import FILL_REASONS, UPSTREAM_REASONS
from regproxy.oci.names import DOCKER_HUB, Digest, Host
from regproxy.registry.transfer import Abandoned
from regproxy.store.errors import FillFailed, IndexFailed
from regproxy.store.housekeeping import Housekeeping
from regproxy.upstream.errors import UpstreamError, UpstreamTimeout
from regproxy.upstream.rate_limits import Speaker
from tests.support.metrics import HUB, RECORD, MetricsCase

REFERENCE = Path(__file__).resolve().parents[2] / "docs/reference/metrics.md"


class PageTests(MetricsCase):
    """The page"""

    def test_traffic(self) -> None:
        """What the access log was told."""
        self.sources.traffic.record(RECORD)
        self.sources.traffic.record(evolve(RECORD, duration=7.0))
        labels = {"way": "connect", "registry": DOCKER_HUB, "cache": "hit"}
        self.assertEqual(self.value("requests_total", **labels, kind="tag", status="2xx"), 2)
        self.assertEqual(self.value("sent_bytes_total", **labels), 2000)
        labels = {"way": "connect", "kind": "tag", "cache": "hit"}
        for bound, count in {"0.01": 0, "0.025": 1, "5.0": 1, "10.0": 2, "+Inf": 2}.items():
            name = "request_duration_seconds_bucket"
            self.assertEqual(self.value(name, **labels, le=bound), count, bound)
        self.assertEqual(self.value("request_duration_seconds_count", **labels), 2)
        self.assertEqual(self.value("request_duration_seconds_sum", **labels), 7.02)

    def test_rate_limits(self) -> None:
        """What registries said, by the name that they are known under."""
        name = "upstream_ratelimit_remaining"
        self.limit(HUB, Speaker.OWN, "76;w=21600", "100;w=21600")
        self.limit(HUB, Speaker.ANONYMOUS, "9;w=21600")
        self.assertEqual(self.value(name, registry=DOCKER_HUB, login="own"), 76)
        self.assertEqual(self.value(name, registry=DOCKER_HUB, login="anonymous"), 9)
        limit = "upstream_ratelimit_limit"
        self.assertEqual(self.value(limit, registry=DOCKER_HUB, login="own"), 100)
        self.assertIsNone(self.value(limit, registry=DOCKER_HUB, login="anonymous"))
        self.clock.advance(21600)
        self.assertIsNone(self.value(name, registry=DOCKER_HUB, login="own"))

    def test_rate_limits_under_one_name(self) -> None:
        """Of several the latest is shown."""
        for host in "eu.gcr.io", "us.gcr.io":
            self.limit(Host(host), Speaker.OWN, f"{len(host)}")
        self.limit(Host("eu.gcr.io"), Speaker.OWN, "3")
        name = "upstream_ratelimit_remaining"
        self.assertEqual(self.value(name, registry="*.gcr.io", login="own"), 3)

    def test_rate_limits_of_strangers(self) -> None:
        """What a content network counts is nobody's pulls."""
        self.limit(Host("cdn.example.net"), Speaker.ANONYMOUS, "5", "10")
        for name in "upstream_ratelimit_remaining", "upstream_ratelimit_limit":
            self.assertIsNone(self.value(name, registry="other", login="anonymous"))

    def test_backoff(self) -> None:
        """As long as it lasts; the longest of several under one name."""
        name = "upstream_backoff_seconds"
        self.rest(HUB, "60")
        self.rest(Host("eu.gcr.io"), "90")
        self.rest(Host("us.gcr.io"), "30")
        self.clock.advance(20)
        self.assertEqual(self.value(name, registry=DOCKER_HUB), 40)
        self.assertEqual(self.value(name, registry="*.gcr.io"), 70)
        self.clock.advance(40)
        self.assertIsNone(self.value(name, registry=DOCKER_HUB))

    def test_store(self) -> None:
        self.put(b"content")
        self.assertEqual(self.value("store_bytes"), 7)
        self.assertEqual(self.value("store_blobs"), 1)
        self.assertEqual(self.value("store_limit_bytes"), CacheSection().max_size)
        self.assertGreater(self.value("store_free_bytes") or 0, 0)
        self.housekeeping.relieve(0)
        self.assertEqual(self.value("store_disk_full_total"), 1)

    def test_fills(self) -> None:
        self.assertEqual(self.value("fills_in_flight"), 0)
        fill = self.finish(self.store.begin(Digest.of(b"content"), 7))
        self.assertEqual(self.value("fills_in_flight"), 1)
        fill.write(0, b"content")
        self.assertEqual(self.value("fills_in_flight"), 0)
        self.finish(self.store.begin(Digest.of(b"more"), 4)).write(0, b"less")
        self.store.fill_counts.resume()
        self.assertEqual(self.value("fills_started_total"), 2)
        self.assertEqual(self.value("fills_resumed_total"), 1)
        for reason, count in {"digest": 1, "disk": 0}.items():
            self.assertEqual(self.value("fills_failed_total", reason=reason), count)

    def test_upstream(self) -> None:
        """What there was with a registry, under the name that it counts under."""
        for host in "eu.gcr.io", "us.gcr.io":
            figures = self.sources.ledger.of(Host(host))
            figures.bytes += 7
            figures.answered(0.2)
            figures.refused(host, 503)
        self.sources.ledger.of(Host("us.gcr.io")).failed(UpstreamTimeout("too slow"))
        gcr = {"registry": "*.gcr.io"}
        self.assertEqual(self.value("upstream_received_bytes_total", **gcr), 14)
        self.assertEqual(self.value("upstream_first_byte_seconds_bucket", **gcr, le="0.1"), 0)
        self.assertEqual(self.value("upstream_first_byte_seconds_bucket", **gcr, le="0.25"), 2)
        for reason, count in {"server-error": 2, "timeout": 1, "login": 0}.items():
            self.assertEqual(self.value("upstream_errors_total", **gcr, reason=reason), count)

    def test_clients(self) -> None:
        """Connections, handshakes and certificates."""
        self.assertEqual(self.value("tls_handshakes_total", result="untrusted"), 0)
        handshakes = self.sources.handshakes
        handshakes.completed, handshakes.untrusted, handshakes.failed = 3, 2, 1
        for result, count in {"completed": 3, "untrusted": 2, "failed": 1}.items():
            self.assertEqual(self.value("tls_handshakes_total", result=result), count)
        for name in "ghcr.io", "ghcr.io", "quay.io":
            self.sources.leaves.context(name)
        self.assertEqual(self.value("tls_leaves_issued_total"), 2)
        self.assertEqual(self.value("tls_leaves_kept"), 2)
        protocol = Protocol()
        self.sources.connections.watch("tls", protocol)
        self.assertEqual(self.value("open_connections", listener="tls"), 1)
        protocol.connectionLost()
        self.assertEqual(self.value("open_connections", listener="tls"), 0)

    def test_process(self) -> None:
        """The version, the CA, the reactor and the process."""
        self.assertIsNone(self.value("loop_delay_p99_seconds"))
        self.delay(0.03)
        self.assertAlmostEqual(self.value("loop_delay_p99_seconds") or 0.0, 0.03)
        self.assertEqual(self.value("build_info", version=__version__), 1)
        expiry = datetime(2036, 3, 9, tzinfo=UTC).timestamp()
        self.assertEqual(self.value("ca_expiry_timestamp_seconds"), expiry)
        self.assertEqual(self.value("loop_delay_seconds_bucket", le="0.025"), 0)
        self.assertEqual(self.value("loop_delay_seconds_bucket", le="0.05"), 1)
        self.assertIn("process_resident_memory_bytes", self.families())
        self.assertIn("python_gc_collections", self.families())

    def test_store_fails(self) -> None:
        """The page comes without what the store does not tell."""
        self.patch(Housekeeping, "stats", lambda _: fail(IndexFailed("disk full")))
        families = self.families()
        self.assertNotIn("regproxy_store_bytes", families)
        self.assertIn("regproxy_fills_in_flight", families)


class FormatTests(MetricsCase):
    """What Prometheus makes of it."""

    def test_formats(self) -> None:
        """The text that it always knew, and OpenMetrics for who wants that."""
        self.fill()
        media_type, _ = self.finish(self.metrics.page("text/html, */*"))
        self.assertTrue(media_type.startswith("text/plain; version=0.0.4"), media_type)
        media_type, _ = self.finish(self.metrics.page("application/openmetrics-text;version=x"))
        self.assertTrue(media_type.startswith("text/plain; version=0.0.4"))
        accept = "application/openmetrics-text;version=1.0.0;q=0.9, text/plain;q=0.5"
        media_type, page = self.finish(self.metrics.page(accept))
        self.assertTrue(media_type.startswith("application/openmetrics-text"), media_type)
        found = {each.name for each in parse_open_metrics(page.decode())}
        self.assertEqual(found, set(self.families()))

    def test_conventions(self) -> None:
        """Prometheus's "Metric and label naming": base units, and ``_total`` for counters."""
        self.fill()
        for name, family in self.families().items():
            self.assertTrue(family.documentation)
            if not name.startswith("regproxy_"):
                self.assertRegex(name, "^(process|python)_")
                continue
            self.assertNotRegex(name, "milli|micro|percent|kilo|mega|gauge|counter")
            for sample in family.samples:
                self.assertEqual(sample.name.endswith("_total"), family.type == "counter")

    maxDiff = None

    def test_reference(self) -> None:
        """The reference has each metric, with its type and labels, and no others."""
        self.fill()
        table = {
            match[1]: (match[2], frozenset(re.findall(r"`(\w+)`", match[3])))
            for match in re.finditer(
                r"^\| `(regproxy_\w+)` \| (\w+) \|([^|]*)\|", REFERENCE.read_text(), re.MULTILINE
            )
        }
        self.assertEqual(table, self.shown())

    def test_reasons(self) -> None:
        """So are the words for what goes wrong."""
        text = REFERENCE.read_text()
        _, _, rows = text.partition("| `reason` | meaning |\n|---|---|\n")
        cells = (row.split("|")[1] for row in rows.partition("\n\n")[0].splitlines())
        table = {reason for cell in cells for reason in re.findall(r"`([\w-]+)`", cell)}
        self.assertEqual(table, set(UPSTREAM_REASONS))
        others = re.search(r"A transfer's `reason` is one of those above, or ([^.]*)\.", text)
        assert others is not None
        named = set(re.findall(r"`(\w+)`", others[1]))
        self.assertEqual(named | table, set(FILL_REASONS))

    def test_all_reasons(self) -> None:
        """None that an error can have is left out."""
        upstream = reasons(UpstreamError)
        self.assertEqual(upstream | {"server-error"}, set(UPSTREAM_REASONS))
        store = reasons(FillFailed) | {Abandoned.reason, Unsent.reason}
        self.assertEqual(store | set(UPSTREAM_REASONS), set(FILL_REASONS))

    def shown(self) -> dict[str, tuple[str, frozenset[str]]]:
        """Type and labels of each metric on the page. The parser cuts ``_total`` off."""
        found = {}
        for name, family in self.families().items():
            if name.startswith("regproxy_"):
                labels = {label for sample in family.samples for label in sample.labels}
                self.assertTrue(family.samples, name)
                suffix = "_total" if family.type == "counter" else ""
                found[name + suffix] = family.type, frozenset(labels - {"le"})
        return found


def reasons(base: type[UpstreamError] | type[FillFailed]) -> set[str]:
    """The reasons of all errors of this program that are kinds of *base*."""
    found = set()
    waiting = [base]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("regproxy."):
            found.add(kind.reason)
    return found

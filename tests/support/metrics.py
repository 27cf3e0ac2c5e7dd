"""Metrics over a store of their own, with something in every place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from regproxy.config.model import CacheSection, Config
from regproxy.management.connections import Connections
from regproxy.management.loop_delay import INTERVAL, LoopDelay
from regproxy.management.metrics import Metrics, Sources
from regproxy.management.tally import Traffic
from regproxy.oci.kinds import RequestKind
from regproxy.oci.names import DOCKER_HUB, Digest, Host
from regproxy.registry.backoff import BackOff
from regproxy.store.errors import Stopped
from regproxy.store.housekeeping import Housekeeping
from regproxy.tls.authority import CertificateAuthority
from regproxy.tls.leaves import LeafCache
from regproxy.tls.server import Handshakes
from regproxy.upstream.errors import UpstreamTimeout
from regproxy.upstream.ledger import Ledger
from regproxy.upstream.rate_limits import RateLimits, Speaker
from regproxy.web.access_log import AccessRecord
from tests.support.caches import CacheCase
from tests.support.certificates import make_ca
from tests.support.upstream import FakeUpstream, Reply

HUB = Host(DOCKER_HUB)
RECORD = AccessRecord(
    time=1.0,
    client="192.0.2.7",
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
    kind=RequestKind.TAG,
)


class MetricsCase(CacheCase):
    """Metrics over a store of its own, with something in every place."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.housekeeping = Housekeeping(
            self.store, self.directory, self.workers, self.clock, lambda: 0.0, CacheSection()
        )
        traffic = Traffic(Config(Path("data")))
        ca = make_ca()
        self.sources = Sources(
            traffic=traffic,
            ledger=Ledger(traffic.name_of, self.clock.seconds),
            rate_limits=RateLimits(self.clock),
            backoff=BackOff(self.clock, self.clock.seconds),
            store=self.store,
            housekeeping=self.housekeeping,
            connections=Connections(),
            handshakes=Handshakes(),
            leaves=LeafCache(
                CertificateAuthority(ca.key, (ca.certificate,)), lambda: datetime.now(UTC)
            ),
            loop_delay=LoopDelay(self.clock, self.clock.seconds),
            ca_expires=lambda: datetime(2036, 3, 9, tzinfo=UTC),
        )
        self.metrics = Metrics(self.sources, self.clock)

    def fill(self) -> None:
        """Have every metric have a value."""
        self.sources.traffic.record(RECORD)
        self.limit(HUB, Speaker.OWN, "76;w=21600", "100;w=21600")
        self.rest(HUB, "60")
        self.sources.connections.watch("proxy", Protocol())
        figures = self.sources.ledger.of(HUB)
        figures.answered(0.03)
        figures.failed(UpstreamTimeout("it did not answer in time"))
        self.finish(self.store.begin(Digest.of(b"content"), 7)).fail(Failure(Stopped()))
        self.delay(0.03)

    def delay(self, seconds: float) -> None:
        """A timer fires late."""
        delay = self.sources.loop_delay
        delay.startService()
        (call,) = self.clock.getDelayedCalls()
        call.delay(seconds)
        self.clock.advance(INTERVAL + seconds)
        delay.stopService()

    def limit(self, host: Host, speaker: Speaker, remaining: str, limit: str | None = None) -> None:
        """A registry says how much it lets be asked."""
        headers = Headers({"ratelimit-remaining": [remaining]})
        if limit is not None:
            headers.addRawHeader("ratelimit-limit", limit)
        self.sources.rate_limits.note(host, speaker, headers)

    def rest(self, host: Host, seconds: str) -> None:
        """A registry wants to be left alone."""
        upstream = FakeUpstream()
        upstream.on("HEAD", f"{host}/", Reply(429, {"Retry-After": seconds}))
        asking = upstream.request(b"HEAD", host, b"/", headers=Headers())
        self.sources.backoff.note(host, self.finish(asking))

    def page(self, accept: str = "") -> str:
        return self.finish(self.metrics.page(accept))[1].decode()

    def families(self) -> dict[str, Metric]:
        """The metrics on the page, by name."""
        return {each.name: each for each in text_string_to_metric_families(self.page())}

    def value(self, name: str, **labels: str) -> float | None:
        """The value with these labels; None when there is none."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
            if sample.name == f"regproxy_{name}" and sample.labels == labels
        ]
        self.assertLessEqual(len(found), 1)
        return found[0] if found else None

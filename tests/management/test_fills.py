"""Tests for :mod:`regproxy.management.fills`."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from regproxy.management.fills import Fills
from regproxy.management.values import FillState, FillValue
from regproxy.oci.names import Digest, Host, Repository
from regproxy.store.errors import Stopped
from regproxy.store.fill import Fill, Origin
from regproxy.store.store import Store
from tests.support.caches import CacheCase

CONTENT = b"content of a layer"
DIGEST = Digest.of(CONTENT)
ORIGIN = Origin(Host("ghcr.io"), Repository("o/app"), "blob")


class FillsTests(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.store = Store(self.directory, self.index, self.workers, self.clock, lambda: self.time)
        self.fills = Fills(self.store, self.clock, lambda: self.time)

    def begin(self, size: int | None = None) -> Fill:
        fill = self.finish(self.store.begin(DIGEST, size))
        fill.origin = ORIGIN
        return fill

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.time += seconds

    def test_value(self) -> None:
        fill = self.begin()
        reader = fill.reader()
        self.addCleanup(reader.close)
        self.assertEqual(self.fills.values()[0].bytes_per_second, 0.0)
        fill.write(0, CONTENT[:8])
        self.wait(4)
        expected = FillValue(
            digest=str(DIGEST),
            registry="ghcr.io",
            repository="o/app",
            kind="blob",
            state=FillState.RUNNING,
            size=None,
            stored=8,
            readers=1,
            started_at=datetime.fromtimestamp(1000.0, UTC),
            bytes_per_second=2.0,
        )
        self.assertEqual(self.fills.values(), (expected,))
        self.assertEqual(self.fills.running(), [fill])

    def test_unknown_origin(self) -> None:
        """Of what is put there by other ways there is nothing to tell."""
        self.finish(self.store.begin(DIGEST, None))
        self.assertEqual(self.fills.values(), ())

    def test_done(self) -> None:
        fill = self.begin(len(CONTENT))
        fill.write(0, CONTENT)
        self.assertEqual(self.fills.value(fill).state, FillState.DONE)
        self.assertEqual(self.fills.values(), ())

    def test_failed(self) -> None:
        fill = self.begin()
        fill.fail(Failure(Stopped()))
        self.assertEqual(self.fills.value(fill).state, FillState.FAILED)

    def test_resumed(self) -> None:
        """What was here before did not come at this rate."""
        first = self.begin(len(CONTENT))
        first.write(0, CONTENT[:8])
        first.fail(Failure(Stopped()), keep=True)
        fill = self.begin(len(CONTENT))
        fill.write(8, CONTENT[8:12])
        self.wait(2)
        value = self.fills.value(fill)
        self.assertEqual((value.stored, value.bytes_per_second), (12, 2.0))

"""Tests for :mod:`regproxy.upstream.ledger`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Host
from regproxy.upstream.errors import UpstreamTimeout, UpstreamUnreachable
from regproxy.upstream.ledger import FIRST_BYTE, RECENT, Figures, Ledger, Mishap


class FiguresTests(SynchronousTestCase):
    """Figures"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.figures = Figures(self.clock.seconds)

    def test_latency(self) -> None:
        """What it is now, whatever it was once."""
        self.assertIsNone(self.figures.latency)
        for seconds in 0.1, 9.0, 0.2:
            self.figures.answered(seconds)
        self.assertEqual(self.figures.latency, 0.2)
        for _ in range(RECENT):
            self.figures.answered(3.0)
        self.assertEqual(self.figures.latency, 3.0)
        self.assertEqual(sum(self.figures.first_byte.counts), RECENT + 3)

    def test_bounds_rise(self) -> None:
        self.assertEqual(list(FIRST_BYTE), sorted(set(FIRST_BYTE)))

    def test_errors(self) -> None:
        """Each under its reason; the last one in words."""
        self.assertIsNone(self.figures.last_error)
        self.figures.failed(UpstreamTimeout("a did not answer in time"))
        self.figures.failed(UpstreamTimeout("a did not answer in time"))
        self.figures.refused("a", 429)
        self.clock.advance(7)
        self.figures.refused("a", 503)
        self.assertEqual(self.figures.errors, {"timeout": 2, "rate-limited": 1, "server-error": 1})
        self.assertEqual(self.figures.last_error, Mishap("a answered 503", 7.0))
        self.figures.failed(UpstreamUnreachable("cannot connect to a"))
        self.assertEqual(self.figures.last_error, Mishap("cannot connect to a", 7.0))


class LedgerTests(SynchronousTestCase):
    """Ledger"""

    def setUp(self) -> None:
        self.names = {"a.gcr.io": "*.gcr.io", "b.gcr.io": "*.gcr.io"}
        self.ledger = Ledger(lambda host: self.names.get(str(host), "other"), lambda: 0.0)

    def test_by_name(self) -> None:
        """Hosts that count under one name are one."""
        self.ledger.of(Host("a.gcr.io")).bytes += 1
        self.ledger.of(Host("b.gcr.io")).bytes += 2
        self.ledger.of(Host("c.example.org")).bytes += 4
        self.ledger.of(Host("d.example.org")).bytes += 8
        found = {name: figures.bytes for name, figures in self.ledger.figures.items()}
        self.assertEqual(found, {"*.gcr.io": 3, "other": 12})
        self.assertEqual(self.ledger.bytes, 15)

    def test_names_change(self) -> None:
        """A new configuration may know a host by another name; what was counted stays."""
        self.ledger.of(Host("a.gcr.io")).bytes += 1
        self.names["a.gcr.io"] = "a.gcr.io"
        self.ledger.of(Host("a.gcr.io")).bytes += 2
        found = {name: figures.bytes for name, figures in self.ledger.figures.items()}
        self.assertEqual(found, {"*.gcr.io": 1, "a.gcr.io": 2})

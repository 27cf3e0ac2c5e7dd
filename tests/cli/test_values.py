"""Tests of regproxy.cli.values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.errors import CommandFailed
from regproxy.cli.values import CA, Image, Job, Stats, read
from tests.support.management_api import ca, image_value, job, stats


class ReadTests(SynchronousTestCase):
    """read"""

    def test_values(self) -> None:
        """What the API says is understood; times are aware."""
        value = read(Stats, stats())
        self.assertEqual(value.started_at, datetime(2026, 11, 24, 12, tzinfo=UTC))
        self.assertEqual(value.ca.subject, "CN=regproxy")
        self.assertIsNone(read(Stats, stats(store=None)).store)

    def test_more_than_is_known(self) -> None:
        """A newer server may say more."""
        self.assertEqual(read(Job, job("done") | {"new": 1}).state, "done")

    def test_lists(self) -> None:
        images = read(tuple[Image, ...], [image_value("h/a:1"), image_value("h/b:1")])
        self.assertEqual([each.reference for each in images], ["h/a:1", "h/b:1"])

    def test_something_else(self) -> None:
        """Whatever else comes is one clear error."""
        lacking = ca()
        del lacking["subject"]
        cases: list[tuple[type, Any]] = [
            (CA, None),
            (CA, []),
            (CA, lacking),
            (CA, ca(not_after=1)),
            (CA, ca(not_after="2026-11-24T12:00:00")),
            (Stats, stats(requests="many")),
            (Job, job(images=[1])),
        ]
        for cls, value in cases:
            error = self.assertRaises(CommandFailed, read, cls, value)
            self.assertIn("is not understood", error.message)

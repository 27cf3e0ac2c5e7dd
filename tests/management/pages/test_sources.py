"""Tests for :mod:`regproxy.management.pages.sources`."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.events import Events
from regproxy.management.fills import Fills
from regproxy.management.history import History
from regproxy.management.images import Images
from regproxy.management.jobs import Jobs
from regproxy.management.overview import Overview
from regproxy.management.pages import sources

REAL: tuple[tuple[type[Any], type[Any]], ...] = (
    (sources.Overview, Overview),
    (sources.Events, Events),
    (sources.History, History),
    (sources.Fills, Fills),
    (sources.Jobs, Jobs),
    (sources.Images, Images),
)


def _positional(parameters: Mapping[str, Parameter]) -> list[str]:
    return [
        name for name, each in parameters.items() if each.kind is Parameter.POSITIONAL_OR_KEYWORD
    ]


class SourcesTests(SynchronousTestCase):
    """What the pages ask for is what there is."""

    def test_real(self) -> None:
        """The parts of the proxy have each method, and it can be called so."""
        for wanted, real in REAL:
            names = [name for name in vars(wanted) if not name.startswith("_")]
            self.assertNotEqual(names, [])
            for name in names:
                # Keyword arguments are asked for by name, in whatever order.
                found = signature(getattr(real, name)).parameters
                expected = signature(getattr(wanted, name)).parameters
                self.assertLessEqual(set(expected), set(found))
                first = _positional(expected)
                self.assertEqual(_positional(found)[: len(first)], first)

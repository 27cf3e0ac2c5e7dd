"""Fetching of images that comes to its end when the test says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from regproxy.oci.manifests import Platform
from regproxy.oci.references import ImageName
from regproxy.registry.prefetch import Meter


class FakePrefetch:
    """Fetches nothing.

    Attributes:
        begun: what is, or was, fetched, with what the test tells of it.
    """

    def __init__(self) -> None:
        self.begun: dict[str, Fetched] = {}

    async def fetch(
        self, name: ImageName, platforms: Sequence[Platform] | None, meter: Meter
    ) -> None:
        """See :class:`regproxy.registry.prefetch.Prefetch`."""
        fetched = self.begun[str(name)] = Fetched(platforms, meter)
        await fetched.done


class Fetched:
    """One image.

    Attributes:
        done: fires when it is there.
    """

    def __init__(self, platforms: Sequence[Platform] | None, meter: Meter) -> None:
        self.platforms = None if platforms is None else list(map(str, platforms))
        self.meter = meter
        self.done: Deferred[Any] = Deferred()

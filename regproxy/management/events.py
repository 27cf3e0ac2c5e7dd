"""The last requests, for people who want to see what goes on."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Final

from regproxy.management.values import RequestValue
from regproxy.web.access_log import AccessRecord

#: How many requests are kept.
KEPT: Final = 1000
#: The way in of this site's own pages. Who looks at requests is not to see mostly himself.
OWN_WAY: Final = "management"


class Events:
    """Keeps the last records of the access log, without those of :data:`OWN_WAY`.

    Args:
        started: seconds since the epoch. Requests are numbered from there on, in microseconds:
            there are fewer than one in each, so that a later process has higher numbers.
    """

    def __init__(self, started: float) -> None:
        self._records: deque[AccessRecord] = deque(maxlen=KEPT)
        self._next = round(started * 1e6)

    def record(self, record: AccessRecord) -> None:
        """One more. It is only put aside."""
        if record.way == OWN_WAY:
            return
        self._records.append(record)
        self._next += 1

    def latest(
        self,
        limit: int = KEPT,
        *,
        registry: str | None = None,
        cache: str | None = None,
        status: int | None = None,
        since: int | None = None,
    ) -> tuple[RequestValue, ...]:
        """At most *limit* of them, the latest first, that agree with all that is not None.

        Args:
            since: only those with a higher id.
        """
        found: list[RequestValue] = []
        id = self._next
        for record in reversed(self._records):
            id -= 1
            if len(found) == limit or (since is not None and id <= since):
                break
            if (
                registry in (None, record.registry)
                and cache in (None, record.cache)
                and status in (None, record.status)
            ):
                found.append(_value(id, record))
        return tuple(found)


def _value(id: int, record: AccessRecord) -> RequestValue:
    return RequestValue(
        id=id,
        time=datetime.fromtimestamp(record.time, UTC),
        client=record.client,
        way=record.way,
        method=record.method,
        kind=record.kind,
        registry=record.registry,
        repository=record.repository,
        reference=record.reference,
        status=record.status,
        bytes=record.bytes,
        duration=record.duration,
        cache=record.cache,
        reason=record.reason,
    )

"""One JSON line for each request and each tunnel, through twisted.logger."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from attrs import asdict, frozen
from twisted.logger import Logger


@frozen
class AccessRecord:
    """What one request was and what became of it.

    Attributes:
        time: when it began, seconds since the epoch.
        client: the client's address.
        way: the listener it came in by, e.g. ``connect``.
        method: the HTTP method.
        registry: the registry's host identity, if one was named.
        repository: the repository, if one was named.
        reference: tag or digest, or the path without its query.
        status: the HTTP status; 499 when the client left before the answer was whole.
        bytes: bytes of the response's body that were handed to the connection.
        duration: seconds from the request's head to the answer's end.
        cache: ``hit``, ``miss``, ``stale``, ``collapsed``, ``pass`` or ``none``.
        reason: why it was answered so, or what went wrong.
    """

    time: float
    client: str
    way: str
    method: str
    registry: str | None
    repository: str | None
    reference: str | None
    status: int
    bytes: int
    duration: float
    cache: str
    reason: str | None


# Not in the class: there a Logger is named after it.
_log: Final = Logger(namespace="regproxy.access")


class AccessLog:
    """Writes access records.

    The event carries the record's fields by name too, for observers that want them.

    Args:
        count: told of every record first.
    """

    def __init__(self, count: Callable[[AccessRecord], None] = lambda record: None) -> None:
        self._count = count

    def record(self, record: AccessRecord) -> None:
        """Write one line."""
        self._count(record)
        fields = asdict(record)
        fields["time"] = datetime.fromtimestamp(record.time, UTC).isoformat(timespec="milliseconds")
        fields["duration"] = round(record.duration, 4)
        _log.info("{line}", line=json.dumps(fields), access=record)

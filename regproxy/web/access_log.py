"""One JSON line for each request and each tunnel, through twisted.logger."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from attrs import asdict, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from regproxy.oci.kinds import RequestKind


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
        kind: what it was for.
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
    kind: RequestKind = RequestKind.OTHER


class UnderWay(Protocol):
    """A request whose record is still to come.

    Attributes:
        registry: the registry's host identity, if one was named.
        sentLength: bytes of the response's body so far.
    """

    @property
    def registry(self) -> str | None: ...

    @property
    def sentLength(self) -> int: ...


# Not in the class: there a Logger is named after it.
_log: Final = Logger(namespace="regproxy.access")


class AccessLog:
    """Writes access records, those of one turn of the reactor together.

    Line after line costs less than a line between two answers, each of which drives out of the
    processor's caches what the other runs.

    The event carries the record's fields by name too, for observers that want them.

    Args:
        count: told of every record first.
        under_way: requests add themselves, and are gone before *count* is told.

    Attributes:
        ending: no more requests are wanted: each answer is the last one on its connection.
    """

    def __init__(
        self,
        clock: IReactorTime,
        count: Callable[[AccessRecord], None] = lambda record: None,
        under_way: set[UnderWay] | None = None,
    ) -> None:
        self.ending = False
        self.under_way: set[UnderWay] = set() if under_way is None else under_way
        self._clock = clock
        self._count = count
        self._records: list[AccessRecord] = []

    def record(self, record: AccessRecord) -> None:
        """Write one line, soon."""
        self._count(record)
        if not self._records:
            self._clock.callLater(0, self.flush)
        self._records.append(record)

    def flush(self) -> None:
        """Write what is not written yet."""
        records, self._records = self._records, []
        for record in records:
            fields = asdict(record, recurse=False)
            time = datetime.fromtimestamp(record.time, UTC)
            fields["time"] = time.isoformat(timespec="milliseconds")
            fields["duration"] = round(record.duration, 4)
            _log.info("{line}", line=json.dumps(fields), access=record)

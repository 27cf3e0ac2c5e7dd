"""What the management side shows, whoever asks: the JSON API, the pages, the command line.

The attributes' names are the names in JSON, and what is said of them here is said in the API's
document too. Sizes are bytes, durations seconds, times aware and in UTC; in JSON a time is a text
as RFC 3339 has it.
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from regproxy.oci.kinds import RequestKind


@frozen
class Sample:
    """What happened in a short time.

    Attributes:
        time: when it began.
        seconds: how long it was.
        bytes_to_clients: of bodies.
        bytes_from_upstream: of bodies.
        requests: for content, that ended.
        hits: how many of them were answered from the store.
    """

    time: datetime
    seconds: float
    bytes_to_clients: int
    bytes_from_upstream: int
    requests: int
    hits: int


@frozen
class RequestValue:
    """What one request was and what became of it.

    Attributes:
        id: rises from one to the next, over restarts too.
        time: when it began.
        client: the client's address.
        way: the listener it came in by.
        method: the HTTP method.
        kind: what it was for.
        registry: the registry's host, if one was named.
        repository: the repository, if one was named.
        reference: tag or digest, or the path without its query.
        status: the HTTP status; 499 when the client left before the answer was whole.
        bytes: of the answer's body.
        duration: from the request's head to the answer's end.
        cache: hit, miss, stale, collapsed, pass, tunnel or none.
        reason: why it was answered so, or what went wrong.
    """

    id: int
    time: datetime
    client: str
    way: str
    method: str
    kind: RequestKind
    registry: str | None
    repository: str | None
    reference: str | None
    status: int
    bytes: int
    duration: float
    cache: str
    reason: str | None

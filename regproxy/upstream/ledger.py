"""What there was with each registry: bytes, waiting and failures, in numbers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from statistics import median
from typing import Final

from attrs import frozen

from regproxy.figures import Histogram, reason_of
from regproxy.oci.names import Host
from regproxy.upstream.errors import RateLimited, UpstreamError

#: Seconds until an answer begins: from the next room to the patience of a request.
FIRST_BYTE: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Of so many answers the median is told: enough to bear one that is odd, and soon others.
RECENT: Final = 101


@frozen
class Mishap:
    """What went wrong.

    Attributes:
        message: in words that may be shown.
        time: seconds since the epoch.
    """

    message: str
    time: float


class Figures:
    """What there was with one registry, its mirrors, and where they redirect to.

    Args:
        now: seconds since the epoch.

    Attributes:
        bytes: of bodies, that came.
        first_byte: seconds from a question to the beginning of its answer, with connecting.
        errors: how many of which reason.
        last_error: None when there was none.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.bytes = 0
        self.first_byte = Histogram(FIRST_BYTE)
        self.errors: Counter[str] = Counter()
        self.last_error: Mishap | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._now = now

    @property
    def latency(self) -> float | None:
        """Seconds to the first byte: the median of the last answers; None before the first."""
        return median(self._recent) if self._recent else None

    def answered(self, seconds: float) -> None:
        """An answer has begun after *seconds*."""
        self.first_byte.add(seconds)
        self._recent.append(seconds)

    def failed(self, error: UpstreamError) -> None:
        """There is no answer, or it is not whole."""
        self._note(reason_of(error), error.message)

    def refused(self, server: str, status: int) -> None:
        """*server* has answered *status*: it does not work, or not for now."""
        too_many = status == HTTPStatus.TOO_MANY_REQUESTS
        reason = RateLimited.reason if too_many else "server-error"
        self._note(reason, f"{server} answered {status}")

    def _note(self, reason: str, message: str) -> None:
        self.errors[reason] += 1
        self.last_error = Mishap(message, self._now())


class Ledger:
    """The figures of all registries.

    Args:
        name_of: under which name a host is counted: one of a few.
        now: seconds since the epoch.
    """

    def __init__(self, name_of: Callable[[Host], str], now: Callable[[], float]) -> None:
        self._name_of = name_of
        self._now = now
        self._figures: dict[str, Figures] = {}

    def of(self, host: Host) -> Figures:
        """Where to count what there is with the registry *host*."""
        name = self._name_of(host)
        found = self._figures.get(name)
        if found is None:
            found = self._figures[name] = Figures(self._now)
        return found

    @property
    def figures(self) -> Mapping[str, Figures]:
        """By the name of the registry."""
        return self._figures

    @property
    def bytes(self) -> int:
        """Of all bodies that came."""
        return sum(each.bytes for each in self._figures.values())

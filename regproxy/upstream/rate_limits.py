"""What registries have last said of how much they still let be asked.

For people to look at. Whether a registry is asked does not depend on it: see
:mod:`regproxy.registry.backoff`.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers

from regproxy.oci.names import Host
from regproxy.oci.quota import Quota, parse_quota

# Registries say it to each login apart. The one heard of longest ago goes first.
MAX_READINGS: Final = 256
# Seconds for which a reading stands that does not say when its count begins anew.
UNSAID_WINDOW: Final = 3600


class Speaker(StrEnum):
    """In whose name a registry was asked."""

    OWN = "own"
    ANONYMOUS = "anonymous"
    # Of whichever client: its name is not looked at.
    CLIENT = "client"


@frozen
class Reading:
    """What one answer said.

    Attributes:
        remaining: requests that are left.
        limit: requests in a window; None when it was not said.
        window: seconds.
        seen_at: when, on the clock.
    """

    remaining: int
    limit: int | None
    window: int
    seen_at: float


class RateLimits:
    """The last reading of each registry and kind of login."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._readings: OrderedDict[tuple[Host, Speaker], Reading] = OrderedDict()

    def note(self, host: Host, speaker: Speaker, headers: Headers) -> None:
        """*host* has answered *speaker* with *headers*."""
        remaining = _quota(headers, b"ratelimit-remaining")
        if remaining is None:
            return
        limit = _quota(headers, b"ratelimit-limit")
        windows = remaining.window, None if limit is None else limit.window
        key = host, speaker
        self._readings[key] = Reading(
            remaining.count,
            None if limit is None else limit.count,
            next(filter(None, windows), UNSAID_WINDOW),
            self._clock.seconds(),
        )
        self._readings.move_to_end(key)
        if len(self._readings) > MAX_READINGS:
            self._readings.popitem(last=False)

    def readings(self) -> dict[tuple[Host, Speaker], Reading]:
        """Those that still say something, the latest last.

        Nothing is known of what is left once a whole window has passed.
        """
        now = self._clock.seconds()
        return {
            key: reading
            for key, reading in self._readings.items()
            if now - reading.seen_at < reading.window
        }


def _quota(headers: Headers, name: bytes) -> Quota | None:
    (value,) = headers.getRawHeaders(name, [b""])[:1]
    return parse_quota(value)

"""Registries that asked to be left alone, and the way to them that does so.

One back-off for each registry holds for all clients: whoever asks on while the limit is
exceeded only makes it last longer (distribution specification, "Error codes":
TOOMANYREQUESTS; RFC 6585 section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.iweb import IResponse
from zope.interface import implementer

from regproxy.interfaces import NO_PATIENCE, IMirrored, IUpstream
from regproxy.oci.names import Host
from regproxy.oci.retry_after import parse_retry_after
from regproxy.policy.upstreams import Sources
from regproxy.upstream.errors import RateLimited, UpstreamError

# Seconds to leave a registry alone that does not say for how long; doubled each time.
FIRST: Final = 10.0
# However long it says: limits that count by the hour are often lifted earlier.
LONGEST: Final = 900.0


@frozen
class _Rest:
    until: float
    length: float


class BackOff:
    """Which registries are left alone, and for how long.

    Args:
        now: seconds since the epoch, for registries that name a date.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._clock = clock
        self._now = now
        self._rests: dict[Host, _Rest] = {}

    def left(self, host: Host) -> float:
        """Seconds for which *host* is to be left alone."""
        rest = self._rests.get(host)
        return 0.0 if rest is None else max(0.0, rest.until - self._clock.seconds())

    def resting(self) -> dict[Host, float]:
        """The registries that are left alone now, and the seconds that are left of it."""
        return {host: left for host in self._rests if (left := self.left(host)) > 0}

    def check(self, host: Host) -> None:
        """Raise RateLimited if *host* is to be left alone."""
        left = self.left(host)
        if left > 0:
            raise RateLimited(f"{host} wants no more requests for {left:.0f} s", left)

    async def turn(self, host: Host, patience: float) -> None:
        """Wait until *host* may be asked, for *patience* seconds at most.

        Raises:
            RateLimited: that would take too long.
        """
        left = self.left(host)
        if 0 < left <= patience:
            await deferLater(self._clock, left)
        self.check(host)

    def note(self, host: Host, response: IResponse) -> None:
        """*host* has answered."""
        if response.code != HTTPStatus.TOO_MANY_REQUESTS:
            if response.code < HTTPStatus.BAD_REQUEST and self.left(host) == 0:
                self._rests.pop(host, None)
            return
        (value,) = response.headers.getRawHeaders(b"retry-after", [b""])[:1]
        earlier = self._rests.get(host)
        length = parse_retry_after(value, self._now())
        if length is None:
            length = FIRST if earlier is None else earlier.length * 2
        length = min(max(length, 1.0), LONGEST)
        until = max(self._clock.seconds() + length, 0.0 if earlier is None else earlier.until)
        self._rests[host] = _Rest(until, length)
        self._log.warn(
            "{host} limits the rate of requests: it is left alone for {length:.0f} s",
            host=str(host),
            length=length,
        )


@implementer(IUpstream)
class ConsiderateUpstream:
    """The way to the registries that respects their back-off.

    Args:
        patience: seconds for which a request waits for its turn.
    """

    def __init__(self, upstream: IUpstream, backoff: BackOff, patience: float) -> None:
        self._upstream = upstream
        self._backoff = backoff
        self._patience = patience

    async def request(self, method: bytes, host: Host, target: bytes, **details: Any) -> IResponse:
        """See :class:`~regproxy.interfaces.IUpstream`.

        Mirrors go on meanwhile.

        Raises:
            RateLimited: *host* is to be left alone for longer than a request waits.
        """
        if self._backoff.left(host) > 0 and details.get("sources") is Sources.MIRRORS_FIRST:
            with suppress(UpstreamError):
                mirrors = {**details, "sources": Sources.MIRRORS}
                return await self._upstream.request(method, host, target, **mirrors)
            details["sources"] = Sources.ORIGIN
        if details.get("patience") == NO_PATIENCE:
            self._backoff.check(host)
        await self._backoff.turn(host, self._patience)
        response = await self._upstream.request(method, host, target, **details)
        if not IMirrored.providedBy(response):
            self._backoff.note(host, response)
            fields = response.headers
            limited = response.code == HTTPStatus.TOO_MANY_REQUESTS
            if limited and not fields.hasHeader(b"retry-after"):
                # As those that come after it are told.
                fields.setRawHeaders(b"Retry-After", [b"%d" % ceil(self._backoff.left(host))])
        return response

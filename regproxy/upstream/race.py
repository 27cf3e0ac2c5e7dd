"""Happy Eyeballs: several addresses of one host, of which the first to answer wins (RFC 8305)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure

from regproxy.config.wayout import Family

# RFC 8305 section 8, "Connection Attempt Delay".
ATTEMPT_DELAY: Final = 0.25


def arranged(addresses: Sequence[str], family: Family) -> list[str]:
    """The addresses to dial, in this order: families take turns (RFC 8305 section 4).

    Within a family the resolver's order stays, which is that of RFC 6724. Without a
    preference the family of its first address begins.

    Args:
        addresses: literals.
    """
    ipv6 = [address for address in addresses if ":" in address]
    ipv4 = [address for address in addresses if ":" not in address]
    match family:
        case Family.IPV4:
            return ipv4
        case Family.IPV6:
            return ipv6
        case Family.PREFER_IPV4:
            first, second = ipv4, ipv6
        case Family.PREFER_IPV6:
            first, second = ipv6, ipv4
        case _:
            first, second = (ipv6, ipv4) if addresses[:1] == ipv6[:1] else (ipv4, ipv6)
    turns = chain.from_iterable(zip_longest(first, second))
    return [address for address in turns if address is not None]


def race(
    clock: IReactorTime, endpoints: Iterable[IStreamClientEndpoint], factory: IProtocolFactory
) -> Deferred[IProtocol]:
    """Connect to the first of *endpoints* that answers.

    Each is tried when the one before has failed, or has not answered for a moment. The
    Deferred fails with the last failure.

    Args:
        endpoints: at least one.
    """
    running = _Race(clock, list(endpoints), factory)
    running.next()
    return running.result


class _Race:
    def __init__(
        self,
        clock: IReactorTime,
        endpoints: list[IStreamClientEndpoint],
        factory: IProtocolFactory,
    ) -> None:
        self.result: Deferred[IProtocol] = Deferred(lambda _: self._stop())
        self._clock = clock
        self._endpoints = endpoints
        self._factory = factory
        self._attempts: list[Deferred[IProtocol]] = []
        self._timer: IDelayedCall | None = None
        self._over = False

    def next(self) -> None:
        """Begin with the next endpoint."""
        attempt = self._endpoints.pop(0).connect(self._factory)
        self._attempts.append(attempt)
        if self._endpoints:
            self._timer = self._clock.callLater(ATTEMPT_DELAY, self.next)
        attempt.addCallbacks(self._won, self._lost, (attempt,), {}, (attempt,))

    def _won(self, protocol: IProtocol, attempt: Deferred[IProtocol]) -> None:
        self._attempts.remove(attempt)
        self._stop()
        self.result.callback(protocol)

    def _lost(self, failure: Failure, attempt: Deferred[IProtocol]) -> None:
        if self._over:
            return
        self._attempts.remove(attempt)
        if self._endpoints:
            # Section 5: there is nothing to wait for.
            self._stop_timer()
            self.next()
        elif not self._attempts:
            self._over = True
            self.result.errback(failure)

    def _stop(self) -> None:
        self._over = True
        self._stop_timer()
        for attempt in self._attempts:
            attempt.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

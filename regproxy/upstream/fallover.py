"""From one upstream to the next, and the memory of those that failed.

Which ones, in which order, and for how long is for :mod:`regproxy.policy.upstreams` to say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer

from regproxy.interfaces import IMirrored
from regproxy.oci.retry_after import parse_retry_after
from regproxy.policy.upstreams import LIMIT, Health, Sources, course, is_answer, is_failure
from regproxy.upstream.body import discard, drain
from regproxy.upstream.errors import (
    ResponseHeadTooLarge,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTLSFailed,
    UpstreamUnreachable,
)
from regproxy.upstream.servers import Server

# What says that the server, or the way to it, is not well. The others say that it is not
# to be asked like this.
_UNWELL: Final = (
    UpstreamUnreachable,
    UpstreamTimeout,
    UpstreamTLSFailed,
    UpstreamBroken,
    ResponseHeadTooLarge,
)

AskServer = Callable[[Server], Awaitable[IResponse]]


class FallOver:
    """Asks one server after the other, as far as is needed.

    Args:
        now: seconds since the epoch, for servers that name a date.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._clock = clock
        self._now = now
        self._health: Health[str] = Health(clock.seconds)

    async def first_answer(
        self,
        servers: Sequence[Server],
        sources: Sources,
        patience: float | None,
        ask: AskServer,
    ) -> IResponse:
        """What the first server says that has an answer; else what the origin says.

        A mirror's answer provides IMirrored.

        Args:
            servers: mirrors, then the origin.
            patience: seconds to wait while all that may answer are known to be down.

        Raises:
            UpstreamError: the origin's failure, or that of the last mirror.
        """
        origin = servers[-1]
        order = course(servers, sources, self._resting)
        if patience is None or not all(map(self._resting, order)):
            return await self._ask_all(order, origin, ask)
        reason = self._health.reason(_key(origin)) or f"the mirrors of {origin.owner} have failed"
        if patience <= 0:
            raise UpstreamUnreachable(reason)

        def expired(result: object, timeout: float) -> Failure:
            return Failure(UpstreamUnreachable(reason))

        waiting = Deferred.fromCoroutine(self._ask_all(order, origin, ask))
        return await waiting.addTimeout(patience, self._clock, onTimeoutCancel=expired)

    async def _ask_all(self, order: Sequence[Server], origin: Server, ask: AskServer) -> IResponse:
        said: IResponse | None = None
        failure: UpstreamError = UpstreamUnreachable(f"{origin.owner} has no mirror")
        try:
            for server in order:
                try:
                    response = await self._attempt(server, server is not origin, ask)
                except UpstreamError as error:
                    if server is origin or origin not in order:
                        failure = error
                    continue
                if is_answer(response.code, origin=server is origin):
                    return response
                if server is origin:
                    said = response
                else:
                    await drain(response, self._clock)
            if said is None:
                raise failure
            response, said = said, None
            return response
        finally:
            if said is not None:
                discard(said)

    async def _attempt(self, server: Server, mirror: bool, ask: AskServer) -> IResponse:
        """Ask one server, and note what becomes of it."""
        key = _key(server)
        began = self._health.begin(key)
        try:
            response = await ask(server)
        except _UNWELL as error:
            self._failed(server, began, error.message)
            raise
        except (UpstreamError, CancelledError):
            self._health.gave_up(key, began)
            raise
        # An error of the origin's may be about one object only. It is told at once, and
        # costs nobody a wait.
        if mirror and is_failure(response.code):
            (value,) = response.headers.getRawHeaders(b"retry-after", [b""])[:1]
            at_least = parse_retry_after(value, self._now()) or 0.0
            self._failed(server, began, f"it answered {response.code}", at_least)
        else:
            self._worked(server, began)
        if not mirror:
            return response
        return _MirrorResponse(response, partial(self._spoiled, server, began))

    def _resting(self, server: Server) -> bool:
        return self._health.resting(_key(server))

    def _spoiled(self, server: Server, began: float, reason: str, wrong: bool) -> None:
        self._failed(server, began, reason, LIMIT if wrong else 0.0)

    def _failed(self, server: Server, began: float, reason: str, at_least: float = 0.0) -> None:
        key = _key(server)
        if not self._health.reason(key):
            self._log.info(
                "{upstream} has failed and is left alone for a while: {reason}",
                upstream=server.base.netloc,
                reason=reason,
            )
        self._health.failed(key, began, reason, at_least)

    def _worked(self, server: Server, began: float) -> None:
        key = _key(server)
        failed_before = self._health.reason(key)
        self._health.worked(key, began)
        if failed_before and not self._health.reason(key):
            self._log.info("{upstream} answers again", upstream=server.base.netloc)


def _key(server: Server) -> str:
    return str(server.base)


@implementer(IMirrored)
class _MirrorResponse(proxyForInterface(IResponse, "_response")):  # type: ignore[misc]
    """The answer of a mirror."""

    def __init__(self, response: IResponse, spoiled: Callable[[str, bool], None]) -> None:
        super().__init__(response)
        self._spoiled = spoiled

    def spoiled(self, reason: str, *, wrong: bool = False) -> None:
        """See IMirrored."""
        self._spoiled(reason, wrong)

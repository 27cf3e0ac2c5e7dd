"""The one road of content from upstream into the store: begun once, gone on with after breaks.

A transfer belongs to no client. It asks upstream for what is missing, from the front,
until nothing is; a reader that waits far ahead of it gets a request for its own part.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from regproxy.config.model import LimitsSection
from regproxy.oci.ranges import parse_content_range
from regproxy.policy.filling import FillRules
from regproxy.registry.ask import length_of
from regproxy.store.errors import FillFailed
from regproxy.store.fill import Fill
from regproxy.upstream.body import BodyReader, discard
from regproxy.upstream.errors import UpstreamBroken, UpstreamError
from regproxy.web.sender import Consumer

#: Asks upstream for the bytes from a start to an exclusive end; None is the content's end.
Fetch = Callable[[int, int | None], Awaitable[IResponse]]


class Unusable(UpstreamBroken):
    """An answer in the middle of a transfer does not go on with it.

    Attributes:
        final: there is no use in asking again.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Abandoned(FillFailed):
    """Nobody waits for the content any more, and too little of it is here."""


@define(eq=False)
class _Part:
    """One request's share of the content, and how far it is."""

    position: int
    stop: int | None = None
    skips: bool = False


class Transfer:
    """Fetches the content of one fill.

    Args:
        fetch: asks for a part of the content.
        rules: how much trouble to take.
        limits: how long upstream may be silent, and how slow it may be.
    """

    _log = Logger()

    def __init__(
        self, fill: Fill, fetch: Fetch, rules: FillRules, limits: LimitsSection, clock: IReactorTime
    ) -> None:
        self._fill = fill
        self._fetch = fetch
        self._rules = rules
        self._limits = limits
        self._clock = clock
        self._main = _Part(0, skips=True)
        self._sides: dict[_Part, Deferred[None]] = {}
        self._ranges_work = True

    def start(self, response: IResponse) -> None:
        """Begin with *response*, which is a 200, or a 206 to the question for what is missing."""
        fill = self._fill
        running = ensureDeferred(self._run(response))
        fill.demand = self._demanded
        fill.deserted = self._deserted
        fill.when_ended().addBoth(self._ended, running)
        running.addErrback(self._gave_up)

    async def _run(self, response: IResponse | None) -> None:
        state, rules, main = self._fill.state, self._rules, self._main
        failures = 0
        while (gap := state.missing(0)) is not None or response is not None:
            if state.over:
                return
            before = state.arrived
            try:
                if response is None and gap is not None:
                    main.position, main.stop = gap
                    response = await self._fetch(*gap)
                if response is not None:
                    await self._pour(response, main)
                failures = 0
            except UpstreamError as error:
                progress = state.arrived - before >= rules.progress
                failures = 1 if progress else failures + 1
                delay = rules.delay(failures)
                if delay is None or (isinstance(error, Unusable) and error.final):
                    raise
                self._log.info(
                    "The transfer of {digest} broke off at {position} and goes on in {delay} s:"
                    " {reason}",
                    digest=str(self._fill.digest),
                    position=main.position,
                    delay=delay,
                    reason=error.message,
                )
                await deferLater(self._clock, delay)
            response = None

    async def _pour(self, response: IResponse, part: _Part) -> None:
        """Write the body of *response*, up to where the part ends or is here already.

        Raises:
            UpstreamError: it broke off, or brought nothing.
        """
        whole = self._place(response, part)
        began = part.position

        def receive(data: bytes) -> None:
            self._fill.write(part.position, data)
            part.position += len(data)
            if part.skips and self._is_here(part.position):
                reader.stopProducing()

        reader = BodyReader(
            receive, self._clock, self._limits.upstream_idle, rate=self._limits.upstream_rate
        )
        self._fill.attach(reader)
        try:
            response.deliverBody(reader)
            await reader.done
        except CancelledError:
            if not (part.skips and self._is_here(part.position)):
                raise
        finally:
            self._fill.detach(reader)
        if whole and self._fill.state.size is None:
            # Its end is the end of its connection (RFC 9112 section 6.3, rule 8).
            self._fill.announce(part.position)
        elif part.position == began:
            raise Unusable("upstream sent nothing")

    def _place(self, response: IResponse, part: _Part) -> bool:
        """Put *part* where the body of *response* begins; whether that is all of the content.

        A server that answers 200 to a range is read from the start, and what is here
        already is skipped.

        Raises:
            Unusable: it is no answer to go on with.
        """
        if response.code == HTTPStatus.OK:
            part.position = 0
            size = length_of(response)
            if size is not None:
                self._fill.announce(size)
            return True
        if response.code == HTTPStatus.PARTIAL_CONTENT:
            fields = response.headers.getRawHeaders(b"content-range", [])
            try:
                (field,) = fields
                span = parse_content_range(field)
            except ValueError:
                discard(response)
                raise Unusable("upstream sent a part without saying which", final=True) from None
            part.position = span.start
            if span.size is not None:
                self._fill.announce(span.size)
            return False
        discard(response)
        failed = response.code >= 500 or response.code == HTTPStatus.TOO_MANY_REQUESTS
        raise Unusable(f"upstream answered {response.code}", final=not failed)

    def _is_here(self, position: int) -> bool:
        """Whether so much from *position* on is here that it is worth a new request."""
        state = self._fill.state
        covered = state.covered(position)
        return covered - position > self._rules.skip or position < covered == state.size

    def _demanded(self, offset: int, end: int | None) -> None:
        """A reader waits at *offset*."""
        under_way = [(part.position, part.stop or part.position) for part in self._sides]
        span = self._rules.side_request(
            self._fill.state, self._main.position, under_way, offset, end
        )
        if span is None or not self._ranges_work:
            return
        part = _Part(*span)
        self._sides[part] = ensureDeferred(self._side(part))
        self._sides[part].addBoth(self._side_ended, part)

    async def _side(self, part: _Part) -> None:
        response = await self._fetch(part.position, part.stop)
        if response.code != HTTPStatus.PARTIAL_CONTENT:
            discard(response)
            raise Unusable(f"upstream answered {response.code} to a range")
        await self._pour(response, part)

    def _side_ended(self, result: object, part: _Part) -> None:
        self._sides.pop(part, None)
        if not isinstance(result, Failure) or result.check(CancelledError):
            return
        # The reader gets its bytes all the same, when the transfer has come there.
        self._ranges_work = False
        if result.check(UpstreamError):
            self._log.info(
                "No more ranges ahead of {digest}: {reason}",
                digest=str(self._fill.digest),
                reason=result.getErrorMessage(),
            )
        else:
            self._log.failure("A range ahead of a transfer failed", result)

    def _deserted(self) -> None:
        if not self._rules.goes_on_alone(self._fill.state):
            self._fill.fail(Failure(Abandoned("nobody waits for it any more")))

    def _gave_up(self, failure: Failure) -> None:
        # What is here is kept: it may be gone on with when upstream is well again.
        if failure.check(CancelledError) is None:
            self._fill.fail(failure, keep=True)

    def _ended(self, _: object, running: Deferred[None]) -> None:
        # The store has logged how. Nothing is to come any more, from nowhere.
        running.cancel()
        for side in tuple(self._sides.values()):
            side.cancel()


async def relay(response: IResponse, consumer: Consumer, clock: IReactorTime, idle: float) -> None:
    """Send the body of *response* to *consumer* as it arrives, at the consumer's pace.

    Args:
        idle: seconds for which the upstream may send nothing.

    Raises:
        UpstreamError: the body broke off; the answer must be cut short.
        CancelledError: the consumer is gone.
    """
    reader = BodyReader(consumer.write, clock, idle)
    response.deliverBody(reader)
    consumer.registerProducer(reader, True)
    try:
        await reader.done
    finally:
        consumer.unregisterProducer()

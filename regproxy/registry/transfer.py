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
from regproxy.interfaces import IMirrored
from regproxy.oci.ranges import parse_content_range
from regproxy.policy.filling import FillRules
from regproxy.registry.ask import length_of
from regproxy.store.errors import DigestMismatch, FillFailed, SizeMismatch
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

    reason = "abandoned"


@define(eq=False)
class _Part:
    """One request's share of the content, and how far it is.

    Attributes:
        start: where what is wanted begins.
        stop: where it ends; None is the content's end.
        position: where the next byte of the answer belongs.
    """

    start: int
    stop: int | None
    position: int = 0


class Transfer:
    """Fetches the content of one fill.

    Args:
        fetch: asks for a part of the content.
        rules: how much trouble to take.
        limits: how long upstream may be silent, and how slow it may be.
        resuming: called when it has broken off and goes on.
    """

    _log = Logger()

    def __init__(
        self,
        fill: Fill,
        fetch: Fetch,
        rules: FillRules,
        limits: LimitsSection,
        clock: IReactorTime,
        resuming: Callable[[], object],
    ) -> None:
        self._fill = fill
        self._fetch = fetch
        self._rules = rules
        self._limits = limits
        self._clock = clock
        self._resuming = resuming
        self._main = _Part(0, None)
        self._sides: dict[_Part, Deferred[None]] = {}
        self._side_tries = rules.tries
        self._ranges_work = True
        # The answers of mirrors that bytes were taken from.
        self._mirrored: list[IMirrored] = []

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
        main.start = state.covered(0)
        while not state.over and (response is not None or state.missing(0) is not None):
            before = state.arrived
            try:
                if response is None:
                    response = await self._next()
                answer, response = response, None
                await self._use(answer, main)
                failures = 0
            except UpstreamError as error:
                if self._fill.state.over:
                    return
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
                self._resuming()

    async def _next(self) -> IResponse:
        """Ask for the first gap."""
        main, gap = self._main, self._fill.state.missing(0)
        assert gap is not None
        main.start, main.stop = gap
        main.position = main.start
        return await self._fetch(main.start, main.stop)

    async def _use(self, response: IResponse, part: _Part) -> None:
        """Take from *response* what *part* is for.

        Raises:
            UpstreamError: it broke off, or did not bring it.
            FillFailed: it is nothing to go on with.
        """
        if IMirrored.providedBy(response):
            self._mirrored.append(IMirrored(response))
        try:
            await self._pour(response, part)
            if not self._went_on(part):
                raise Unusable("upstream sent less than it was asked for")
        except (UpstreamError, FillFailed) as error:
            if IMirrored.providedBy(response):
                IMirrored(response).spoiled(str(error))
            raise

    async def _pour(self, response: IResponse, part: _Part) -> None:
        """Write the body of *response*, until the rest of it is needless.

        Raises:
            UpstreamError: it broke off.
            FillFailed: it is nothing to go on with.
        """
        whole = self._place(response, part)

        def receive(data: bytes) -> None:
            self._fill.write(part.position, data)
            part.position += len(data)
            if self._needless(part):
                reader.stopProducing()

        reader = BodyReader(
            receive, self._clock, self._limits.upstream_idle, rate=self._limits.upstream_rate
        )
        # In this order: Twisted resumes the connection when the body is asked for.
        response.deliverBody(reader)
        self._fill.attach(reader)
        try:
            if self._needless(part):
                reader.stopProducing()
            await reader.done
        except CancelledError:
            if not self._needless(part):
                raise
        else:
            if whole and self._fill.state.size is None:
                # Its end is the end of its connection (RFC 9112 section 6.3, rule 8).
                self._fill.announce(part.position)
        finally:
            self._fill.detach(reader)

    def _place(self, response: IResponse, part: _Part) -> bool:
        """Put *part* where the body of *response* begins; whether that is all of the content.

        A server that answers 200 to a range is read from the start, and what is here
        already is skipped.

        Raises:
            Unusable: it is an error.
            FillFailed: it is nothing to go on with.
        """
        if response.code == HTTPStatus.OK:
            self._ranges_work = self._ranges_work and part.start == 0
            part.position, part.stop = 0, None
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
                # Nothing is kept: it would be gone on with like this again and again.
                raise FillFailed("upstream sent a part without saying which") from None
            if part is not self._main and span.start != part.start:
                discard(response)
                raise Unusable("upstream sent another part than it was asked for", final=True)
            part.position = span.start
            if span.size is not None:
                self._fill.announce(span.size)
            return False
        discard(response)
        failed = response.code >= 500 or response.code == HTTPStatus.TOO_MANY_REQUESTS
        raise Unusable(f"upstream answered {response.code}", final=not failed)

    def _needless(self, part: _Part) -> bool:
        """Whether the rest of what *part* gets is here, or so much that it is worth a new request.

        At the very end of the content it is not: the connection can be kept.
        """
        state = self._fill.state
        if state.over or (part.stop is not None and part.position > part.stop):
            return True
        if state.missing(0) is None:
            return part.position != state.size
        if part is not self._main and self._main.position >= part.start:
            # The transfer has come here, and brings the rest itself.
            return True
        ahead = state.covered(part.position) - part.position
        return self._ranges_work and part.position >= part.start and ahead > self._rules.skip

    def _went_on(self, part: _Part) -> bool:
        """Whether *part* brought what it was for, or at least what is worth a request."""
        gap = self._fill.state.missing(part.start)
        if gap is None or gap[0] - part.start > self._rules.skip:
            return True
        return part.stop is not None and gap[0] >= part.stop

    def _demanded(self, offset: int, end: int | None) -> None:
        """A reader waits at *offset*."""
        if self._fill.state.over or not self._ranges_work or not self._side_tries:
            return
        under_way = [(part.position, part.stop or part.position) for part in self._sides]
        span = self._rules.side_request(
            self._fill.state, self._main.position, under_way, offset, end
        )
        if span is None:
            return
        part = _Part(*span, position=span[0])
        begin: Deferred[None] = Deferred()
        # It is known before it begins: what it brings at once makes readers ask for more.
        self._sides[part] = begin.addCallback(lambda _: ensureDeferred(self._side(part)))
        begin.addBoth(self._side_ended, part)
        begin.callback(None)

    async def _side(self, part: _Part) -> None:
        response = await self._fetch(part.start, part.stop)
        if response.code != HTTPStatus.PARTIAL_CONTENT:
            discard(response)
            raise Unusable(f"upstream answered {response.code} to a range", final=True)
        await self._use(response, part)

    def _side_ended(self, result: object, part: _Part) -> None:
        self._sides.pop(part, None)
        if not isinstance(result, Failure) or result.check(CancelledError):
            return
        # The reader gets its bytes all the same, when the transfer has come there.
        self._side_tries -= 1
        if isinstance(result.value, Unusable):
            self._ranges_work = False
        if result.check(UpstreamError, FillFailed):
            self._log.info(
                "A range ahead of {digest} was not brought: {reason}",
                digest=str(self._fill.digest),
                reason=result.getErrorMessage(),
            )
        else:
            self._log.failure("A range ahead of a transfer failed", result)

    def _deserted(self) -> None:
        if not self._rules.goes_on_alone(self._fill.state):
            self._fill.fail(Failure(Abandoned("nobody waits for it any more")))

    def _gave_up(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            failure = Failure(UpstreamBroken("the question to upstream was given up"))
        # What is here may be gone on with when upstream is well again.
        self._fill.fail(failure, keep=failure.check(UpstreamError) is not None)

    def _ended(self, result: object, running: Deferred[None]) -> None:
        # The store has logged how. Nothing is to come any more, from nowhere.
        if isinstance(result, Failure) and result.check(DigestMismatch, SizeMismatch):
            # Which one it was does not show: whoever asks next goes to another.
            for mirrored in self._mirrored:
                mirrored.spoiled(result.getErrorMessage(), wrong=True)
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

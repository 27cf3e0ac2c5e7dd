"""What happens, told as it does: server-sent events (the HTML standard, section 9.2).

All streams are told the same, so it is looked up and written down once for all, each
INTERVAL: a herd of requests costs no more than a few. A stream holds what its client has
not taken yet, up to a bound; a client that is further behind is cut off, and may come back with
``Last-Event-ID``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Final, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.management.encoding import encode
from regproxy.management.events import Events
from regproxy.management.fills import Fills
from regproxy.management.jobs import Jobs
from regproxy.management.overview import Overview
from regproxy.management.values import FillState, FillValue, Job, RequestValue, Stats
from regproxy.store.fill import Fill
from regproxy.web.site import StrictRequest, client_of

#: Seconds from one look to the next.
INTERVAL: Final = 1.0
#: Of the looks, each which one is at the numbers too.
STATS_EACH: Final = 2
#: Requests told of in one look, the latest.
MAX_REQUESTS: Final = 100
#: Bytes of each kind of event in one look: who reads has room for all of them.
SHARE: Final = 64 << 10
#: Bytes that may wait for a client.
MAX_WAITING: Final = 256 << 10
#: Streams at a time. Browsers open one for each page that is looked at.
MAX_STREAMS: Final = 64
#: Of these, for one address, so that no client takes all of them. It may be that of a proxy.
MAX_STREAMS_EACH: Final = 16
#: Looks without news after which a comment shows that the stream lives: what is silent for a
#: minute is closed by proxies on the way.
SILENCE: Final = 15
#: A job with more images is told of without them.
MAX_IMAGES: Final = 100

# Milliseconds after which a browser comes back.
_RETRY: Final = b"retry: 2000\n\n"
_COMMENT: Final = b": nothing new\n\n"

_K = TypeVar("_K")
_V = TypeVar("_V")


class NoMoreStreams(Exception):
    """As many clients follow what happens as can, or the proxy is being stopped."""


class TooManyStreams(NoMoreStreams):
    """This client follows as often as one may."""


def event(kind: str, value: object, id: int | None = None) -> bytes:
    """One event; *id* is what a client that comes back says that it has seen."""
    # JSON as it is written here has no line ends.
    head = "" if id is None else f"id: {id}\n"
    return f"{head}event: {kind}\ndata: ".encode() + encode(value) + b"\n\n"


class Broadcast:
    """Looks at what happens while anybody wants to know.

    Args:
        clock: the reactor.
    """

    _log = Logger()

    def __init__(
        self, overview: Overview, events: Events, fills: Fills, jobs: Jobs, clock: IReactorTime
    ) -> None:
        self._overview = overview
        self._events = events
        self._fills = fills
        self._jobs = jobs
        self._clock = clock
        # Each with the address of its client.
        self._streams: dict[Stream, str] = {}
        self._looking: LoopingCall | None = None
        self._closed = False
        # What all streams have been told.
        self._request = 0
        self._stats: Stats | None = None
        self._shown_fills: dict[Fill, FillValue] = {}
        self._shown_jobs: dict[str, Job] = {}
        self._looks = 0
        self._silent = 0

    def open(self, since: int | None) -> Stream:
        """A stream, to be sent to one client.

        Args:
            since: the id of the last request that it knows of: it is told of later ones first.

        Raises:
            NoMoreStreams: wait.
        """
        if self._closed:
            raise NoMoreStreams("the proxy is being stopped")
        if len(self._streams) >= MAX_STREAMS:
            raise NoMoreStreams(f"{MAX_STREAMS} clients follow what happens; no more can")
        return Stream(self, since)

    def close(self) -> None:
        """End all streams: whoever follows is to follow another process."""
        self._closed = True
        for stream in tuple(self._streams):
            stream.end()

    def join(self, stream: Stream, client: str, since: int | None) -> None:
        """*stream* takes events from now on.

        Raises:
            TooManyStreams: its *client* has to end another one first.
        """
        if list(self._streams.values()).count(client) >= MAX_STREAMS_EACH:
            raise TooManyStreams(f"{client} follows {MAX_STREAMS_EACH} times already")
        self._streams[stream] = client
        if self._looking is None:
            self._begin()
        stream.tell(b"".join((_RETRY, *self._missed(since), *self._standing())))
        if self._looking is None:
            self._looking = LoopingCall(self._look)
            self._looking.clock = self._clock
            self._looking.start(INTERVAL).addErrback(self._failed)

    def leave(self, stream: Stream) -> None:
        """*stream* takes no more of them."""
        self._streams.pop(stream, None)
        looking = self._looking
        if looking is not None and not self._streams:
            self._looking = None
            if looking.running:
                looking.stop()

    def _begin(self) -> None:
        self._request = max((each.id for each in self._events.latest(1)), default=0)
        self._stats = None
        self._shown_fills = {}
        self._shown_jobs = {job.id: job for job in self._jobs.all() if job.ended_at is not None}
        self._looks = self._silent = 0

    async def _look(self) -> None:
        told: list[bytes] = []
        if self._looks % STATS_EACH == 0:
            stats = await self._overview.stats()
            if stats != self._stats:
                self._stats = stats
                told.append(event("stats", stats))
        self._looks += 1
        # From here on in one go: who joins is told either by this or of what this has noted.
        told += self._new_requests()
        told += self._new_fills()
        told += self._new_jobs()
        self._silent = 0 if told else self._silent + 1
        if self._silent == SILENCE:
            self._silent = 0
            told.append(_COMMENT)
        data = b"".join(told)
        for stream in tuple(self._streams):
            stream.tell(data)

    def _new_requests(self) -> Iterable[bytes]:
        latest = self._events.latest(MAX_REQUESTS, since=self._request)
        if latest:
            self._request = latest[0].id
        return _newest(latest, SHARE)

    def _missed(self, since: int | None) -> Iterable[bytes]:
        if since is None:
            return ()
        missed = self._events.latest(since=since)
        return _newest((each for each in missed if each.id <= self._request), SHARE)

    def _new_fills(self) -> Iterator[bytes]:
        shown = self._shown_fills
        fills = dict.fromkeys((*shown, *self._fills.running()))
        yield from _changes("fill", ((fill, self._fills.value(fill)) for fill in fills), shown)
        for fill, value in tuple(shown.items()):
            if value.state is not FillState.RUNNING:
                del shown[fill]

    def _new_jobs(self) -> Iterator[bytes]:
        jobs = {job.id: _brief(job) for job in self._jobs.all()}
        for id in self._shown_jobs.keys() - jobs.keys():
            del self._shown_jobs[id]
        return _changes("job", jobs.items(), self._shown_jobs)

    def _standing(self) -> Iterator[bytes]:
        """What goes on, for one who has been told nothing."""
        if self._stats is not None:
            yield event("stats", self._stats)
        yield from _changes("fill", self._shown_fills.items(), {})
        running = ((id, job) for id, job in self._shown_jobs.items() if job.ended_at is None)
        yield from _changes("job", running, {})

    def _failed(self, failure: Failure) -> None:
        self._log.failure("What happens cannot be told", failure)
        self._looking = None
        for stream in tuple(self._streams):
            stream.cut("internal error")


def _newest(requests: Iterable[RequestValue], room: int) -> list[bytes]:
    """Events of *requests*, the latest first, as far as there is room; the latest last."""
    told: list[bytes] = []
    for request in requests:
        data = event("request", request, request.id)
        room -= len(data)
        if room < 0:
            break
        told.append(data)
    return told[::-1]


def _changes(
    kind: str, values: Iterable[tuple[_K, _V]], shown: MutableMapping[_K, _V]
) -> Iterator[bytes]:
    """Events of those of *values* that are not as *shown*; what finds no room has to wait.

    The first does not: it may be longer than all the room. It is the one shown longest ago, so
    that each has its turn.
    """
    turns = {key: turn for turn, key in enumerate(shown)}
    room = SHARE
    for key, value in sorted(values, key=lambda each: turns.get(each[0], -1)):
        if shown.get(key) == value:
            continue
        data = event(kind, value)
        if len(data) > room < SHARE:
            return
        room -= len(data)
        shown.pop(key, None)
        shown[key] = value
        yield data


def _brief(job: Job) -> Job:
    return evolve(job, images=()) if len(job.images) > MAX_IMAGES else job


@implementer(IPushProducer)
class Stream:
    """What one client is told."""

    def __init__(self, broadcast: Broadcast, since: int | None) -> None:
        self._broadcast = broadcast
        self._since = since
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._request: StrictRequest | None = None
        self._ended: Deferred[None] = Deferred()

    async def send(self, request: StrictRequest) -> None:
        """Tell *request*'s client until it leaves. See :class:`Streamed`."""
        # nginx would collect what is to come at once.
        request.setHeader("X-Accel-Buffering", "no")
        if request.method == b"HEAD":
            request.finish()
            return
        self._request = request
        request.registerProducer(self, True)
        try:
            self._broadcast.join(self, client_of(request), self._since)
            # The client's leaving cancels this.
            await self._ended
        finally:
            self._broadcast.leave(self)
            self._waiting.clear()
            request.unregisterProducer()
        request.finish()

    def tell(self, data: bytes) -> None:
        """Events, or nothing."""
        if not data or self._request is None:
            return
        if not self._paused:
            self._request.write(data)
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._size > MAX_WAITING:
            self.cut("it does not read what it is told")

    def end(self) -> None:
        """There is nothing more to tell."""
        self._ended.callback(None)

    def cut(self, reason: str) -> None:
        """Have the client come back, if it still wants to know."""
        self._broadcast.leave(self)
        self._waiting.clear()
        request, self._request = self._request, None
        if request is not None:
            request.cut(reason)

    def pauseProducing(self) -> None:
        """The client is behind."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self._paused = False
        while self._waiting and not self._paused and self._request is not None:
            data = self._waiting.popleft()
            self._size -= len(data)
            self._request.write(data)

    def stopProducing(self) -> None:
        """The client is gone: what cancels :meth:`send` says so too."""

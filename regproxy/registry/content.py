"""Content by digest: served from the store, joined in flight, or fetched once.

The order of the questions, for every GET and HEAD:

1. Is it here, or on its way? Then may this client read it: see ``policy.access``. When
   that is not known, upstream is asked by a HEAD for this very object in the client's
   name, and a refusal is passed on.
2. Is somebody else asking upstream for it now? Wait for upstream's first word.
3. A HEAD is answered by upstream's HEAD. A GET begins the one transfer, which belongs
   to nobody: it goes on when its first client leaves.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IResponse

from regproxy.config.model import LimitsSection
from regproxy.interfaces import IBlob, IMirrored, IUpstream
from regproxy.oci.names import Digest, Host
from regproxy.policy.caching import (
    HIT,
    CacheStatus,
    Forward,
    NoStore,
)
from regproxy.policy.filling import FillRules
from regproxy.policy.upstreams import Sources
from regproxy.registry.ask import (
    Answer,
    Ask,
    Content,
    Description,
    Relayed,
    Wanted,
    length_of,
    media_type_of,
    not_stored,
)
from regproxy.registry.permissions import NO_HEAD, Permissions, ask_for, authorities
from regproxy.registry.straight import StraightBlob
from regproxy.registry.transfer import Transfer
from regproxy.registry.waiting import Leaders
from regproxy.store.fill import Origin
from regproxy.store.store import Store
from regproxy.upstream.body import discard
from regproxy.upstream.errors import UpstreamBroken, UpstreamError

# Logins that a transfer may go on with.
MAX_ASKS: Final = 4
# What a registry says about the content, whether it was asked for all or the rest of it.
_ANSWERS: Final = (
    HTTPStatus.OK,
    HTTPStatus.PARTIAL_CONTENT,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS,
)
# Of a login that another one may do better.
_REFUSALS: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class ContentService:
    """Answers questions for content by its digest."""

    _log = Logger()

    def __init__(
        self,
        store: Store,
        upstream: IUpstream,
        permissions: Permissions,
        limits: LimitsSection,
        rules: FillRules,
        clock: IReactorTime,
    ) -> None:
        self._rules = rules
        self._store = store
        self._upstream = upstream
        self._permissions = permissions
        self._limits = limits
        self._clock = clock
        self._fetching = Leaders()
        # Where the one asks who leads: a digest may be wanted from several places.
        self._asked: dict[Digest, Host] = {}
        # In whose name each transfer may ask upstream again, the latest last.
        self._asks: dict[Digest, list[tuple[Ask, Wanted]]] = {}

    async def answer(self, ask: Ask, wanted: Wanted) -> Answer:
        """Answer a GET or HEAD.

        Raises:
            Refused: upstream does not let this client read it.
            UpstreamError: upstream was needed and failed.
        """
        while True:
            if self.is_here(wanted.digest) or wanted.digest in self._fetching:
                media_type = await self._permissions.authorise(ask, wanted)
                content = self.hold(ask, wanted, media_type)
                if content is not None:
                    return content
                if wanted.digest in self._fetching:
                    await self._follow(wanted)
                continue
            described = await self._describe(ask, wanted) if ask.method == b"HEAD" else None
            return described or await self._lead(wanted, self._open(ask, wanted))

    def knows(self, host: Host) -> bool:
        """Whether there has ever been content of *host*."""
        return self._store.index.knows(host)

    def is_here(self, digest: Digest) -> bool:
        """Whether the content is stored or arriving."""
        return self._store.filling(digest) is not None or self._store.has(digest)

    def hold(
        self,
        ask: Ask,
        wanted: Wanted,
        media_type: str,
        status: CacheStatus | None = None,
        age: float | None = None,
    ) -> Content | None:
        """The content if it is here or arriving, to be closed by the caller.

        Args:
            age: of the answer, where that is not the content's.
        """
        blob = self._store.open(wanted.digest)
        if blob is not None:
            age = blob.age if age is None else age
            return self._content(blob, wanted, media_type, status or HIT, [(ask, wanted)], age)
        fill = self._store.filling(wanted.digest)
        if fill is None:
            return None
        asks = self._asks.get(wanted.digest, [])
        # Should the transfer have to ask again, the latest login is the freshest.
        asks[:] = [*asks[1 - MAX_ASKS :], (ask, wanted)]
        if fill.state.verified:
            # It is whole, though not yet durable: nobody asks upstream for it any more.
            status, age = status or HIT, age or 0.0
        status = status or CacheStatus(Forward.MISS, collapsed=True)
        return self._content(fill.reader(), wanted, media_type, status, asks, age)

    async def take(self, ask: Ask, wanted: Wanted, response: IResponse) -> Answer:
        """Answer with the content whose GET was answered by *response*.

        Content that is here already, or on its way, is not transferred again.
        """
        await self._permissions.learn(ask, wanted, response)
        if self.is_here(wanted.digest) or wanted.digest in self._fetching:
            discard(response)
            return await self.answer(ask, wanted)
        return await self._lead(wanted, self._begin(ask, wanted, response))

    async def _begin(self, ask: Ask, wanted: Wanted, response: IResponse) -> Answer:
        """Begin the one transfer, with its first answer."""
        media_type = media_type_of(response)
        status = CacheStatus(Forward.MISS, stored=True)
        asks = [(ask, wanted)]
        if not await self._permissions.may_store(ask, wanted):
            return await self._pass(asks, response, NoStore.PRIVATE)
        try:
            fill = await self._store.begin(wanted.digest, _whole_length(response), ask.client)
        except OSError as error:
            self._log.error(
                "The store takes nothing, content passes uncached: {reason}", reason=str(error)
            )
            return await self._pass(asks, response, NoStore.DISK)
        fill.origin = Origin(wanted.host, wanted.repository, str(wanted.kind))
        self._asks[wanted.digest] = asks
        fill.when_ended().addBoth(lambda _: self._asks.pop(wanted.digest, None))
        # The reader is made first: a small body may be whole before start() returns.
        reader = fill.reader()
        fetch = partial(self._fetch_part, asks, self._sources(ask, wanted))
        limits = ask.section.limits.over(self._limits)
        resuming = self._store.fill_counts.resume
        Transfer(fill, fetch, self._rules, limits, self._clock, resuming).start(response)
        return self._content(reader, wanted, media_type, status, asks)

    async def _pass(
        self, asks: list[tuple[Ask, Wanted]], response: IResponse, reason: NoStore
    ) -> Content:
        """Answer with content that is kept nowhere."""
        ask, wanted = asks[-1]
        status = CacheStatus(Forward.MISS, detail=reason)
        if response.code == HTTPStatus.OK:
            blob = self._passing(response, ask, wanted)
        else:
            discard(response)
            blob = await self._straight(asks)
        return Content(blob, wanted.kind, media_type_of(response), status)

    def _content(
        self,
        blob: IBlob,
        wanted: Wanted,
        media_type: str,
        status: CacheStatus,
        asks: list[tuple[Ask, Wanted]],
        age: float | None = None,
    ) -> Content:
        straight = partial(self._straight, asks)
        return Content(blob, wanted.kind, media_type, status, age, straight=straight)

    async def _fetch_part(
        self, asks: list[tuple[Ask, Wanted]], sources: Sources, start: int, stop: int | None
    ) -> IResponse:
        """Ask for a part in the name of the latest client whose login is still accepted."""
        earlier = list(asks)
        while True:
            ask, wanted = earlier.pop()
            response = await self._get(ask, wanted, sources, (start, stop))
            if not earlier or response.code not in _REFUSALS:
                return response
            discard(response)

    async def _straight(self, asks: list[tuple[Ask, Wanted]]) -> StraightBlob:
        """The content in a transfer of its own, kept nowhere.

        Raises:
            UpstreamError: upstream does not give it.
        """
        ask, wanted = asks[-1]
        response = await self._get(ask, wanted, self._sources(ask, wanted))
        if response.code != HTTPStatus.OK:
            discard(response)
            raise UpstreamBroken(f"upstream answered {response.code} to a second question")
        return self._passing(response, ask, wanted)

    def _passing(self, response: IResponse, ask: Ask, wanted: Wanted) -> StraightBlob:
        limits = ask.section.limits.over(self._limits)
        return StraightBlob(response, wanted.digest, self._clock, limits)

    async def _describe(self, ask: Ask, wanted: Wanted) -> Answer | None:
        """What upstream says to a HEAD; None when it does not answer any."""
        sources = authorities(ask.section)
        response = await ask_for(self._upstream, b"HEAD", ask, wanted, sources=sources)
        if response.code in NO_HEAD:
            discard(response)
            return None
        if response.code != HTTPStatus.OK:
            return Relayed(response, CacheStatus(Forward.MISS, detail=NoStore.STATUS))
        discard(response)
        media_type = await self._permissions.learn(ask, wanted, response)
        return Description(
            wanted.kind, media_type, CacheStatus(Forward.MISS), wanted.digest, length_of(response)
        )

    async def _lead(self, wanted: Wanted, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Do *work* as the one who asks for *wanted*; it goes on when the client leaves."""

        async def leading() -> Answer:
            self._asked[wanted.digest] = wanted.host
            try:
                return await work
            finally:
                del self._asked[wanted.digest]

        return await self._fetching.lead(wanted.digest, leading(), drop)

    async def _follow(self, wanted: Wanted) -> None:
        """Wait for the one who leads; its failure is this one's too at the same registry."""
        asked = self._asked[wanted.digest]
        try:
            await self._fetching.led(wanted.digest)
        except UpstreamError:
            if asked == wanted.host:
                raise

    async def _open(self, ask: Ask, wanted: Wanted) -> Answer:
        begun = await self._store.resumable(wanted.digest)
        sources = self._sources(ask, wanted)
        response = await self._get(ask, wanted, sources, (begun, None) if begun else None)
        if begun and response.code not in _ANSWERS:
            # What was begun may be other content, or the registry not know Range.
            discard(response)
            response = await self._get(ask, wanted, sources)
        size = self._limits.manifest_size
        reason = not_stored(wanted.kind, response, size, part=begun > 0)
        if reason is not None and IMirrored.providedBy(response):
            discard(response)
            response = await self._get(ask, wanted, Sources.ORIGIN)
            reason = not_stored(wanted.kind, response, size)
        if reason is not None:
            refuse_unverified(response)
            return Relayed(response, CacheStatus(Forward.MISS, detail=reason))
        await self._permissions.learn(ask, wanted, response)
        return await self._begin(ask, wanted, response)

    async def _get(
        self,
        ask: Ask,
        wanted: Wanted,
        sources: Sources,
        part: tuple[int, int | None] | None = None,
    ) -> IResponse:
        return await ask_for(self._upstream, b"GET", ask, wanted, part, sources=sources)

    def _sources(self, ask: Ask, wanted: Wanted) -> Sources:
        return self._permissions.sources(ask, wanted.repository)


def drop(answer: Answer) -> None:
    """Let go of an answer that nobody wants any more. A transfer goes on."""
    if isinstance(answer, Relayed):
        discard(answer.response)
    elif isinstance(answer, Content):
        answer.blob.close()


def refuse_unverified(response: IResponse) -> None:
    """Raise UpstreamBroken for an answer that may look like content and was not checked.

    A 200 that is not stored is of a kind that cannot be checked. No registry gives content
    with another 2xx.
    """
    if 200 < response.code < 300:
        discard(response)
        raise UpstreamBroken(f"upstream answered {response.code} where content was asked for")


def _whole_length(response: IResponse) -> int | None:
    """The length of the whole content, if *response* begins with its first byte."""
    return length_of(response) if response.code == HTTPStatus.OK else None

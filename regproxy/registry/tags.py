"""Manifests by tag: a tag is only ever believed as long as policy says.

A GET of a tag that is stored costs a HEAD upstream, which Docker Hub does not count
as a pull. The content behind it is content by digest: see ``registry.content``.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from attrs import evolve, frozen
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from regproxy.config.model import FreshnessSection, LimitsSection
from regproxy.interfaces import NO_PATIENCE, IMirrored, IUpstream
from regproxy.oci.conditional import etag_of
from regproxy.oci.errors import BlobDigestInvalid
from regproxy.oci.media_types import accepts, normalise_accept
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.oci.routes import manifest_target
from regproxy.policy.caching import CacheStatus, Forward, Kind, NoStore
from regproxy.policy.freshness import Freshness, judge
from regproxy.policy.upstreams import Sources, is_failure
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
from regproxy.registry.backoff import BackOff
from regproxy.registry.content import ContentService, drop, refuse_unverified
from regproxy.registry.missing import Missing
from regproxy.registry.permissions import NO_HEAD, Permissions, authorities
from regproxy.registry.straight import MemoryBlob
from regproxy.registry.waiting import Leaders
from regproxy.store.disk import shielded
from regproxy.store.errors import StoreError
from regproxy.store.index import TagEntry, TagKey
from regproxy.store.store import Store
from regproxy.upstream.body import discard, read
from regproxy.upstream.errors import UpstreamBroken, UpstreamError, UpstreamLoginFailed

# Seconds for which a registry that could not answer HEAD is asked with GET. Not for
# ever: what answered may have been a page that says "maintenance".
WITHOUT_HEAD: Final = 3600.0


@frozen
class _Question:
    """One client's question for a tag.

    Attributes:
        patience: see :class:`~regproxy.interfaces.IUpstream`.
    """

    ask: Ask
    repository: Repository
    tag: Tag
    key: TagKey
    patience: float | None = None


class TagService:
    """Answers questions for manifests by tag."""

    _log = Logger()

    def __init__(
        self,
        content: ContentService,
        permissions: Permissions,
        store: Store,
        upstream: IUpstream,
        backoff: BackOff,
        freshness: FreshnessSection,
        limits: LimitsSection,
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self._content = content
        self._permissions = permissions
        self._store = store
        self._upstream = upstream
        self._backoff = backoff
        self._freshness = freshness
        self._limits = limits
        self._clock = clock
        self._now = now
        self._fetching = Leaders()
        self._asking = Leaders()
        self._missing = Missing(clock, freshness.not_found)
        # Until when not to ask with HEAD: it was answered with 405, or without a digest.
        self._without_head: dict[Host, float] = {}

    async def answer(self, ask: Ask, repository: Repository, tag: Tag) -> Answer:
        """Answer a GET or HEAD.

        Raises:
            Refused: upstream does not let this client read what is stored.
            StillMissing: upstream has just told this client that there is no such tag.
            UpstreamError: upstream was needed and failed.
        """
        key = TagKey(ask.host, repository, tag, normalise_accept(ask.accept))
        question = _Question(ask, repository, tag, key)
        while True:
            entry = self._store.index.tag(key)
            if entry is not None and self._content.is_here(entry.digest):
                return await self._answer_known(question, entry)
            variant = self._variant(ask, repository, tag)
            if variant is not None:
                return await self._answer_known(question, variant, ours=False)
            self._missing.check(ask.method, key, _speaker(ask))
            if ask.method == b"HEAD" and self._can_head(ask.host):
                return await self._describe(question)
            if key not in self._fetching:
                return await self._fetching.lead(key, self._fetch(question, None), drop)
            await self._fetching.led(key)

    def _variant(self, ask: Ask, repository: Repository, tag: Tag) -> TagEntry | None:
        """What another kind of client got for *tag*, if this one would take it.

        Upstream may have something better for this one, so it is asked by HEAD first; when
        it says the same, or nothing, no GET is spent.
        """
        for entry in self._store.index.variants(ask.host, repository, tag):
            if accepts(ask.accept, entry.media_type) and self._content.is_here(entry.digest):
                return entry
        return None

    async def _get(self, question: _Question, entry: TagEntry | None) -> Answer:
        """GET the tag; what comes is seen to even when the client leaves meanwhile."""
        return await shielded(ensureDeferred(self._fetch(question, entry)), drop)

    def forget(self, host: Host, repository: Repository, tag: Tag) -> None:
        """The tag was pushed or deleted: whether it is there and where it points is not known."""
        self._missing.forget(host, repository, tag)
        self._store.index.drop_tag(host, repository, tag).addErrback(
            lambda failure: self._log.failure("A pushed tag was not forgotten", failure)
        )

    # A tag whose content is stored.

    async def _answer_known(
        self, question: _Question, entry: TagEntry, *, ours: bool = True
    ) -> Answer:
        freshness = judge(self._freshness, question.tag, self._now() - entry.checked_at)
        if freshness is Freshness.FRESH and ours:
            return await self._serve(question, entry, CacheStatus(detail="fresh"), None)
        # The same question of the same login has the same answer.
        asking = question.key, question.ask.login
        if asking not in self._asking:
            work = self._ask_again(question, entry, freshness)
            return await self._asking.lead(asking, work, drop)
        said = await self._asking.led(asking)
        if not isinstance(said, Content):
            return await self._answer_known(question, entry, ours=ours)
        now = self._store.index.tag(question.key) or entry
        status = evolve(said.status, collapsed=True)
        answer = await self._serve(question, now, status, said.age, said.warning)
        return evolve(answer, warning=said.warning) if isinstance(answer, Content) else answer

    async def _ask_again(
        self, question: _Question, entry: TagEntry, freshness: Freshness
    ) -> Answer:
        """Ask upstream about a stored tag; if it fails, what is stored has to do."""
        wanted = _wanted(question, entry.digest)
        if freshness is not Freshness.EXPIRED and self._permissions.does_without_upstream(
            question.ask, wanted
        ):
            question = evolve(question, patience=NO_PATIENCE)
        try:
            answer = await self._revalidate(question, entry)
        except UpstreamLoginFailed:
            # An answer, though not to the client: the proxy's own login was refused.
            raise
        except UpstreamError as error:
            if freshness is Freshness.EXPIRED:
                raise
            return await self._serve_stale(question, entry, str(error))
        if not isinstance(answer, Relayed):
            return answer
        response = answer.response
        if is_failure(response.code) and freshness is not Freshness.EXPIRED:
            discard(response)
            return await self._serve_stale(question, entry, f"upstream answered {response.code}")
        if question.ask.method == b"HEAD" or response.request.method == b"GET":
            return answer
        # A GET gets the body that says why.
        discard(response)
        return await self._get(question, None)

    async def _revalidate(self, question: _Question, entry: TagEntry) -> Answer:
        """Ask upstream whether the tag still points to *entry*, and answer with what it says.

        Raises:
            UpstreamError: it says nothing.
        """
        if authorities(question.ask.section) is Sources.ORIGIN:
            # What is stored is good enough until upstream wants to be asked again.
            self._backoff.check(question.ask.host)
        if not self._can_head(question.ask.host):
            return await self._get(question, entry)
        response = await self._ask(b"HEAD", question)
        digest = _digest_of(response)
        if self._cannot_head(question.ask.host, response, digest):
            return await self._get(question, entry)
        if response.code == HTTPStatus.NOT_FOUND and self._permissions.trusts(
            question.ask, question.repository
        ):
            # To others a registry says so about what they may not read.
            self.forget(question.ask.host, question.repository, question.tag)
        if response.code != HTTPStatus.OK or digest is None:
            return Relayed(response, CacheStatus(Forward.STALE, detail=NoStore.STATUS))
        discard(response)
        if digest == entry.digest:
            await self._learn(question, digest, response)
            return await self._serve(question, entry, CacheStatus(Forward.STALE, detail="same"), 0)
        media_type = await self._permissions.learn(
            question.ask, _wanted(question, digest), response
        )
        if question.ask.method == b"HEAD" and not self._content.is_here(digest):
            status = CacheStatus(Forward.STALE, detail="changed")
            return Description(Kind.MANIFEST, media_type, status, digest, length_of(response))
        return await shielded(
            ensureDeferred(self._take_up(question, entry, digest, media_type)), drop
        )

    async def _take_up(
        self, question: _Question, entry: TagEntry, digest: Digest, media_type: str
    ) -> Answer:
        """Answer with the content that the tag points to now."""
        before = self._store.index.tag(question.key)
        new = TagEntry(digest, media_type, self._now())
        answer = await self._content.answer(question.ask, _wanted(question, digest))
        response = answer.response if isinstance(answer, Relayed) else None
        if response and (response.request.method, response.code) == (b"GET", HTTPStatus.NOT_FOUND):
            # It has moved on, or HEAD does not tell the truth: the tag itself does.
            discard(response)
            return await self._fetch(question, entry)
        detail = answer.status.detail or "changed"
        answer = evolve(answer, status=evolve(answer.status, forward=Forward.STALE, detail=detail))
        if isinstance(answer, Content):
            await self._move(question, before, new)
            return evolve(answer, age=0)
        return answer

    async def _move(self, question: _Question, before: TagEntry | None, new: TagEntry) -> None:
        """Have the tag point to *new* instead of *before*, unless that has changed meanwhile.

        The old content is what is served if upstream fails, as when it only limits the rate
        of GETs, or breaks off: where there is some it stays until the new one is whole.
        """
        if before is not None and self._content.is_here(before.digest):
            fill = self._store.filling(new.digest)
            if fill is not None:
                # If it comes to nothing, the store has logged that.
                fill.when_ended().addCallbacks(
                    lambda _: ensureDeferred(self._move(question, before, new)), lambda _: None
                )
                return
            if not self._store.has(new.digest):
                return
        if self._store.index.tag(question.key) == before:
            await self._remember(question, new)

    async def _serve(
        self,
        question: _Question,
        entry: TagEntry,
        status: CacheStatus,
        age: float | None,
        failed: str | None = None,
    ) -> Answer:
        wanted = _wanted(question, entry.digest)
        media_type = await self._permissions.authorise(question.ask, wanted, failed)
        age = self._now() - entry.checked_at if age is None else age
        content = self._content.hold(question.ask, wanted, media_type, status, age)
        # Else it was evicted while the client's right to read it was asked for.
        return content or await self._content.answer(question.ask, wanted)

    async def _serve_stale(self, question: _Question, entry: TagEntry, reason: str) -> Answer:
        status = CacheStatus(Forward.STALE, detail="stale-if-error")
        answer = await self._serve(question, entry, status, None, reason)
        if not isinstance(answer, Content):
            return answer
        self._log.warn(
            "{host} failed ({reason}), {repository}:{tag} is answered from the store",
            host=str(question.ask.host),
            repository=str(question.repository),
            tag=str(question.tag),
            reason=reason,
        )
        return evolve(answer, warning=f"stored answer, upstream failed: {reason}")

    # A tag that is new.

    async def _describe(self, question: _Question) -> Answer:
        response = await self._ask(b"HEAD", question)
        digest = _digest_of(response)
        if self._cannot_head(question.ask.host, response, digest):
            return await self._get(question, None)
        if response.code != HTTPStatus.OK or digest is None:
            return Relayed(response, CacheStatus(Forward.MISS, detail=NoStore.STATUS))
        discard(response)
        media_type = await self._learn(question, digest, response)
        return Description(
            Kind.MANIFEST, media_type, CacheStatus(Forward.MISS), digest, length_of(response)
        )

    def _cannot_head(self, host: Host, response: IResponse, digest: Digest | None) -> bool:
        """Whether *host* has just shown that HEAD is no use there; *response* is dropped then."""
        if response.code in NO_HEAD or (response.code == HTTPStatus.OK and digest is None):
            discard(response)
            self._without_head[host] = self._clock.seconds() + WITHOUT_HEAD
            return True
        return False

    def _can_head(self, host: Host) -> bool:
        return self._without_head.get(host, 0.0) <= self._clock.seconds()

    async def _fetch(self, question: _Question, entry: TagEntry | None) -> Answer:
        """GET the tag; conditionally when *entry* tells what it was."""
        response = await self._ask(b"GET", question, entry)
        if entry is not None and response.code == HTTPStatus.NOT_MODIFIED:
            discard(response)
            await self._learn(question, entry.digest, response, entry.media_type)
            return await self._serve(question, entry, CacheStatus(Forward.STALE, detail="same"), 0)
        forward = Forward.MISS if entry is None else Forward.STALE
        size = self._limits.manifest_size
        reason = not_stored(Kind.MANIFEST, response, size)
        if reason is not None and IMirrored.providedBy(response):
            discard(response)
            response = await self._ask(b"GET", question, None, Sources.ORIGIN)
            reason = not_stored(Kind.MANIFEST, response, size)
        if reason is not None:
            refuse_unverified(response)
            return Relayed(response, CacheStatus(forward, detail=reason))
        digest = _digest_of(response)
        media_type = media_type_of(response)
        if digest is not None:
            before = self._store.index.tag(question.key)
            new = TagEntry(digest, media_type, self._now())
            answer = await self._content.take(question.ask, _wanted(question, digest), response)
            await self._move(question, before, new)
            return answer
        if response.headers.getRawHeaders(b"content-encoding", [b"identity"]) != [b"identity"]:
            # Nobody asked for that, and no digest tells whether these are the right bytes.
            discard(response)
            raise UpstreamBroken(f"{question.ask.host} sent a manifest in a coding of its own")
        limits = question.ask.section.limits.over(self._limits)
        body = await read(response, size, limits, self._clock)
        wanted = _wanted(question, Digest.of(body))
        reason = await self._put(question.ask, wanted, body)
        if reason is not None:
            blob = MemoryBlob(wanted.digest, body)
            status = CacheStatus(forward, detail=reason)
            return Content(blob, Kind.MANIFEST, media_type, status)
        await self._learn(question, wanted.digest, response)
        status = CacheStatus(forward, stored=True)
        content = self._content.hold(question.ask, wanted, media_type, status)
        return content or await self._content.answer(question.ask, wanted)

    async def _put(self, ask: Ask, wanted: Wanted, body: bytes) -> NoStore | None:
        """Store a manifest that is whole; why not, if it is not stored."""
        if not await self._permissions.may_store(ask, wanted):
            return NoStore.PRIVATE
        try:
            await self._store.put(wanted.digest, body, ask.client)
        except (OSError, StoreError) as error:
            self._log.error("The store takes no manifest: {reason}", reason=str(error))
            return NoStore.DISK
        return None

    async def _learn(
        self,
        question: _Question,
        digest: Digest,
        response: IResponse,
        media_type: str | None = None,
    ) -> str:
        wanted = _wanted(question, digest)
        media_type = await self._permissions.learn(question.ask, wanted, response, media_type)
        await self._remember(question, TagEntry(digest, media_type, self._now()))
        return media_type

    async def _remember(self, question: _Question, entry: TagEntry) -> None:
        try:
            await self._store.index.put_tag(question.key, entry)
        except StoreError as error:
            self._log.error("The index takes nothing: {reason}", reason=str(error))

    async def _ask(
        self,
        method: bytes,
        question: _Question,
        known: TagEntry | None = None,
        sources: Sources | None = None,
    ) -> IResponse:
        ask = question.ask
        sources = sources or authorities(ask.section)
        # Exactly the client's: the answer to a tag depends on it.
        headers = Headers()
        for name in (b"accept", b"user-agent"):
            if values := ask.headers.getRawHeaders(name):
                headers.setRawHeaders(name, values)
        if known is not None:
            headers.setRawHeaders(b"If-None-Match", [etag_of(known.digest)])
        changes = self._missing.changes
        response = await self._upstream.request(
            method,
            ask.host,
            manifest_target(question.repository, question.tag),
            headers=headers,
            repository=question.repository,
            authorization=ask.authorization,
            sources=sources,
            patience=question.patience,
        )
        if method == b"HEAD" and IMirrored.providedBy(response) and _digest_of(response) is None:
            # That it says nothing is no reason to do without HEAD at the registry itself.
            discard(response)
            return await self._ask(method, question, known, Sources.ORIGIN)
        if response.code == HTTPStatus.NOT_FOUND:
            self._missing.note(method, question.key, _speaker(ask), changes)
        return response


def _speaker(ask: Ask) -> bytes | None:
    """In whose name upstream is asked: a guest has no login, and is not nobody for that."""
    return ask.login or ask.authorization


def _wanted(question: _Question, digest: Digest) -> Wanted:
    repository = question.repository
    return Wanted(
        Kind.MANIFEST,
        question.ask.host,
        repository,
        digest,
        manifest_target(repository, digest),
    )


def _digest_of(response: IResponse) -> Digest | None:
    """The digest that upstream says the manifest has; None if it does not say, or badly."""
    values = response.headers.getRawHeaders(b"docker-content-digest", [])
    if len(values) != 1:
        return None
    try:
        return Digest.parse(values[0].decode("latin-1"))
    except BlobDigestInvalid:
        return None

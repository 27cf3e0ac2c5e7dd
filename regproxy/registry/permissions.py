"""Who may read stored content: what is known, and upstream's word where it is not.

Upstream's word counts while it can be asked. While it cannot, what anybody could read when it was
last there may be read on; and so may what the operator has put into a repository, who says
by that that whoever may use this proxy may read it.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Final

from twisted.logger import Logger
from twisted.web.iweb import IResponse

from regproxy.config.model import Access, RegistrySection, TagSource
from regproxy.interfaces import NO_PATIENCE, IMirrored, IUpstream
from regproxy.oci.errors import RegistryError, Unavailable
from regproxy.oci.names import Repository
from regproxy.oci.ranges import range_of
from regproxy.policy.access import may_read
from regproxy.policy.upstreams import Sources
from regproxy.registry.ask import Ask, Wanted, media_type_of
from regproxy.registry.errors import answer_to
from regproxy.registry.grants import Grants
from regproxy.registry.visibility import Visibility
from regproxy.registry.waiting import Leaders
from regproxy.store.errors import StoreError
from regproxy.store.index import Index
from regproxy.upstream.body import discard
from regproxy.upstream.errors import RateLimited, UpstreamError

# The registry cannot be asked without a transfer.
NO_HEAD: Final = (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)


class Refused(RegistryError):
    """Upstream does not let this client read stored content."""

    _CODES: Final = {
        401: "UNAUTHORIZED",
        403: "DENIED",
        404: "NAME_UNKNOWN",
        429: "TOOMANYREQUESTS",
    }
    # The fields of a refusal that tell a client what to do about it.
    _FIELDS: Final = (
        b"www-authenticate",
        b"retry-after",
        b"ratelimit-limit",
        b"ratelimit-remaining",
    )

    def __init__(self, response: IResponse) -> None:
        super().__init__(f"upstream answered {response.code} when asked whether you may read this")
        self.status = response.code
        self.code = self._CODES.get(response.code, "UNKNOWN")
        for name in self._FIELDS:
            if values := response.headers.getRawHeaders(name):
                self.headers[name.decode()] = b", ".join(values).decode("latin-1")


class Unconfirmed(Unavailable):
    """Upstream could not be asked whether this client may read stored content."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"stored here, but upstream cannot say whether you may read it: {reason}")


class Permissions:
    """Sees that clients read what upstream would let them read.

    Args:
        index: tells which repository has which content.
        grants: which logins were accepted lately.
        visibility: which repositories anybody may read.
    """

    _log = Logger()

    def __init__(
        self, index: Index, upstream: IUpstream, grants: Grants, visibility: Visibility
    ) -> None:
        self._index = index
        self._upstream = upstream
        self._grants = grants
        self._visibility = visibility
        self._confirming = Leaders()

    async def authorise(self, ask: Ask, wanted: Wanted, failed: str | None = None) -> str:
        """See that this client may read *wanted*; its media type in this repository.

        Args:
            failed: why there is no use in asking upstream: it has just failed.

        Raises:
            Refused: upstream does not let it.
            Unconfirmed: upstream had to be asked and failed.
        """
        known = self._index.membership(wanted.host, wanted.repository, wanted.digest)
        if known is not None and self.trusts(ask, wanted.repository):
            return known
        spare = known if known is not None and self._is_open_offline(wanted) else None
        # Who logs in nowhere may be refused where a guest of a mirror is not.
        asker = ask.login or ask.authorization
        question = (wanted.host, wanted.repository, wanted.digest, asker)
        try:
            if failed is not None:
                raise Unconfirmed(failed)
            if question in self._confirming:
                # The same object and login have the same answer.
                return str(await self._confirming.led(question))
            confirming = self._confirm(ask, wanted, None if spare is None else NO_PATIENCE)
            return await self._confirming.lead(question, confirming, _ignore)
        except (Unconfirmed, RateLimited):
            if spare is None:
                raise
            return spare

    def does_without_upstream(self, ask: Ask, wanted: Wanted) -> bool:
        """Whether this client may read *wanted* while upstream cannot be asked."""
        known = self._index.membership(wanted.host, wanted.repository, wanted.digest)
        return known is not None and (
            self.trusts(ask, wanted.repository) or self._is_open_offline(wanted)
        )

    def sources(self, ask: Ask, repository: Repository) -> Sources:
        """Who may bring content of *repository* to this client.

        A mirror does not know who asks. So it is asked for those only whom the registry
        lets read, unless the configuration has its word count for the registry's.
        """
        if not ask.section.has_mirrors:
            return Sources.ORIGIN
        if ask.section.tag_source is TagSource.FIRST or self.trusts(ask, repository):
            return Sources.MIRRORS_FIRST
        if self._visibility.was_public(ask.host, repository):
            return Sources.ORIGIN_FIRST
        return Sources.ORIGIN

    def trusts(self, ask: Ask, repository: Repository) -> bool:
        """Whether this client is known to be one who may read *repository*."""
        login = ask.login
        verdict = may_read(
            ask.section.effective_access,
            granted=login is not None and self._grants.holds(ask.host, repository, login),
            public=self._visibility.is_public(ask.host, repository),
        )
        return verdict.serve

    def _is_open_offline(self, wanted: Wanted) -> bool:
        """Whether anybody may read *wanted* while upstream cannot be asked."""
        visibility, place = self._visibility, (wanted.host, wanted.repository)
        return visibility.was_public(*place) or visibility.was_adopted(*place, wanted.digest)

    async def may_store(self, ask: Ask, wanted: Wanted) -> bool:
        """Whether *wanted* may be kept for other clients at all."""
        if ask.section.effective_access is not Access.PUBLIC:
            return True
        return await self._visibility.ascertain(
            wanted.host, wanted.repository, wanted.target, _accept(ask)
        )

    async def _confirm(self, ask: Ask, wanted: Wanted, patience: float | None) -> str:
        question = partial(
            ask_for, self._upstream, sources=authorities(ask.section), patience=patience
        )
        try:
            response = await question(b"HEAD", ask, wanted)
            if response.code in NO_HEAD:
                discard(response)
                response = await question(b"GET", ask, wanted)
        except RateLimited:
            raise
        except UpstreamError as error:
            unconfirmed = Unconfirmed(str(error))
            unconfirmed.proxy_status = answer_to(error).proxy_status
            raise unconfirmed from error
        discard(response)
        if response.code == HTTPStatus.OK:
            return await self.learn(ask, wanted, response)
        if not 400 <= response.code < 500:
            raise Unconfirmed(f"it answered {response.code}")
        refused = response.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        if refused and ask.login is not None:
            self._grants.revoke(wanted.host, wanted.repository, ask.login)
        raise Refused(response)

    async def learn(
        self, ask: Ask, wanted: Wanted, response: IResponse, media_type: str | None = None
    ) -> str:
        """Remember that upstream served *wanted* to this client in *response*, and as what.

        Args:
            media_type: if it is not that of the response.
        """
        host, repository = wanted.host, wanted.repository
        media_type = media_type or media_type_of(response)
        if IMirrored.providedBy(response):
            # It gave this object to anybody; about the others in the repository it says nothing.
            if not self.trusts(ask, repository):
                self._visibility.find_out(host, repository, wanted.target, _accept(ask))
        elif ask.login is None:
            self._visibility.seen(host, repository, public=True)
        else:
            self._grants.accept(host, repository, ask.login)
            if ask.section.effective_access is not Access.SHARED:
                self._visibility.find_out(host, repository, wanted.target, _accept(ask))
        try:
            await self._index.put_membership(
                wanted.host, wanted.repository, wanted.digest, media_type
            )
        except StoreError as error:
            # What is lost is a shortcut: upstream is asked again next time.
            self._log.error("The index takes nothing: {reason}", reason=str(error))
        return media_type


async def ask_for(
    upstream: IUpstream,
    method: bytes,
    ask: Ask,
    wanted: Wanted,
    part: tuple[int, int | None] | None = None,
    *,
    sources: Sources,
    patience: float | None = None,
) -> IResponse:
    """Ask upstream for content, in the name of *ask*'s client.

    Args:
        part: start and exclusive end of the bytes that are wanted; None for all.
        sources, patience: see :class:`~regproxy.interfaces.IUpstream`.
    """
    headers = ask.content_headers()
    if part is not None:
        headers.setRawHeaders(b"Range", [range_of(*part)])
    return await upstream.request(
        method,
        wanted.host,
        wanted.target,
        headers=headers,
        repository=wanted.repository,
        authorization=ask.authorization,
        sources=sources,
        patience=patience,
    )


def authorities(section: RegistrySection) -> Sources:
    """Whose word counts about tags and permissions."""
    first = section.has_mirrors and section.tag_source is TagSource.FIRST
    return Sources.MIRRORS_FIRST if first else Sources.ORIGIN


def _accept(ask: Ask) -> bytes:
    return b", ".join(ask.content_headers().getRawHeaders(b"accept", []))


def _ignore(_: object) -> None:
    """A confirmation is remembered; nobody has to take it."""

"""Which repositories upstream serves to anybody.

A repository is known to be public when upstream served it to nobody in particular
lately: to a client without a login, or to this proxy, which asks once for each repository
that clients with logins use. Bearer tokens do not tell: an anonymous one looks like
any other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from regproxy.interfaces import NO_PATIENCE, IUpstream
from regproxy.oci.names import Digest, Host, Repository
from regproxy.store.errors import IndexFailed
from regproxy.store.index import Index
from regproxy.upstream.body import discard
from regproxy.upstream.errors import UpstreamError

# Seconds for which an answer stands, and for which upstream's failure to give one does.
PUBLIC_LIFETIME: Final = 3600.0
PRIVATE_LIFETIME: Final = 600.0
UNKNOWN_LIFETIME: Final = 60.0
# Each takes some 300 bytes; the oldest go first.
MAX_REMEMBERED: Final = 50_000


class Visibility:
    """Remembers which repositories are public, and finds out.

    Args:
        offline: seconds for which a repository counts as public when upstream cannot be
            asked.
        now: seconds since the epoch, for what outlives the process.
    """

    _log = Logger()

    def __init__(
        self,
        index: Index,
        upstream: IUpstream,
        clock: IReactorTime,
        now: Callable[[], float],
        offline: float,
    ) -> None:
        self._index = index
        self._upstream = upstream
        self._clock = clock
        self._now = now
        self._offline = offline
        # Until when not to ask again, on the monotonic clock, and what was found.
        self._found: OrderedDict[tuple[Host, Repository], tuple[float, bool]] = OrderedDict()

    def is_public(self, host: Host, repository: Repository) -> bool:
        """Whether anybody may read *repository*, as far as was seen in the last hour."""
        until, public = self._found.get((host, repository), (0.0, False))
        if self._clock.seconds() < until:
            return public
        return self._seen_within(host, repository, PUBLIC_LIFETIME)

    def was_public(self, host: Host, repository: Repository) -> bool:
        """The same when upstream cannot be asked: longer ago is good enough then."""
        return self._seen_within(host, repository, self._offline)

    def was_adopted(self, host: Host, repository: Repository, digest: Digest) -> bool:
        """Whether the operator put *digest* into *repository*, and not longer ago than that."""
        return self._is_within(self._index.adopted_at(host, repository, digest), self._offline)

    def seen(self, host: Host, repository: Repository, *, public: bool) -> None:
        """Upstream served *repository* to nobody in particular, or refused to."""
        self._remember(host, repository, public, PUBLIC_LIFETIME if public else PRIVATE_LIFETIME)
        recording = self._index.put_public(host, repository, self._now() if public else None)
        recording.addErrback(self._not_recorded)

    async def ascertain(
        self, host: Host, repository: Repository, target: bytes, accept: bytes
    ) -> bool:
        """Whether anybody may read *repository*, asking upstream if that is not known.

        What upstream does not answer is taken for private.
        """
        if self._is_known(host, repository):
            return self.is_public(host, repository)
        try:
            await self._ask(host, repository, target, accept)
        except UpstreamError as error:
            self._remember(host, repository, False, UNKNOWN_LIFETIME)
            self._log_unknown(host, repository, error.message)
        return self.is_public(host, repository)

    def find_out(self, host: Host, repository: Repository, target: bytes, accept: bytes) -> None:
        """Ask upstream as anybody may, unless that was done lately. Nobody waits for it.

        Args:
            target: of an object in the repository.
        """
        if self._is_known(host, repository):
            return
        self._remember(host, repository, False, UNKNOWN_LIFETIME)
        asking: Deferred[None] = ensureDeferred(self._ask(host, repository, target, accept))
        asking.addErrback(self._failed, host, repository)

    async def _ask(self, host: Host, repository: Repository, target: bytes, accept: bytes) -> None:
        response = await self._upstream.request(
            b"HEAD",
            host,
            target,
            headers=Headers({b"Accept": [accept]}),
            repository=repository,
            anonymous=True,
            patience=NO_PATIENCE,
        )
        discard(response)
        if response.code == 200 or (400 <= response.code < 500 and response.code != 429):
            self.seen(host, repository, public=response.code == 200)

    def _is_known(self, host: Host, repository: Repository) -> bool:
        until, _ = self._found.get((host, repository), (0.0, False))
        return self._clock.seconds() < until or self.is_public(host, repository)

    def _remember(self, host: Host, repository: Repository, public: bool, lifetime: float) -> None:
        self._found[host, repository] = (self._clock.seconds() + lifetime, public)
        self._found.move_to_end((host, repository))
        if len(self._found) > MAX_REMEMBERED:
            self._found.popitem(last=False)

    def _seen_within(self, host: Host, repository: Repository, lifetime: float) -> bool:
        return self._is_within(self._index.public_at(host, repository), lifetime)

    def _is_within(self, when: float | None, lifetime: float) -> bool:
        # A time in the future is one before the clock was set back.
        return when is not None and 0 <= self._now() - when < lifetime

    def _failed(self, failure: Failure, host: Host, repository: Repository) -> None:
        # That is an answer, too: not for anybody, or not now.
        failure.trap(UpstreamError)
        self._log_unknown(host, repository, failure.getErrorMessage())

    def _log_unknown(self, host: Host, repository: Repository, reason: str) -> None:
        self._log.debug(
            "Whether {host}/{repository} is public is not known: {reason}",
            host=str(host),
            repository=str(repository),
            reason=reason,
        )

    def _not_recorded(self, failure: Failure) -> None:
        failure.trap(IndexFailed)
        self._log.error("The index takes nothing: {reason}", reason=failure.getErrorMessage())

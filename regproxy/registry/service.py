"""Every question that a registry client can ask, and who answers it."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from regproxy.config.model import Push
from regproxy.interfaces import IUpstream
from regproxy.oci.errors import MethodNotAllowed
from regproxy.oci.names import Digest, Tag
from regproxy.oci.routes import (
    BlobRoute,
    CatalogRoute,
    ManifestRoute,
    OtherRoute,
    Ping,
    ReferrersRoute,
    TagsRoute,
    UploadRoute,
    blob_target,
    manifest_target,
)
from regproxy.policy.caching import CacheStatus, Forward, Kind
from regproxy.policy.tokens import TokenRequest, token_answer
from regproxy.policy.upstreams import Sources
from regproxy.registry.ask import Answer, Ask, Made, Relayed, Wanted
from regproxy.registry.content import ContentService
from regproxy.registry.permissions import authorities
from regproxy.registry.tags import TagService
from regproxy.upstream.body import discard
from regproxy.upstream.errors import UpstreamError, UpstreamLoginFailed
from regproxy.web.headers import request_headers

READS = (b"GET", b"HEAD")
# Seconds for which a ping or the request for a token waits for a registry that was down a
# moment ago: a round trip with TLS around the world, and then some.
PATIENCE: Final = 2.0
_OFFLINE_TOKEN = "offline"
_FORM: Final = b"application/x-www-form-urlencoded"
# What the proxy's own login is for. Not for a token service, whose answer would hand
# the login to the client: some have their realm below /v2/, as quay.io has.
READABLE = (Ping, ManifestRoute, BlobRoute, TagsRoute, ReferrersRoute, CatalogRoute)


class RegistryService:
    """Answers requests to registries."""

    def __init__(
        self,
        content: ContentService,
        tags: TagService,
        upstream: IUpstream,
        now: Callable[[], float],
    ) -> None:
        self._now = now
        self._content = content
        self._tags = tags
        self._upstream = upstream

    async def answer(self, ask: Ask) -> Answer | Made:
        """Answer *ask*.

        Raises:
            RegistryError: the answer is an error of this proxy's own.
            UpstreamError: upstream was needed and failed.
        """
        if ask.method in READS:
            match ask.route:
                case ManifestRoute(repository, Tag() as tag):
                    return await self._tags.answer(ask, repository, tag)
                case ManifestRoute(repository, Digest() as digest):
                    kind, target = Kind.MANIFEST, manifest_target(repository, digest)
                case BlobRoute(repository, digest):
                    kind, target = Kind.BLOB, blob_target(repository, digest)
                case _:
                    return await self._read(ask)
            # Upstream is asked for what the answer is kept and confirmed as, and nothing else
            # that a client may have put into the target.
            wanted = Wanted(kind, ask.host, repository, digest, target)
            return await self._content.answer(ask, wanted)
        if _is_for_token(ask):
            return await self._read(ask)
        if ask.section.push is Push.DENY and _pushes(ask):
            error = MethodNotAllowed(f"pushing to {ask.host} through this proxy is not allowed")
            error.headers["Allow"] = "GET, HEAD"
            raise error
        taken = True
        try:
            answer = await self._pass(ask)
            taken = not 400 <= answer.response.code < 500
            return answer
        finally:
            # It counts as taken unless upstream says that it is not: after a timeout, or
            # when the client left, nobody knows.
            match ask.route:
                case ManifestRoute(repository, Tag() as tag) if taken:
                    self._tags.forget(ask.host, repository, tag)

    async def _read(self, ask: Ask) -> Answer | Made:
        """Have upstream answer; without it, let a client that wants to pull go on.

        What it asks for next may be here. The token is worth nothing anywhere, and what
        needs a login is refused.
        """
        try:
            answer = await self._pass(ask, self._patience(ask))
        except UpstreamLoginFailed:
            raise
        except UpstreamError as error:
            made = self._offline_answer(ask, error.message)
            if made is None:
                raise
            return made
        status = answer.response.code
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return answer
        made = self._offline_answer(ask, f"upstream answered {status}")
        if made is None:
            return answer
        discard(answer.response)
        return made

    def _patience(self, ask: Ask) -> float | None:
        """How long to wait for a registry that is down; see IUpstream.

        What is said in its place is worth little once it is up again, so it gets a chance.
        """
        return None if self._offline_answer(ask, "") is None else PATIENCE

    def _offline_answer(self, ask: Ask, reason: str) -> Made | None:
        match ask.route:
            case Ping() if self._has_stand_in(ask):
                return Made(b"{}", "application/json", f"offline: {reason}")
            case OtherRoute() if _is_for_token(ask):
                token = token_answer(_OFFLINE_TOKEN, self._now())
                return Made(token, "application/json", f"offline: {reason}")
        return None

    def _has_stand_in(self, ask: Ask) -> bool:
        """Whether something of the registry can be had while it is gone."""
        return self._content.knows(ask.host) or authorities(ask.section) is not Sources.ORIGIN

    async def _pass(self, ask: Ask, patience: float | None = None) -> Relayed:
        """Have upstream answer, and keep nothing."""
        response = await self._upstream.request(
            ask.method,
            ask.host,
            ask.route.target,
            headers=request_headers(ask.headers),
            repository=getattr(ask.route, "repository", None),
            authorization=ask.authorization,
            body=ask.body,
            inject=ask.method in READS and isinstance(ask.route, READABLE),
            patience=patience,
        )
        return Relayed(response, CacheStatus(Forward.BYPASS))


def _is_for_token(ask: Ask) -> bool:
    """Whether *ask* may be for a token: a GET, or a POST of a form.

    containerd and podman with a login send the form (distribution project, "OAuth2 Token
    Authentication"), and give up when the answer is an error of a server.
    """
    if not isinstance(ask.route, OtherRoute):
        return False
    if ask.method != b"POST":
        return TokenRequest.parse(ask.route.target).service is not None
    (media_type,) = ask.headers.getRawHeaders(b"content-type", [b""])[:1]
    return media_type.partition(b";")[0].strip().lower() == _FORM


def _pushes(ask: Ask) -> bool:
    """Whether *ask* would change the registry.

    A POST elsewhere below /v2/ may be for a token (OAuth 2.0).
    """
    if isinstance(ask.route, (ManifestRoute, BlobRoute, UploadRoute)):
        return True
    return ask.method != b"POST" and ask.route.target.startswith(b"/v2/")

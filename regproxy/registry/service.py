"""Every question that a registry client can ask, and who answers it."""

from __future__ import annotations

from regproxy.config.model import Push
from regproxy.interfaces import IUpstream
from regproxy.oci.errors import MethodNotAllowed
from regproxy.oci.names import Digest, Tag
from regproxy.oci.routes import BlobRoute, ManifestRoute, UploadRoute
from regproxy.policy.caching import CacheStatus, Forward, Kind
from regproxy.registry.ask import Answer, Ask, Relayed, Wanted
from regproxy.registry.content import ContentService
from regproxy.registry.tags import TagService

READS = (b"GET", b"HEAD")


class RegistryService:
    """Answers requests to registries."""

    def __init__(self, content: ContentService, tags: TagService, upstream: IUpstream) -> None:
        self._content = content
        self._tags = tags
        self._upstream = upstream

    async def answer(self, ask: Ask) -> Answer:
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
                    kind = Kind.MANIFEST
                case BlobRoute(repository, digest):
                    kind = Kind.BLOB
                case _:
                    return await self._pass(ask)
            wanted = Wanted(kind, ask.host, repository, digest, ask.route.target)
            return await self._content.answer(ask, wanted)
        if ask.section.push is Push.DENY and isinstance(
            ask.route, (ManifestRoute, BlobRoute, UploadRoute)
        ):
            raise MethodNotAllowed(f"pushing to {ask.host} through this proxy is not allowed")
        answer = await self._pass(ask)
        match ask.route:
            case ManifestRoute(repository, Tag() as tag):
                # Whatever upstream says: it may have taken it.
                self._tags.forget(ask.host, repository, tag)
        return answer

    async def _pass(self, ask: Ask) -> Relayed:
        """Have upstream answer, and keep nothing.

        The proxy's own login is used for reading the registry only: not for a push,
        and not at a token service, whose answer would hand it to the client.
        """
        response = await self._upstream.request(
            ask.method,
            ask.host,
            ask.route.target,
            headers=ask.headers,
            repository=getattr(ask.route, "repository", None),
            authorization=ask.authorization,
            body=ask.body,
            inject=ask.method in READS and ask.route.target.startswith(b"/v2"),
        )
        return Relayed(response, CacheStatus(Forward.BYPASS))

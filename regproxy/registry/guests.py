"""Clients of a mirror, which are not made to log in for what anybody may read.

A mirror has another name than the registry. dockerd asks its mirrors once whether they
want a login, and podman once for all registries behind one; a token service may be out
of reach for a client that can only reach the mirror; and a login for the registry is not
for a mirror unless its owner says so (OCI distribution specification, "Registry
Proxying"). So the proxy answers the registry's challenge itself, as anybody may, for
clients that send no login. Only where that is refused do they see the challenge, as it
is: it leads to the registry's own token service, so no password is sent here.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.web.iweb import IResponse
from zope.interface import implementer

from regproxy.config.model import Auth
from regproxy.interfaces import ANYBODY, OWN_LOGIN, IUpstream
from regproxy.oci.names import Host
from regproxy.registry.ask import Answer, Ask, Made
from regproxy.registry.service import READABLE, READS
from regproxy.registry.tokens import Answerer
from regproxy.upstream.errors import UpstreamLoginFailed


class Guests:
    """Answers the clients of a mirror: it stands before whoever answers the others."""

    def __init__(self, service: Answerer) -> None:
        self._service = service

    async def answer(self, ask: Ask) -> Answer | Made:
        """Answer *ask*.

        Where clients log in first, one without a login gets what it could get a token
        of this proxy's for.

        Raises:
            RegistryError: the answer is an error of this proxy's own.
            UpstreamError: upstream was needed and failed.
        """
        reads = ask.method in READS and isinstance(ask.route, READABLE)
        if reads and ask.authorization is None:
            match ask.section.effective_auth:
                case Auth.FORWARD:
                    ask = evolve(ask, authorization=ANYBODY)
                case Auth.CLIENT_FIRST:
                    ask = evolve(ask, authorization=OWN_LOGIN)
        return await self._service.answer(ask)


@implementer(IUpstream)
class OpenUpstream:
    """The way to the registries that knows guests: it goes through challenges for them."""

    def __init__(self, upstream: IUpstream) -> None:
        self._upstream = upstream

    async def request(
        self,
        method: bytes,
        host: Host,
        target: bytes,
        *,
        authorization: bytes | None = None,
        **details: Any,
    ) -> IResponse:
        """See :class:`~regproxy.interfaces.IUpstream`.

        What anybody is refused, a guest is by the registry's own answer.
        """
        if authorization != ANYBODY:
            return await self._upstream.request(
                method, host, target, authorization=authorization, **details
            )
        try:
            return await self._upstream.request(method, host, target, anonymous=True, **details)
        except UpstreamLoginFailed:
            return await self._upstream.request(method, host, target, **details)

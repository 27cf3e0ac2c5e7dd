"""One question to one server, and on to where its redirects lead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse

from regproxy.config.model import Config
from regproxy.oci.names import Host
from regproxy.upstream.agents import Agents
from regproxy.upstream.auth import Answer
from regproxy.upstream.body import Deadline, WatchedBody, drain
from regproxy.upstream.errors import (
    REQUEST_ERRORS,
    RedirectRefused,
    UpstreamTimeout,
    translated,
)
from regproxy.upstream.ledger import Figures
from regproxy.upstream.redirects import REDIRECT_LIMIT, REDIRECTS, URL, redirected
from regproxy.upstream.servers import Server, named

# A registry may verify and copy a whole layer before it answers these.
_STORING: Final = (b"PUT", b"PATCH")


@frozen
class Request:
    """What stays the same over all hops of one request.

    Attributes:
        figures: where it is counted how long answers take to begin.
        principal: see :meth:`Agents.agent`.
    """

    method: bytes
    headers: Headers
    figures: Figures
    body: IBodyProducer | None = None
    principal: bytes | None = None
    authorization: bytes | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent to another place as well."""
        return self.method in (b"GET", b"HEAD") and self.body is None

    def by(self, principal: bytes | None, authorization: bytes | None = None) -> Request:
        """The same on behalf of *principal*, with this Authorization."""
        return evolve(self, principal=principal, authorization=authorization)


class Follower:
    """Asks servers, and follows their redirects of GET and HEAD.

    Args:
        note: told of every answer: whose server it is, on whose behalf it was asked
            (see :meth:`Agents.agent`), and the answer's fields.
    """

    def __init__(
        self,
        clock: IReactorTime,
        config: Config,
        agents: Agents,
        note: Callable[[Host, bytes | None, Headers], object],
    ) -> None:
        self._note = note
        self._clock = clock
        self._config = config
        self._agents = agents

    async def follow(self, request: Request, server: Server, url: URL) -> Answer:
        """The answer at the end of all redirects of *url*, which is one of *server*.

        Raises:
            UpstreamError: there is none.
        """
        owner, from_registry = server.owner, True
        visited: set[URL] = set()
        while True:
            response = await self._exchange(request, server, url)
            if not request.repeatable or response.code not in REDIRECTS:
                return Answer(response, from_registry)
            visited.add(url)
            await drain(response, self._clock)
            if len(visited) > REDIRECT_LIMIT:
                raise RedirectRefused(f"more than {REDIRECT_LIMIT} redirects, last at {url.netloc}")
            target = redirected(url, response.headers.getRawHeaders(b"location"))
            server, target = named(self._config, server, target)
            if target in visited:
                raise RedirectRefused(f"{url.netloc} redirects in a circle")
            secure = url.scheme == "http" or target.scheme == "https"
            if not secure and not server.section.plain_http:
                raise RedirectRefused(f"{url.netloc} redirects to plain http")
            url = target
            if server.owner != owner:
                # For good: a redirect back does not bring them back.
                request, from_registry = request.by(None), False

    async def _exchange(self, request: Request, server: Server, url: URL) -> IResponse:
        """One request on one connection, with its deadline."""
        headers = request.headers.copy()
        if request.authorization is not None:
            headers.setRawHeaders(b"Authorization", [request.authorization])
        agent = self._agents.agent(server.owner, server.section, request.principal)
        began = self._clock.seconds()
        deadline = Deadline(self._clock, lambda: requesting.cancel())
        limits = server.section.limits.over(self._config.limits)
        answer = limits.upstream_upload if request.method in _STORING else limits.upstream_head
        body = request.body
        if body is None:
            deadline.within(answer)
        else:
            deadline.within(limits.upstream_head)
            body = WatchedBody(body, deadline, limits.upstream_idle, answer)
        try:
            requesting = agent.request(request.method, str(url).encode("ascii"), headers, body)
            response: IResponse = await requesting
        except (*REQUEST_ERRORS, CancelledError) as error:
            if deadline.passed:
                raise UpstreamTimeout(f"{url.netloc} did not answer in time") from error
            raise translated(error, url.netloc) from error
        finally:
            deadline.stop()
        self._note(server.owner, request.principal, response.headers)
        if request.method not in _STORING:
            request.figures.answered(self._clock.seconds() - began)
        return response

"""Requests to registries: through mirrors, redirects and the proxy's own login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from regproxy import __version__
from regproxy.config.model import Auth, Config
from regproxy.interfaces import OWN_LOGIN, IUpstream
from regproxy.oci.names import Host, Repository
from regproxy.policy.addresses import LeadsBack, nowhere
from regproxy.policy.upstreams import Sources, is_failure
from regproxy.upstream.agents import Agents
from regproxy.upstream.auth import Account, Answer, Authenticator
from regproxy.upstream.body import BytesBody, Measured
from regproxy.upstream.errors import UpstreamError
from regproxy.upstream.fallover import AskServer, FallOver
from regproxy.upstream.follow import Follower, Request
from regproxy.upstream.ledger import Figures, Ledger
from regproxy.upstream.logins import ICredentials
from regproxy.upstream.rate_limits import RateLimits, Speaker
from regproxy.upstream.redirects import URL, encoded
from regproxy.upstream.servers import Server, named, servers
from regproxy.upstream.ways_out import WaysOut

# What tells the proxy's own login from clients' Authorizations, none of which can be it.
_OURSELVES: Final = OWN_LOGIN

# Set here, or nobody's business upstream.
_DROPPED: Final = (
    b"authorization",
    b"content-length",
    b"cookie",
    b"forwarded",
    b"host",
    b"x-forwarded-for",
)


@implementer(IUpstream)
class Upstream:
    """The way to all registries."""

    def __init__(
        self,
        ways_out: WaysOut,
        config: Config,
        credentials: ICredentials,
        rate_limits: RateLimits,
        ledger: Ledger,
        now: Callable[[], float],
        own: LeadsBack = nowhere,
    ) -> None:
        """
        Args:
            ways_out: how hosts are reached.
            credentials: the logins of the proxy.
            rate_limits: told of every answer.
            ledger: told of every answer, and of what goes wrong.
            now: seconds since the epoch, for servers that name a date.
            own: where this proxy itself is; it is not dialled.

        Raises:
            ValueError: an entry of ``relay.allow`` is none.
        """
        clock = cast(IReactorTime, ways_out.reactor)
        self._config = config
        self._agents = Agents(ways_out, config, own)
        self._follower = Follower(clock, config, self._agents, self._note)
        self._rate_limits = rate_limits
        self._ledger = ledger
        self._fall_over = FallOver(clock, now)
        self._auth = Authenticator(clock, self._fetch, config.limits, credentials)

    async def request(
        self,
        method: bytes,
        host: Host,
        target: bytes,
        *,
        headers: Headers,
        repository: Repository | None = None,
        authorization: bytes | None = None,
        body: IBodyProducer | None = None,
        inject: bool = True,
        anonymous: bool = False,
        sources: Sources = Sources.ORIGIN,
        patience: float | None = None,
    ) -> IResponse:
        """The final answer of a registry; its body is still to be read or discarded.

        GET and HEAD go to the upstreams that *sources* names, on to the next when one
        cannot be used or gives no answer, and follow redirects. Other methods go to the
        last upstream, which is the origin behind the mirrors, and are sent once.

        Args:
            host: the registry's identity.
            target: path and query.
            headers: of the client, without hop-by-hop fields.
            repository: what the proxy's own login is for.
            authorization: the client's, which mirrors do not get; not used when the proxy
                logs in itself. OWN_LOGIN has it do so where clients log in first.
            inject: let the proxy log in itself where the configuration says so; False for
                a push, which goes with the client's Authorization only.
            anonymous: ask as anybody may: the proxy gets itself a token without
                credentials, whatever the configuration says.
            patience: seconds to wait while the upstreams are known to be down; None for as
                long as ever.

        Raises:
            UpstreamError: there is no usable answer.
            ValueError: *target* does not begin with a slash.
        """
        host = host.canonical
        section = self._config.registry(host)
        if authorization == OWN_LOGIN:
            authorization = None
        else:
            inject = inject and section.effective_auth is Auth.INJECT
        inject = inject and section.effective_auth is not Auth.FORWARD and not anonymous
        figures = self._ledger.of(host)
        request = Request(method, _prepared(headers), figures, body)
        url = URL("https", host, encoded(target))

        async def ask(server: Server) -> IResponse:
            asked = url.under(server.base)
            mine = server.owner == host
            if mine and not (inject or anonymous):
                by_client = request.by(authorization, authorization)
                return (await self._follower.follow(by_client, server, asked)).response
            without = anonymous if mine else server.section.effective_auth is Auth.FORWARD
            principal = None if without else _OURSELVES

            async def send(login: bytes | None) -> Answer:
                return await self._follower.follow(request.by(principal, login), server, asked)

            account = Account(server.owner, server.section, without)
            return await self._auth.request(account, repository, send)

        all_servers = servers(self._config, host)
        ask_counted = _counted(ask, figures)
        if not request.repeatable:
            return await ask_counted(all_servers[-1])
        return await self._fall_over.first_answer(all_servers, sources, patience, ask_counted)

    def close(self) -> Deferred[object]:
        """Close idle connections; fires when they are gone."""
        return self._agents.close()

    async def _fetch(
        self, account: Account, url: URL, authorization: bytes | None, form: bytes | None = None
    ) -> IResponse:
        """GET *url*, which the registry of *account* named, or POST *form* there."""
        home = Server(account.registry, account.section)
        principal = None if authorization is None and form is None else _OURSELVES
        headers = _prepared(Headers())
        figures = self._ledger.of(account.registry)
        if form is None:
            request = Request(b"GET", headers, figures)
        else:
            headers.setRawHeaders(b"Content-Type", [b"application/x-www-form-urlencoded"])
            request = Request(b"POST", headers, figures, BytesBody(form))
        server, url = named(self._config, home, url)
        by = request.by(principal, authorization)
        return (await self._follower.follow(by, server, url)).response

    def _note(self, owner: Host, principal: bytes | None, headers: Headers) -> None:
        if principal is None:
            speaker = Speaker.ANONYMOUS
        else:
            speaker = Speaker.OWN if principal == _OURSELVES else Speaker.CLIENT
        self._rate_limits.note(owner, speaker, headers)


def _counted(ask: AskServer, figures: Figures) -> AskServer:
    """*ask*, with what comes of it counted in *figures*: bytes, and what goes wrong."""

    async def counted(server: Server) -> IResponse:
        try:
            response = await ask(server)
        except UpstreamError as error:
            figures.failed(error)
            raise
        if is_failure(response.code):
            figures.refused(server.base.netloc, response.code)
        return Measured(response, figures)

    return counted


def _prepared(headers: Headers) -> Headers:
    """The fields that go upstream, but for Host and Authorization."""
    prepared = headers.copy()
    for name in _DROPPED:
        prepared.removeHeader(name)
    # A coded body would have another digest than the content.
    if not prepared.hasHeader(b"accept-encoding"):
        prepared.setRawHeaders(b"Accept-Encoding", [b"identity"])
    if not prepared.hasHeader(b"user-agent"):
        prepared.setRawHeaders(b"User-Agent", [b"regproxy/" + __version__.encode("ascii")])
    return prepared

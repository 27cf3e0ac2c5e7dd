"""Requests to registries: through mirrors, redirects and the proxy's own login."""

from __future__ import annotations

from typing import Final, cast

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from regproxy import __version__
from regproxy.config.model import Auth, Config, RegistrySection
from regproxy.interfaces import OWN_LOGIN, IUpstream
from regproxy.oci.names import Host, Repository
from regproxy.policy.addresses import LeadsBack, nowhere
from regproxy.upstream.agents import Agents, PolicyFor
from regproxy.upstream.auth import Account, Answer, Authenticator
from regproxy.upstream.body import BytesBody, Deadline, WatchedBody, drain
from regproxy.upstream.dial import DialReactor
from regproxy.upstream.errors import (
    REQUEST_ERRORS,
    RedirectRefused,
    UpstreamError,
    UpstreamTimeout,
    translated,
)
from regproxy.upstream.logins import ICredentials
from regproxy.upstream.rate_limits import RateLimits, Speaker
from regproxy.upstream.redirects import REDIRECT_LIMIT, REDIRECTS, URL, encoded, redirected

# What tells the proxy's own login from clients' Authorizations.
_OURSELVES: Final = b"regproxy"

# A registry may verify and copy a whole layer before it answers these.
_STORING: Final = (b"PUT", b"PATCH")

# Set here, or nobody's business upstream.
_DROPPED: Final = (
    b"authorization",
    b"content-length",
    b"cookie",
    b"forwarded",
    b"host",
    b"x-forwarded-for",
)


@frozen
class _Request:
    """What stays the same over all hops of one request.

    Attributes:
        principal: see :meth:`Agents.agent`.
    """

    method: bytes
    headers: Headers
    body: IBodyProducer | None
    principal: bytes | None
    authorization: bytes | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent to another place as well."""
        return self.method in (b"GET", b"HEAD") and self.body is None

    def authorized(self, authorization: bytes | None) -> _Request:
        """The same with this Authorization."""
        return evolve(self, authorization=authorization)

    def without_credentials(self) -> _Request:
        """The same for a host that is not the registry."""
        return evolve(self, authorization=None, principal=None)


@frozen
class _Hop:
    """One server, or several that stand for it.

    Attributes:
        owner: the identity whose section holds for the connection.
        urls: what to try, in this order.
    """

    owner: Host
    section: RegistrySection
    urls: tuple[URL, ...]


@implementer(IUpstream)
class Upstream:
    """The way to all registries."""

    _log = Logger()

    def __init__(
        self,
        reactor: DialReactor,
        config: Config,
        policy_for: PolicyFor,
        credentials: ICredentials,
        rate_limits: RateLimits,
        own: LeadsBack = nowhere,
    ) -> None:
        """
        Args:
            credentials: the logins of the proxy.
            rate_limits: told of every answer.
            policy_for: gives the TLS policy of a registry; asked once for each
                combination of ``ca_file`` and ``insecure``.
            own: where this proxy itself is; it is not dialled.

        Raises:
            ValueError: an entry of ``relay.allow`` is none.
        """
        self._clock = cast(IReactorTime, reactor)
        self._config = config
        self._limits = config.limits
        self._rate_limits = rate_limits
        self._agents = Agents(reactor, config, policy_for, own)
        self._auth = Authenticator(
            self._clock, self._fetch, config.limits.upstream_idle, credentials
        )

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
    ) -> IResponse:
        """The final answer of a registry; its body is still to be read or discarded.

        GET and HEAD go to the registry's upstreams in their order, on to the next when one
        cannot be used or answers 5xx, and follow redirects. Other methods go to the
        last upstream, which is the origin behind the mirrors, and are sent once.

        Args:
            host: the registry's identity.
            target: path and query.
            headers: of the client, without hop-by-hop fields.
            repository: what the proxy's own login is for.
            authorization: the client's; not used when the proxy logs in itself. OWN_LOGIN
                has it do so where clients log in first.
            inject: let the proxy log in itself where the configuration says so; False for
                a push, which goes with the client's Authorization only.
            anonymous: ask as anybody may: the proxy gets itself a token without
                credentials, whatever the configuration says.

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
        principal = _OURSELVES if inject else None if anonymous else authorization
        request = _Request(method, _prepared(headers), body, principal)
        url = URL("https", host, encoded(target))
        hop = _Hop(host, section, tuple(url.under(base) for base in _bases(section)))
        if not (inject or anonymous):
            return (await self._follow(request.authorized(authorization), hop)).response

        async def send(login: bytes | None) -> Answer:
            return await self._follow(request.authorized(login), hop)

        return await self._auth.request(Account(host, section, anonymous), repository, send)

    def close(self) -> Deferred[object]:
        """Close idle connections; fires when they are gone."""
        return self._agents.close()

    async def _fetch(
        self, registry: Host, url: URL, authorization: bytes | None, form: bytes | None = None
    ) -> IResponse:
        """GET *url*, which *registry* named, with its credentials; or POST *form* there."""
        home = _Hop(registry, self._config.registry(registry), ())
        principal = None if authorization is None and form is None else _OURSELVES
        headers = _prepared(Headers())
        if form is None:
            request = _Request(b"GET", headers, None, principal, authorization)
        else:
            headers.setRawHeaders(b"Content-Type", [b"application/x-www-form-urlencoded"])
            request = _Request(b"POST", headers, BytesBody(form), principal, authorization)
        return (await self._follow(request, self._next(url, home))).response

    async def _follow(self, request: _Request, hop: _Hop) -> Answer:
        """The answer at the end of all redirects."""
        owner, from_registry = hop.owner, True
        visited: set[URL] = set()
        while True:
            response, url = await self._first_usable(request, hop)
            if not request.repeatable or response.code not in REDIRECTS:
                return Answer(response, from_registry)
            visited.add(url)
            await drain(response, self._clock)
            if len(visited) > REDIRECT_LIMIT:
                raise RedirectRefused(f"more than {REDIRECT_LIMIT} redirects, last at {url.netloc}")
            target = redirected(url, response.headers.getRawHeaders(b"location"))
            hop = self._next(target, hop)
            if hop.urls[0] in visited:
                raise RedirectRefused(f"{url.netloc} redirects in a circle")
            if (
                url.scheme == "https"
                and hop.urls[0].scheme == "http"
                and not hop.section.plain_http
            ):
                raise RedirectRefused(f"{url.netloc} redirects to plain http")
            if hop.owner != owner:
                # For good: a redirect back does not bring them back.
                request, from_registry = request.without_credentials(), False

    def _next(self, url: URL, hop: _Hop) -> _Hop:
        """Where *url*, named by a server of *hop*, is to be had.

        A host with a section of its own is reached as that says. The servers of
        *hop* itself may also be named as they are.
        """
        if any(url.origin == base.origin for base in _bases(hop.section)):
            return _Hop(hop.owner, hop.section, (url,))
        section = self._config.registry(url.host)
        if (owner := url.host.canonical) in self._config.registries:
            return _Hop(owner, section, tuple(url.under(base) for base in _bases(section)))
        return _Hop(url.host, section, (url,))

    async def _first_usable(self, request: _Request, hop: _Hop) -> tuple[IResponse, URL]:
        """The first usable answer of the hop's servers, or the last one's, whatever it is."""
        *others, last = hop.urls
        for url in others if request.repeatable else ():
            try:
                response = await self._exchange(request, hop, url)
            except UpstreamError as error:
                reason = error.message
            else:
                if response.code < 500:
                    return response, url
                reason = f"status {response.code}"
                await drain(response, self._clock)
            self._log.info(
                "an upstream of {registry} is passed over: {reason}",
                registry=str(hop.owner),
                upstream=url.netloc,
                reason=reason,
            )
        return await self._exchange(request, hop, last), last

    async def _exchange(self, request: _Request, hop: _Hop, url: URL) -> IResponse:
        """One request on one connection, with its deadline."""
        headers = request.headers.copy()
        if request.authorization is not None:
            headers.setRawHeaders(b"Authorization", [request.authorization])
        agent = self._agents.agent(hop.owner, hop.section, request.principal)
        deadline = Deadline(self._clock, lambda: requesting.cancel())
        limits = self._limits
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
        self._rate_limits.note(hop.owner, _speaker(request.principal), response.headers)
        return response


def _speaker(principal: bytes | None) -> Speaker:
    if principal is None:
        return Speaker.ANONYMOUS
    return Speaker.OWN if principal == _OURSELVES else Speaker.CLIENT


def _bases(section: RegistrySection) -> tuple[URL, ...]:
    return tuple(map(URL.parse, section.upstream))


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

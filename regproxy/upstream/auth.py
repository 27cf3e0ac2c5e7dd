"""The proxy's own login at a registry: Basic, and the Bearer token dance.

The dance is that of the distribution project's "Token Authentication
Specification": a 401 names a realm; a GET there, with Basic credentials, answers
with a token for one scope; the request is repeated with it. An identity token is
exchanged for one by a POST of a form (there, "OAuth2").
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import urlencode

from attrs import frozen
from publicsuffixlist import PublicSuffixList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IResponse

from regproxy.config.model import LimitsSection, RegistrySection
from regproxy.oci.challenges import Bearer, Challenge, ChallengeInvalid, bearer, parse_challenges
from regproxy.oci.names import Host, Repository
from regproxy.upstream.body import drain, read
from regproxy.upstream.errors import (
    UpstreamBroken,
    UpstreamLoginFailed,
    UpstreamUnreachable,
)
from regproxy.upstream.flights import Flights
from regproxy.upstream.logins import ICredentials, IdentityToken, Login
from regproxy.upstream.redirects import URL, encoded

# What a token lives when its service does not say (token specification).
DEFAULT_LIFETIME: Final = 60.0
# The part of its life that a token is used for: the rest is for clocks that run
# differently, and for requests under way.
USED_PART: Final = 0.8
TOKEN_LIMIT: Final = 1024
# OAuth 2.0 wants the program named that asks.
CLIENT_ID: Final = "regproxy"
# Tokens of Docker Hub with many scopes reach some 10 kB.
ANSWER_LIMIT: Final = 1 << 20

# RFC 6750 section 2.1 says less; what matters is that it stays one header line.
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


@frozen
class Answer:
    """A response, and whether it is the registry's own.

    The answer of another host that the registry redirected to says nothing about
    the login at the registry.
    """

    response: IResponse
    from_registry: bool


@frozen
class Account:
    """At which registry, and as whom.

    Attributes:
        section: the registry's.
        anonymous: do not use the credentials of the section, even if it has some.
    """

    registry: Host
    section: RegistrySection
    anonymous: bool = False

    @property
    def key(self) -> tuple[Host, bool]:
        """What tells accounts apart."""
        return self.registry, self.anonymous


class Fetch(Protocol):
    """Asks a URL on behalf of an account, with *authorization* and nothing else to log in.

    It is a GET, or with *form* a POST of that.
    """

    def __call__(
        self, account: Account, url: URL, authorization: bytes | None, form: bytes | None = None
    ) -> Awaitable[IResponse]:
        """Raises UpstreamError."""


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def same_domain(one: Host, other: Host) -> bool:
    """Whether both are of the same registrable domain, or the same address or name."""
    if one.name == other.name:
        return True
    if one.is_address or other.is_address:
        return False
    domain = _suffixes().privatesuffix(one.name)
    return domain is not None and domain == _suffixes().privatesuffix(other.name)


@frozen
class _Token:
    authorization: bytes
    use_until: float


class Authenticator:
    """Sends requests with the proxy's login, and keeps challenges and tokens for it."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, fetch: Fetch, limits: LimitsSection, credentials: ICredentials
    ) -> None:
        """
        Args:
            credentials: where the logins are.
            limits: how long a token service may be silent, and how slow it may be.
        """
        self._clock = clock
        self._fetch = fetch
        self._limits = limits
        self._credentials = credentials
        # As many as there are registries in the configuration, and anonymous ones.
        self._challenges: OrderedDict[tuple[Host, bool], Bearer | None] = OrderedDict()
        self._tokens: OrderedDict[tuple[Host, bool, str], _Token] = OrderedDict()
        self._flights: Flights[tuple[Host, bool, str], bytes] = Flights()

    async def request(
        self,
        account: Account,
        repository: Repository | None,
        send: Callable[[bytes | None], Awaitable[Answer]],
    ) -> IResponse:
        """Send a request, logging in as the registry asks for it.

        *send* is called with the Authorization to use, at most three times: without a
        login or with a remembered one, with a new one, and once more with a newer token.

        Raises:
            UpstreamLoginFailed: the registry or its token service refuses.
            UpstreamError: from *send*, or on the way to the token service.
        """
        authorization = await self._remembered(account, repository)
        refusals = 0
        while True:
            answer = await send(authorization)
            response = answer.response
            if response.code != HTTPStatus.UNAUTHORIZED or not answer.from_registry:
                return response
            await drain(response, self._clock)
            refusals += authorization is not None
            challenges = _challenges(response, account.registry)
            authorization = await self._login(
                account, repository, challenges, authorization, refusals
            )

    async def _remembered(self, account: Account, repository: Repository | None) -> bytes | None:
        """What the registry asked for the last time."""
        if account.key not in self._challenges:
            return None
        challenge = self._challenges[account.key]
        if challenge is None:
            return await self._basic(account)
        return await self._token(account, challenge, _scope(repository, None))

    async def _login(
        self,
        account: Account,
        repository: Repository | None,
        challenges: Sequence[Challenge],
        refused: bytes | None,
        refusals: int,
    ) -> bytes:
        """The Authorization that answers *challenges*, after *refused* did not."""
        if refusals < 2 and (token := bearer(challenges)) is not None:
            self._remember(account, token)
            scope = _scope(repository, token.scope)
            known = self._tokens.get((*account.key, scope))
            # Another request may have brought a newer one meanwhile.
            if known is not None and known.authorization == refused:
                del self._tokens[*account.key, scope]
            return await self._token(account, token, scope)
        if refusals < 2 and any(challenge.scheme == "basic" for challenge in challenges):
            basic = await self._basic(account)
            if basic is not None and basic != refused:
                self._remember(account, None)
                return basic
        what = f"the repository {repository}" if repository else "this request"
        reason = "asks for a login that this proxy has not got"
        if refusals:
            reason = f"does not accept the login of this proxy for {what}"
        raise UpstreamLoginFailed(f"{account.registry} {reason}", HTTPStatus.UNAUTHORIZED)

    def _remember(self, account: Account, challenge: Bearer | None) -> None:
        self._challenges[account.key] = challenge
        if len(self._challenges) > TOKEN_LIMIT:
            self._challenges.popitem(last=False)

    async def _token(self, account: Account, challenge: Bearer, scope: str) -> bytes:
        """An Authorization with a token for *scope*: kept, or fetched once for all who wait."""
        key = (*account.key, scope)
        known = self._tokens.get(key)
        if known is not None and self._clock.seconds() < known.use_until:
            self._tokens.move_to_end(key)
            return known.authorization
        return await self._flights.join(key, lambda: self._fetch_token(account, challenge, scope))

    async def _fetch_token(self, account: Account, challenge: Bearer, scope: str) -> bytes:
        login = await self._login_of(account)
        realm = _realm(account, challenge, login)
        query = {"service": challenge.service, "scope": scope}
        asked = {name: value for name, value in query.items() if value}
        asked_at = self._clock.seconds()
        if isinstance(login, IdentityToken):
            form = {
                "grant_type": "refresh_token",
                "client_id": CLIENT_ID,
                "refresh_token": login.token,
                **asked,
            }
            content = urlencode(form).encode("ascii")
            response = await self._fetch(account, realm, None, content)
        else:
            basic = None if login is None else login.authorization
            response = await self._fetch(account, realm.asking(asked), basic)
        if response.code != HTTPStatus.OK:
            await drain(response, self._clock)
            raise _refusal(account.registry, realm, response.code)
        content = await read(response, ANSWER_LIMIT, self._limits, self._clock)
        value, lifetime = _token_of(content, account.registry)
        self._log.debug("token for {registry} {scope}", registry=str(account.registry), scope=scope)
        authorization = b"Bearer " + value.encode("ascii")
        self._keep((*account.key, scope), _Token(authorization, asked_at + lifetime * USED_PART))
        return authorization

    def _keep(self, key: tuple[Host, bool, str], token: _Token) -> None:
        self._tokens[key] = token
        self._tokens.move_to_end(key)
        if len(self._tokens) > TOKEN_LIMIT:
            self._tokens.popitem(last=False)

    async def _login_of(self, account: Account) -> Login | None:
        """The login of *account*; None for an anonymous one."""
        if account.anonymous:
            return None
        return await self._credentials.login(account.registry, account.section)

    async def _basic(self, account: Account) -> bytes | None:
        """The Authorization with name and password; None for an anonymous account.

        Raises:
            UpstreamLoginFailed: there is no password.
        """
        login = await self._login_of(account)
        if isinstance(login, IdentityToken):
            raise UpstreamLoginFailed(
                f"{account.registry} asks for a user name and password, and the login that this"
                " proxy has is an identity token: log in with an access token instead"
            )
        return None if login is None else login.authorization


def _scope(repository: Repository | None, asked: str | None) -> str:
    """Never more than to pull: what a registry asks for a push is not for this account."""
    return asked or "" if repository is None else f"repository:{repository}:pull"


def _challenges(response: IResponse, registry: Host) -> list[Challenge]:
    lines = response.headers.getRawHeaders(b"www-authenticate", [])
    try:
        return [challenge for line in lines for challenge in parse_challenges(line)]
    except ChallengeInvalid as error:
        raise UpstreamLoginFailed(
            f"{registry} asks for a login in a way that cannot be read: {error}",
            HTTPStatus.UNAUTHORIZED,
        ) from None


def _realm(account: Account, challenge: Bearer, login: Login | None) -> URL:
    """The realm, if *login* may go there.

    Raises:
        UpstreamLoginFailed: they may not.
    """
    registry, section = account.registry, account.section
    try:
        realm = URL.parse(encoded(challenge.realm.encode("latin-1")))
    except ValueError as error:
        raise UpstreamLoginFailed(f"the token realm of {registry} is invalid: {error}") from None
    if realm.scheme != "https" and not section.plain_http:
        raise UpstreamLoginFailed(f"the token realm of {registry} is not https")
    own = [registry, *(URL.parse(base).host for base in section.upstream)]
    if login is not None and not any(same_domain(realm.host, host) for host in own):
        raise UpstreamLoginFailed(
            f"the token realm of {registry} is at {realm.host}, which is of another domain:"
            " the credentials are not sent there"
        )
    return realm


def _refusal(registry: Host, realm: URL, status: int) -> UpstreamLoginFailed | UpstreamUnreachable:
    what = f"the token service {realm.host} of {registry} answered {status}"
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
        return UpstreamUnreachable(what)
    return UpstreamLoginFailed(what, status)


def _token_of(content: bytes, registry: Host) -> tuple[str, float]:
    """The token and its lifetime in seconds.

    ``access_token`` is what OAuth 2.0 calls the same thing (token specification).
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise UpstreamBroken(f"the token service of {registry} sent something that is not JSON")
    token = answer.get("token") or answer.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise UpstreamBroken(f"the token service of {registry} sent no token")
    lifetime = answer.get("expires_in")
    if not isinstance(lifetime, int | float) or not 0 < lifetime < float("inf"):
        lifetime = DEFAULT_LIFETIME
    return token, float(lifetime)

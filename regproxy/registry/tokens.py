"""Clients log in first, and the proxy for those who cannot: ``auth = "client-first"``.

It stands before the registry service and translates. A registry's challenge passes
through; a client with a login goes on with it, untouched. When a client without one
asks the registry's token service, it gets a token of this proxy's instead, and a request
that carries it is asked upstream with the proxy's own login. A token that is forged,
expired or for something else counts as none, so that the registry's challenge is the
answer; and none ever goes upstream.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from attrs import evolve, frozen

from regproxy.config.model import Auth, Config
from regproxy.interfaces import OWN_LOGIN
from regproxy.oci.challenges import Bearer, ChallengeInvalid, bearer, parse_challenges
from regproxy.oci.errors import OwnFailure, RegistryError
from regproxy.oci.names import DOCKER_HUB, Host
from regproxy.oci.routes import (
    BlobRoute,
    ManifestRoute,
    OtherRoute,
    Ping,
    ReferrersRoute,
    TagsRoute,
)
from regproxy.policy.tokens import (
    KEY_SIZE,
    LIFETIME,
    Ticket,
    TokenRequest,
    own_token,
    token_answer,
)
from regproxy.registry.ask import Answer, Ask, Made, Relayed
from regproxy.registry.service import READS
from regproxy.upstream.auth import same_domain
from regproxy.upstream.redirects import URL, encoded

# What a token is for: a repository's content, and the ping that comes before it.
_READABLE: Final = (Ping, ManifestRoute, BlobRoute, TagsRoute, ReferrersRoute)
# A client may have been told before this process began.
_KNOWN: Final = {
    Host(DOCKER_HUB): Bearer("https://auth.docker.io/token", "registry.docker.io"),
}


class Answerer(Protocol):
    """Answers requests to registries."""

    async def answer(self, ask: Ask) -> Answer | Made:
        """Raises RegistryError and UpstreamError."""


@frozen
class _Realm:
    """Where the tokens of a registry are had; its query does not matter."""

    host: Host
    path: str
    service: str | None


class TokenKey:
    """The key that tokens are sealed with, in a file that is made when it is needed.

    Several processes may share it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._value: bytes | None = None

    @property
    def value(self) -> bytes:
        """The key.

        Raises:
            OwnFailure: the file cannot be read or made, or holds something else.
        """
        if self._value is None:
            try:
                value = self._load_or_create()
            except OSError as error:
                raise OwnFailure(
                    f"{self._file}, the key of this proxy's tokens, cannot be used:"
                    f" {error.strerror}"
                ) from error
            if len(value) != KEY_SIZE:
                raise OwnFailure(
                    f"{self._file} is no key of {KEY_SIZE} bytes: remove it to have one made"
                )
            self._value = value
        return self._value

    def _load_or_create(self) -> bytes:
        try:
            return self._file.read_bytes()
        except FileNotFoundError:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_name(f".{self._file.name}.{secrets.token_hex(8)}")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_SIZE))
            file.flush()
            os.fsync(file.fileno())
        try:
            # It appears whole, and the first of several processes wins.
            os.link(new, self._file)
        except FileExistsError:
            pass
        finally:
            new.unlink()
        return self._file.read_bytes()


class ClientFirst:
    """Answers requests to registries, whose clients log in first.

    Args:
        service: answers what is left.
        config: which registries these are.
        key: seals the tokens.
        now: seconds since the epoch.
    """

    def __init__(
        self, service: Answerer, config: Config, key: TokenKey, now: Callable[[], float]
    ) -> None:
        self._service = service
        self._config = config
        self._key = key
        self._now = now
        self._realms: dict[Host, _Realm] = {}
        for registry, challenge in _KNOWN.items():
            self._learn(registry, challenge)

    async def answer(self, ask: Ask) -> Answer | Made:
        """Answer *ask*.

        Raises:
            RegistryError: the answer is an error of this proxy's own.
            UpstreamError: upstream was needed and failed.
        """
        if ask.method == b"GET" and ask.authorization is None and isinstance(ask.route, OtherRoute):
            request = TokenRequest.parse(ask.route.target)
            if registries := self._registries_of(ask.host, request):
                return self._issue(registries, request)
        try:
            answer = await self._service.answer(self._translated(ask))
        except RegistryError as error:
            if challenge := error.headers.get("www-authenticate"):
                self._notice(ask.host, [challenge.encode("latin-1")])
            raise
        if isinstance(answer, Relayed):
            lines = answer.response.headers.getRawHeaders(b"www-authenticate", [])
            self._notice(ask.host, lines)
        return answer

    def _translated(self, ask: Ask) -> Ask:
        """*ask* in the name of this proxy if its token allows that, else without the token."""
        token = own_token(ask.authorization)
        if token is None:
            return ask
        if (
            ask.section.effective_auth is Auth.CLIENT_FIRST
            and ask.method in READS
            and isinstance(ask.route, _READABLE)
        ):
            ticket = Ticket.unsealed(token, self._key.value)
            repository = getattr(ask.route, "repository", None)
            if ticket is not None and ticket.admits(ask.host, repository, self._now()):
                return evolve(ask, authorization=OWN_LOGIN)
        return evolve(ask, authorization=None)

    def _issue(self, registries: frozenset[Host], request: TokenRequest) -> Made:
        now = self._now()
        ticket = Ticket(registries, request.repositories, int(now) + LIFETIME)
        content = token_answer(ticket.sealed(self._key.value), now)
        return Made(content, "application/json", "a token of this proxy's own")

    def _registries_of(self, host: Host, request: TokenRequest) -> frozenset[Host]:
        """The registries whose clients *request* a token at *host*."""
        asked = _Realm(host, request.path, request.service)
        return frozenset(registry for registry, realm in self._realms.items() if realm == asked)

    def _notice(self, registry: Host, lines: Sequence[bytes]) -> None:
        """Learn from a challenge that passes through."""
        try:
            challenge = bearer([each for line in lines for each in parse_challenges(line)])
        except ChallengeInvalid:
            # The client will not understand it either.
            return
        if challenge is not None:
            self._learn(registry, challenge)

    def _learn(self, registry: Host, challenge: Bearer) -> None:
        section = self._config.registry(registry)
        if section.effective_auth is not Auth.CLIENT_FIRST:
            return
        try:
            realm = URL.parse(encoded(challenge.realm.encode("latin-1")))
        except ValueError:
            return
        own = [registry, URL.parse(section.upstream[-1]).host]
        # Elsewhere the proxy's login is not sent: a token would be good for nothing.
        if any(same_domain(realm.host, host) for host in own):
            path = realm.target.partition("?")[0]
            self._realms[registry] = _Realm(realm.host.canonical, path, challenge.service)

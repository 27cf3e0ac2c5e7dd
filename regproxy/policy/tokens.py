"""Opaque tokens of this proxy's own: who asks for one, what it is good for. Pure.

With ``auth = "client-first"`` a client without a login gets such a token where the
registry's token service would have given it an anonymous one (distribution project,
"Token Authentication Specification"). It means nothing to anybody but this proxy: it
says that the proxy may ask in its own name for the client, for these repositories,
until then. It is signed and not kept, so it outlives a restart, and every process with the
same key knows it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Final, Self
from urllib.parse import parse_qs

from attrs import frozen

from regproxy.oci.errors import NameInvalid
from regproxy.oci.names import Host, Repository

KEY_SIZE: Final = 32
# Seconds: what Docker Hub's live. Clients take 60 for granted.
LIFETIME: Final = 300

# It tells these tokens from a registry's, even when they are forged or old.
_PREFIX: Final = "regproxy."
_SCHEME: Final = b"bearer "
# A pull needs one. Names have up to 255 characters, and clients and servers take some
# 16 kB of header.
_REPOSITORIES_MAX: Final = 32


@frozen
class TokenRequest:
    """What a client asks a token service for.

    Attributes:
        path: of the realm.
        service: which service's registries the token is to be for.
        repositories: what it wants to pull; other wishes are not for these tokens.
    """

    path: str
    service: str | None
    repositories: frozenset[Repository]

    @classmethod
    def parse(cls, target: bytes) -> Self:
        """Read a request target. What is no scope for pulling is left out of it."""
        path, _, query = target.decode("latin-1").partition("?")
        fields = parse_qs(query)
        scopes = " ".join(fields.get("scope", [])).split()
        found = dict.fromkeys(filter(None, map(_pulled, scopes)))
        repositories = frozenset(list(found)[:_REPOSITORIES_MAX])
        return cls(path, fields.get("service", [None])[0], repositories)


@frozen
class Ticket:
    """What a token is good for: reading, and nothing else.

    Attributes:
        registries: one, or several that share a token service.
        expires: seconds since the epoch.
    """

    registries: frozenset[Host]
    repositories: frozenset[Repository]
    expires: int

    def admits(self, registry: Host, repository: Repository | None, now: float) -> bool:
        """Whether it is good for this *repository*; None stands for the ping."""
        return (
            now < self.expires
            and registry in self.registries
            and (repository is None or repository in self.repositories)
        )

    def sealed(self, key: bytes) -> str:
        """The token."""
        claims = {
            "registries": sorted(map(str, self.registries)),
            "repositories": sorted(map(str, self.repositories)),
            "expires": self.expires,
        }
        payload = urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode())
        return f"{_PREFIX}{payload.decode()}.{_seal(payload, key)}"

    @classmethod
    def unsealed(cls, token: str, key: bytes) -> Self | None:
        """The ticket in *token*; None if it was not sealed with *key*."""
        if not token.isascii():
            return None
        payload, _, seal = token.removeprefix(_PREFIX).encode().rpartition(b".")
        if not hmac.compare_digest(seal, _seal(payload, key).encode()):
            return None
        claims = json.loads(urlsafe_b64decode(payload))
        return cls(
            frozenset(map(Host.parse, claims["registries"])),
            frozenset(map(Repository.parse, claims["repositories"])),
            claims["expires"],
        )


def own_token(authorization: bytes | None) -> str | None:
    """The token in *authorization* if it is, or says that it is, one of this proxy."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    token = authorization[len(_SCHEME) :].strip().decode("latin-1")
    return token if token.startswith(_PREFIX) else None


def token_answer(token: str, now: float) -> bytes:
    """What a token service answers: ``token`` for docker, ``access_token`` for OAuth 2.0."""
    issued_at = datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    answer = {
        "token": token,
        "access_token": token,
        "expires_in": LIFETIME,
        "issued_at": issued_at,
    }
    return json.dumps(answer).encode()


def _seal(payload: bytes, key: bytes) -> str:
    return hmac.new(key, payload, hashlib.sha256).hexdigest()


def _pulled(scope: str) -> Repository | None:
    """The repository that ``repository:NAME:ACTION,ACTION`` wants to pull."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    # The type may have a class, as in "repository(plugin)".
    if kind.partition("(")[0] != "repository" or "pull" not in actions.split(","):
        return None
    try:
        return Repository.parse(name)
    except NameInvalid:
        return None

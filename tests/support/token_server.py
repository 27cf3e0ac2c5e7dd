"""A token server for a real registry: the distribution project's token specification.

It signs JSON web tokens that docker-registry verifies against a CA. Everybody may pull
what is below ``public/``; a user with the right password may do anything. Run it as a
program with the path of a JSON file that holds the fields of :class:`Settings`.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Final

import jwt
from attrs import asdict, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import endpoints, task
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

PUBLIC: Final = "public/"
# Seconds. The least that clients take for granted is 60.
LIFETIME: Final = 300

Access = list[dict[str, Any]]


@frozen
class Settings:
    """What the server needs. Paths name PEM files; the key signs and serves TLS."""

    port: int
    issuer: str
    service: str
    certificate: str
    key: str
    users: dict[str, str]

    def write(self, path: Path) -> None:
        """Save as JSON to *path*."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Load what :meth:`write` saved."""
        return cls(**json.loads(path.read_text()))


def sign(settings: Settings, subject: str, access: Access) -> str:
    """A token that lets *subject* do what *access* says."""
    now = int(time.time())
    certificate = x509.load_pem_x509_certificate(Path(settings.certificate).read_bytes())
    der = certificate.public_bytes(Encoding.DER)
    claims = {
        "iss": settings.issuer,
        "aud": settings.service,
        "sub": subject,
        "iat": now,
        # The registry and we share a clock; a second may be cut off on the way.
        "nbf": now - 5,
        "exp": now + LIFETIME,
        "jti": uuid.uuid4().hex,
        "access": access,
    }
    return jwt.encode(
        claims,
        Path(settings.key).read_bytes(),
        algorithm="ES256",
        headers={"x5c": [base64.b64encode(der).decode()]},
    )


def grant(user: str, scopes: list[str]) -> Access:
    """What *user* (empty: anonymous) gets of the *scopes* asked for.

    A scope is ``repository:NAME:ACTION,ACTION``. What is not allowed is left out without
    an error: so does Docker Hub, and the refusal is the registry's then.
    """
    access = []
    for scope in " ".join(scopes).split():
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        wanted = actions.split(",")
        if not user:
            wanted = [action for action in wanted if action == "pull" and name.startswith(PUBLIC)]
        if wanted:
            access.append({"type": kind, "name": name, "actions": wanted})
    return access


class TokenResource(Resource):
    """``/token``: GET with Basic, or POST of a form as OAuth 2 has it."""

    isLeaf = True

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def render_GET(self, request: Request) -> bytes:
        """The token specification's own way: scopes in the query."""
        header = request.getHeader("authorization")
        if header is None:
            return self._answer(request, "")
        try:
            user, _, password = (
                base64.b64decode(header.removeprefix("Basic "), validate=True)
                .decode("utf-8")
                .partition(":")
            )
        except (binascii.Error, UnicodeDecodeError):
            return self._refuse(request)
        return self._check(request, user, password)

    def render_POST(self, request: Request) -> bytes:
        """OAuth 2's password grant, which containerd tries first."""
        if self._field(request, b"grant_type") != "password":
            return self._refuse(request)
        return self._check(
            request, self._field(request, b"username"), self._field(request, b"password")
        )

    @staticmethod
    def _field(request: Request, name: bytes) -> str:
        values: list[bytes] = request.args.get(name, [b""])
        return values[0].decode()

    def _check(self, request: Request, user: str, password: str) -> bytes:
        if self._settings.users.get(user) != password:
            return self._refuse(request)
        return self._answer(request, user)

    def _answer(self, request: Request, user: str) -> bytes:
        scopes = [scope.decode() for scope in request.args.get(b"scope", [])]
        token = sign(self._settings, user, grant(user, scopes))
        request.setHeader("content-type", "application/json")
        return json.dumps({"token": token, "access_token": token, "expires_in": LIFETIME}).encode()

    @staticmethod
    def _refuse(request: Request) -> bytes:
        request.setResponseCode(http.UNAUTHORIZED)
        request.setHeader("content-type", "application/json")
        error = {"code": "UNAUTHORIZED", "message": "incorrect username or password"}
        return json.dumps({"errors": [error]}).encode()


class LoggedSite(Site):
    """A site with its access log on standard output, a line at a time."""

    def log(self, request: http.Request) -> None:
        """Called by Twisted after each request."""
        print(http.combinedLogFormatter(http.datetimeToLogString(), request), flush=True)


async def main(reactor: IReactorCore, settings_file: str) -> None:
    """Serve until the process is told to stop."""
    settings = Settings.read(Path(settings_file))
    root = Resource()
    root.putChild(b"token", TokenResource(settings))
    endpoint = endpoints.serverFromString(
        reactor,
        f"ssl:{settings.port}:interface=127.0.0.1"
        f":privateKey={settings.key}:certKey={settings.certificate}",
    )
    await endpoint.listen(LoggedSite(root))
    forever: Deferred[None] = Deferred()
    await forever


if __name__ == "__main__":
    task.react(main, sys.argv[1:])

"""Real registries: docker-registry behind TLS on a port of the loopback interface."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import sys
import urllib.parse
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

from attrs import frozen

from tests.support import access_log, token_server
from tests.support.access_log import Traffic
from tests.support.certificates import make_ca, make_leaf
from tests.support.images import Content, Image, Index
from tests.support.process import Process, environment, free_port, listens, run
from tests.support.programs import program

ADDRESS: Final = "127.0.0.1"
#: What registries and token server call the service that tokens are for.
SERVICE: Final = "registry of the tests"

# Of a real registry's log: what marks a point in it, and is no client's request.
_FENCE: Final = "fence="


@frozen
class Login:
    """A user's name and password."""

    user: str
    password: str

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        pair = f"{self.user}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


ALICE: Final = Login("alice", "correct horse")
WRONG: Final = Login("alice", "battery staple")

AuthorizationFor = Callable[[str], dict[str, str]]


class PushRefused(AssertionError):
    """A registry did not take what a test pushed."""


@frozen
class Keys:
    """A CA for upstream servers and a certificate for all of them, as files."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, directory: Path, *names: str) -> Keys:
        """Make them in *directory*, for the loopback address and the host *names*."""
        authority = make_ca("upstream CA")
        leaf = make_leaf(authority, dns=names, ips=[ADDRESS], cn="upstream")
        return cls(
            _write(directory / "upstream-ca.pem", authority.certificate_pem),
            _write(directory / "upstream.pem", leaf.certificate_pem),
            _write(directory / "upstream.key", leaf.key_pem),
        )


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Server:
    """An upstream server of a test, with an access log on its output."""

    #: Whether it speaks TLS.
    tls: ClassVar = True

    def __init__(self, name: str, arguments: list[str], port: int, keys: Keys, log: Path) -> None:
        self.port = port
        self.keys = keys
        self.process = Process(name, arguments, log=log, env=environment())
        try:
            self.process.wait_until(lambda: listens(port))
        except BaseException:
            self.process.stop()
            raise

    @property
    def url(self) -> str:
        """Where the server is, without a path."""
        return f"http{'s' if self.tls else ''}://{ADDRESS}:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        """A connection straight to the server."""
        if not self.tls:
            return http.client.HTTPConnection(ADDRESS, self.port, timeout=30)
        context = ssl.create_default_context(cafile=str(self.keys.ca))
        return http.client.HTTPSConnection(ADDRESS, self.port, timeout=30, context=context)

    def record(self) -> Recording:
        """Begin to watch what the server is asked for."""
        return Recording(self, self.fence())

    def fence(self) -> int:
        """The place in the log behind everything that has been answered until now."""
        marker = _FENCE + uuid.uuid4().hex
        connection = self.connect()
        connection.request("GET", f"/?{marker}")
        connection.getresponse().read()
        connection.close()
        self.process.wait_until(lambda: self._answered(marker))
        return self.process.log.stat().st_size

    def _answered(self, marker: str) -> bool:
        return any(marker in each.target for each in access_log.parse(self.process.read_log()))


@frozen
class Recording:
    """A stretch of a server's access log that begins at byte *start*."""

    server: Server
    start: int

    def traffic(self) -> Traffic:
        """What the server was asked for since the beginning, until now."""
        self.server.fence()
        log = self.server.process.read_log(self.start)
        return Traffic(each for each in access_log.parse(log) if _FENCE not in each.target)


class TokenServer(Server):
    """``tests.support.token_server`` as a process."""

    def __init__(self, directory: Path, keys: Keys, *, realm: str) -> None:
        self.realm = realm
        self.settings = token_server.Settings(
            port=free_port(),
            issuer="token server of the tests",
            service=SERVICE,
            certificate=str(keys.certificate),
            key=str(keys.key),
            users={ALICE.user: ALICE.password},
        )
        file = directory / "token-server.json"
        self.settings.write(file)
        arguments = [sys.executable, token_server.__file__, str(file)]
        log = directory / "token-server.log"
        super().__init__("token server", arguments, self.settings.port, keys, log)


class Registry(Server):
    """A docker-registry with its own storage."""

    def __init__(
        self,
        directory: Path,
        keys: Keys,
        *,
        auth: dict[str, Any] | None = None,
        authorization_for: AuthorizationFor = lambda repository: {},
        client_ca: Path | None = None,
    ) -> None:
        """Start it in *directory*.

        *auth* is docker-registry's configuration section; *authorization_for* makes the
        headers with which the tests push to a repository. With *client_ca* it speaks only to
        clients that have a certificate of that CA.
        """
        self._authorization_for = authorization_for
        port = free_port()
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
            "http": {"addr": f"{ADDRESS}:{port}"},
        }
        if self.tls:
            tls = {"certificate": str(keys.certificate), "key": str(keys.key)}
            config["http"]["tls"] = tls
        if auth is not None:
            config["auth"] = auth
        if client_ca is not None:
            config["http"]["tls"]["clientcas"] = [str(client_ca)]
        # JSON is YAML.
        file = _write(directory / "config.yml", json.dumps(config).encode())
        arguments = [program("docker-registry"), "serve", str(file)]
        super().__init__(directory.name, arguments, port, keys, directory / "registry.log")

    @classmethod
    def with_tokens(cls, directory: Path, tokens: TokenServer) -> Registry:
        """One that wants Bearer tokens of *tokens*."""
        settings = tokens.settings

        def authorization_for(repository: str) -> dict[str, str]:
            access = [{"type": "repository", "name": repository, "actions": ["pull", "push"]}]
            return {"Authorization": f"Bearer {token_server.sign(settings, 'tests', access)}"}

        auth = {
            "token": {
                "realm": tokens.realm,
                "service": settings.service,
                "issuer": settings.issuer,
                "rootcertbundle": str(tokens.keys.ca),
            }
        }
        return cls(directory, tokens.keys, auth=auth, authorization_for=authorization_for)

    @classmethod
    def with_password(cls, directory: Path, keys: Keys) -> Registry:
        """One that wants the password of ``ALICE``, for everything."""
        entry = run(
            program("htpasswd"), "-nbB", ALICE.user, ALICE.password, env=environment()
        ).check()
        file = _write(directory / "htpasswd", entry.encode())
        return cls(
            directory,
            keys,
            auth={"htpasswd": {"realm": "tests", "path": str(file)}},
            authorization_for=lambda repository: {"Authorization": ALICE.basic},
        )

    def push(self, repository: str, tag: str, content: Image | Index) -> None:
        """Put *content* and all that it refers to under *repository*:*tag*.

        Raises:
            PushRefused: the registry answered with an error.
        """
        connection = self.connect()
        headers = self._authorization_for(repository)
        images = content.images if isinstance(content, Index) else ()
        for image in images:
            self._push_image(connection, headers, repository, image, image.digest)
        if isinstance(content, Image):
            self._push_image(connection, headers, repository, content, tag)
        else:
            _put_manifest(connection, headers, repository, content.manifest, tag)
        connection.close()

    @staticmethod
    def _push_image(
        connection: http.client.HTTPConnection,
        headers: dict[str, str],
        repository: str,
        image: Image,
        reference: str,
    ) -> None:
        for blob in image.blobs:
            _put_blob(connection, headers, repository, blob)
        _put_manifest(connection, headers, repository, image.manifest, reference)


class PlainRegistry(Registry):
    """A docker-registry without TLS."""

    tls = False


def _put_blob(
    connection: http.client.HTTPConnection,
    headers: dict[str, str],
    repository: str,
    blob: Content,
) -> None:
    """Upload in two requests (OCI distribution specification 1.1, "POST then PUT")."""
    target = f"/v2/{repository}/blobs/uploads/"
    location = _send(connection, "POST", target, headers, b"")["Location"]
    parts = urllib.parse.urlsplit(location)
    query = "&".join(filter(None, (parts.query, f"digest={blob.digest}")))
    headers = headers | {"Content-Type": "application/octet-stream"}
    _send(connection, "PUT", f"{parts.path}?{query}", headers, blob.content)


def _put_manifest(
    connection: http.client.HTTPConnection,
    headers: dict[str, str],
    repository: str,
    manifest: Content,
    reference: str,
) -> None:
    headers = headers | {"Content-Type": manifest.media_type}
    target = f"/v2/{repository}/manifests/{reference}"
    _send(connection, "PUT", target, headers, manifest.content)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes,
) -> http.client.HTTPMessage:
    connection.request(method, target, body=body, headers=headers)
    response = connection.getresponse()
    content = response.read()
    if response.status // 100 != 2:
        raise PushRefused(f"{method} {target}: {response.status} {content!r}")
    return response.headers

"""The registry resource behind a real site, in memory: clients before it, a script behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocolFactory, ISSLTransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from zope.interface import directlyProvides

from regproxy.config.model import (
    DAY,
    Access,
    Auth,
    Config,
    FreshnessSection,
    LimitsSection,
    Push,
    RegistrySection,
    TagSource,
)
from regproxy.oci.names import Digest, Host
from regproxy.policy.filling import FillRules
from regproxy.registry.backoff import BackOff, ConsiderateUpstream
from regproxy.registry.content import ContentService
from regproxy.registry.grants import Grants
from regproxy.registry.permissions import Permissions
from regproxy.registry.resource import RegistryResource
from regproxy.registry.service import RegistryService
from regproxy.registry.tags import TagService
from regproxy.registry.tokens import Answerer
from regproxy.registry.visibility import Visibility
from regproxy.store.disk import BlobDirectory, Workers
from regproxy.store.index import Index
from regproxy.store.store import Store
from regproxy.web.site import Entry, Limits, StrictSite
from tests.support.sites import KeptLog
from tests.support.streams import MemoryStream
from tests.support.upstream import FakeUpstream
from tests.support.workers import Now

OPEN: Final = "open.example.com"
OTHER: Final = "other.example.com"
# Credentials, and so inject and shared.
TEAM: Final = "team.example.com"
# Credentials, and yet each client is looked at.
WARY: Final = "wary.example.com"
DENY: Final = "deny.example.com"
# It has a mirror, and what a tag is says the registry, or the first that answers.
MIRRORED: Final = "mirrored.example.com"
FIRST: Final = "first.example.com"
# The registry is to be had at another address.
MOVED: Final = "moved.example.com:5000"


def _mirror_and(host: str) -> tuple[str, str]:
    return "https://mirror.example.net", f"https://{host}"


CONFIG: Final = Config(
    data=Path("/nonexistent"),
    limits=LimitsSection(),
    registries={
        Host.parse(OPEN): RegistrySection(),
        Host.parse(OTHER): RegistrySection(),
        Host.parse(TEAM): RegistrySection(username="team", password="secret"),
        Host.parse(WARY): RegistrySection(
            username="team", password="secret", auth=Auth.INJECT, access=Access.VERIFY
        ),
        Host.parse(DENY): RegistrySection(push=Push.DENY),
        Host.parse(MIRRORED): RegistrySection(upstream=_mirror_and(MIRRORED)),
        Host.parse(FIRST): RegistrySection(upstream=_mirror_and(FIRST), tag_source=TagSource.FIRST),
        Host.parse(MOVED): RegistrySection(upstream=("https://192.0.2.7:5000",)),
    },
)

_ADDRESS: Final = IPv4Address("TCP", "192.0.2.1", 4711)
# Some moment: the index and the rules work with time of day.
_EPOCH: Final = 1_700_000_000.0


class Answer:
    """What a client has received for one request.

    Attributes:
        body: what has come of it, without chunks.
        whole: nothing is missing.
    """

    def __init__(self, method: str, data: bytes) -> None:
        head, _, rest = data.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        self.status = int(status.split(b" ")[1]) if head else 0
        self.headers = Headers()
        for line in lines:
            name, _, value = line.partition(b":")
            self.headers.addRawHeader(name, value.strip())
        self.body = b""
        self.whole = bool(head)
        if method == "HEAD" or self.status in (204, 304):
            assert not rest, "a body where there must not be one"
        elif self["transfer-encoding"] == "chunked":
            self.whole = self._unchunk(rest)
        else:
            self.body = rest
            self.whole = len(rest) == int(self["content-length"] or -1)

    def __getitem__(self, name: str) -> str | None:
        """All lines of a field."""
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)

    @property
    def error(self) -> dict[str, str]:
        """The error that the body tells of."""
        assert self["content-type"] == "application/json", self["content-type"]
        (error,) = json.loads(self.body)["errors"]
        assert isinstance(error, dict)
        return error

    def _unchunk(self, rest: bytes) -> bool:
        while b"\r\n" in rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0:
                return True
            self.body += rest[:length]
            rest = rest[length + 2 :]
        return False


class Client:
    """One connection to the site."""

    def __init__(
        self,
        factory: IProtocolFactory,
        clock: Clock,
        sni: str | None = None,
        *,
        secure: bool = True,
    ) -> None:
        protocol = factory.buildProtocol(_ADDRESS)
        assert protocol is not None
        self.stream = _Stream(protocol, sni, secure)
        self._clock = clock
        self._method = ""
        self._data = b""

    def send(self, method: str, target: str, fields: Mapping[str, str], body: bytes = b"") -> None:
        """One request."""
        self._method, self._data = method, b""
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.stream.send("\r\n".join([*lines, "", ""]).encode() + body)
        self._clock.advance(0)

    def answer(self) -> Answer:
        """What has come until now."""
        self._clock.advance(0)
        while data := self.stream.take():
            self._data += data
            self._clock.advance(0)
        return Answer(self._method, self._data)

    def leave(self) -> None:
        """The client closes the connection."""
        self.stream.finish()

    @property
    def cut(self) -> bool:
        """Whether the connection was broken off."""
        return self.stream.aborted


class _Stream(MemoryStream):
    """A connection that may look like TLS."""

    def __init__(self, protocol: Any, sni: str | None, secure: bool) -> None:
        self._sni = sni
        if secure:
            directlyProvides(self, ISSLTransport)
        super().__init__(protocol)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def getPeer(self) -> IPv4Address:
        return _ADDRESS

    def getHandle(self) -> _Stream:
        return self

    def get_servername(self) -> bytes | None:
        return None if self._sni is None else self._sni.encode()

    def getPeerCertificate(self) -> None:
        """Clients have none."""


class FrontTestCase(SynchronousTestCase):
    """A site with a script for its upstream.

    Whatever a test does: in the end no response may be left unread, and no file open.
    """

    config = CONFIG

    def setUp(self) -> None:
        self.clock = Clock()
        self.upstream = FakeUpstream()
        self.root = Path(self.mktemp()).absolute()
        directory = BlobDirectory(self.root)
        directory.prepare()
        self.index = Index(self.root / "index.sqlite3", self.index_workers())
        self.index.open()
        self.store = Store(directory, self.index, self.disk_workers(), self.clock, self.now)
        self.grants = Grants(self.clock)
        self.log = KeptLog()
        self.start(self.config)

    def tearDown(self) -> None:
        self.clock.advance(0)
        self.assertEqual(self.upstream.neglected(), [], "responses were left unread")
        self.index.close()
        self.assertEqual(self.open_files(), [], "files were left open")

    def index_workers(self) -> Workers:
        return Now()

    def disk_workers(self) -> Workers:
        return Now()

    def start(self, config: Config) -> None:
        """Have the site work with *config*."""
        backoff = BackOff(self.clock, self.now)
        upstream = ConsiderateUpstream(self.upstream, backoff, config.limits.rate_limit_wait)
        visibility = Visibility(self.index, upstream, self.clock, self.now, 7 * DAY)
        permissions = Permissions(self.index, upstream, self.grants, visibility)
        content = ContentService(
            self.store,
            upstream,
            permissions,
            config.limits,
            FillRules(),
            self.clock,
        )
        tags = TagService(
            content,
            permissions,
            self.store,
            upstream,
            backoff,
            config.freshness,
            config.limits,
            self.clock,
            self.now,
        )
        service = self.before(RegistryService(content, tags, upstream, self.now), config)
        self.site = StrictSite(
            RegistryResource(service, config, self.clock),
            Entry("tls", impersonated=True),
            Limits(30.0, 300.0, 300.0),
            self.clock,
            self.log,
        )

    def before(self, service: RegistryService, config: Config) -> Answerer:
        """What stands before the service, where a test has something there."""
        return service

    def fresh_for(self, seconds: float) -> None:
        """Have tags be fresh for so long."""
        self.start(evolve(self.config, freshness=FreshnessSection(default=seconds)))

    def now(self) -> float:
        """The time of day."""
        return _EPOCH + self.clock.seconds()

    def open_files(self) -> list[str]:
        """What is open of the store."""
        links = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                links.append(os.readlink(entry))
            except FileNotFoundError:
                # The directory's own.
                continue
        return [link for link in links if link.startswith(str(self.root))]

    def stored(self, content: bytes) -> bool:
        """Whether *content* is in the store."""
        return self.store.has(Digest.of(content))

    def client(
        self, host: str | None = None, sni: str | None = None, way: str = "connect"
    ) -> Client:
        """A client that came by CONNECT to *host*, or else straight to the TLS port."""
        factory: IProtocolFactory = self.site
        if host is not None:
            factory = self.site.entered_by(Entry(way, Host.parse(host), impersonated=True))
        return Client(factory, self.clock, sni)

    def ask(
        self,
        method: str,
        host: str,
        target: str,
        login: str | None = None,
        body: bytes = b"",
        **fields: str,
    ) -> Client:
        """A new client's request; underscores in the names of fields are hyphens."""
        client = self.client(host, host.partition(":")[0])
        sent = {"Host": host}
        if login is not None:
            sent["Authorization"] = login
        sent |= {name.replace("_", "-"): value for name, value in fields.items()}
        client.send(method, target, sent, body)
        return client

    def get(self, host: str, target: str, login: str | None = None, **fields: str) -> Answer:
        """What a GET gets."""
        return self.ask("GET", host, target, login, b"", **fields).answer()

    def head(self, host: str, target: str, login: str | None = None, **fields: str) -> Answer:
        """What a HEAD gets."""
        return self.ask("HEAD", host, target, login, b"", **fields).answer()

    def assertAsked(self, *questions: str) -> None:
        """Upstream was asked this since the last time, in this order."""
        self.assertEqual(self.upstream.questions(), list(questions))

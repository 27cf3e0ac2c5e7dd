"""The API on a strict site in memory, over parts that show a store of their own."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

import bcrypt
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.web.resource import Resource

from regproxy.config.model import CacheSection, Config, ManagementSection
from regproxy.management.access import Guard
from regproxy.management.events import Events
from regproxy.management.history import History, Totals
from regproxy.management.loop_delay import LoopDelay
from regproxy.management.overview import Rooms
from regproxy.management.parts import Parts
from regproxy.management.resource import ApiResource
from regproxy.management.tally import Traffic
from regproxy.management.values import CAValue
from regproxy.registry.backoff import BackOff
from regproxy.registry.prefetch import Prefetch
from regproxy.store.housekeeping import Housekeeping
from regproxy.upstream.ledger import Ledger
from regproxy.upstream.rate_limits import RateLimits
from tests.support.caches import CacheCase
from tests.support.prefetching import FakePrefetch
from tests.support.sites import House, Response, responses
from tests.support.streams import MemoryStream

LOOPBACK: Final = IPv4Address("TCP", "127.0.0.1", 4711)
NEIGHBOUR: Final = IPv4Address("TCP", "10.0.0.7", 4711)
STRANGER: Final = IPv4Address("TCP", "8.8.8.8", 4711)
HOST: Final = "127.0.0.1:8080"

TOKEN: Final = "correct-horse-battery-staple"
USER: Final = "ann"
PASSWORD: Final = "tr0ub4dor&3"

BEARER: Final = {"Authorization": f"Bearer {TOKEN}"}


def basic(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    """The field that a browser sends."""
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def hashed(password: str = PASSWORD) -> str:
    """What ``htpasswd -B`` has for *password*, with the least of trouble."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


class PartsCase(CacheCase):
    """Parts over a store of their own, on a clock of the test's."""

    section = ManagementSection()

    def setUp(self) -> None:
        super().setUp()
        self.house = House()
        self.clock = self.house.clock
        self.config = Config(Path("data"))
        self.traffic = Traffic(self.config)
        self.ledger = Ledger(self.traffic.name_of, lambda: self.time)
        self.events = Events(self.time)
        self.totals = Totals(0, 0, 0, 0)
        self.history = History(lambda: self.totals, lambda: self.time, self.clock.seconds)
        self.rooms = Rooms(
            traffic=self.traffic,
            ledger=self.ledger,
            rate_limits=RateLimits(self.clock),
            backoff=BackOff(self.clock, lambda: self.time),
            store=self.store,
            housekeeping=Housekeeping(
                self.store,
                self.directory,
                self.workers,
                self.clock,
                lambda: self.time,
                CacheSection(),
            ),
            loop_delay=LoopDelay(self.clock, self.clock.seconds),
            connections=lambda: 3,
            ca=lambda: CAValue("CN=regproxy", "AB:CD", datetime(2036, 3, 9, tzinfo=UTC)),
        )
        self.parts = Parts.over(
            self.rooms,
            self.events,
            self.history,
            self.config,
            self.directory,
            self.workers,
            self.clock,
            lambda: self.time,
        )
        self.prefetch = FakePrefetch()
        self.parts.images.follow(self.config, cast(Prefetch, self.prefetch))


class ApiCase(PartsCase):
    """The API over the parts.

    Attributes:
        logins: what the files of logins hold, by name.
    """

    def setUp(self) -> None:
        super().setUp()
        self.logins: dict[Path, bytes] = {
            Path("token"): f"{TOKEN}\n".encode(),
            Path("htpasswd"): f"{USER}:{hashed()}\n".encode(),
        }
        self.guard_with(self.section)

    def guard_with(self, section: ManagementSection) -> None:
        """Have *section* say who may do what."""

        def read(path: Path) -> bytes:
            try:
                return self.logins[path]
            except KeyError:
                raise FileNotFoundError(2, "No such file or directory") from None

        guard = Guard(section, self.workers, self.clock, self.parts.bad_logins, read)
        root = Resource()
        root.putChild(b"api", ApiResource(self.parts.operations(), guard))
        self.house.site.resource = root

    def send(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str] | None = None,
        body: bytes = b"",
        client: IAddress = LOOPBACK,
    ) -> MemoryStream:
        """Send one request, for ``/api/v1`` and *path*."""
        stream = self.house.connect()
        stream.peerAddr = client
        given = {"Host": HOST, **(fields or {})}
        if body:
            given.setdefault("Content-Length", str(len(body)))
        lines = [f"{method} /api/v1{path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items())]
        stream.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return stream

    def ask(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str] | None = None,
        body: bytes = b"",
        client: IAddress = LOOPBACK,
    ) -> Response:
        """What is answered to one request."""
        stream = self.send(method, path, fields, body, client)
        (answer,) = responses(stream.take(), method)
        stream.finish()
        return answer

    def ask_json(self, method: str, path: str, value: object, **fields: str) -> Response:
        """The same with a body of JSON."""
        given = {"Content-Type": "application/json", **fields}
        return self.ask(method, path, given, json.dumps(value).encode())

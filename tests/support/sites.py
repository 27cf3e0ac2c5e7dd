"""Strict sites in memory: what a client writes in, what it reads and what was logged out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from regproxy.web.access_log import AccessLog, AccessRecord
from regproxy.web.channel import StrictChannel
from regproxy.web.request_body import BodyBroken
from regproxy.web.site import Entry, Limits, StrictRequest, StrictSite
from tests.support.streams import MemoryStream

ENTRY = Entry("proxy")
LIMITS = Limits(head=30.0, idle=300.0, stall=60.0)


class KeptLog(AccessLog):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.records: list[AccessRecord] = []

    def record(self, record: AccessRecord) -> None:
        self.records.append(record)


class Answers(Resource):
    """Gives each request to a function, which answers it now or later."""

    isLeaf = True

    def __init__(self, answer: Callable[[StrictRequest], object]) -> None:
        super().__init__()
        self._answer = answer

    def render(self, request: StrictRequest) -> int:
        self._answer(request)
        return NOT_DONE_YET


def echo(request: StrictRequest) -> None:
    """Answer with what was understood of *request*, once its body is whole."""
    consumer = StringTransport()
    reading = succeed(None) if request.body is None else request.body.startProducing(consumer)

    def answer(_: None) -> None:
        body = json.dumps(
            {
                "method": request.method.decode(),
                "target": request.form.origin_form.decode(),
                "authority": str(request.authority),
                "body": consumer.value().decode("latin-1"),
            }
        ).encode()
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()

    reading.addCallbacks(answer, lambda failure: failure.trap(BodyBroken))


@frozen
class Response:
    """One response as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


def responses(data: bytes, *methods: str) -> list[Response]:
    """The responses in *data*, each with a Content-Length, to requests of *methods* (GET)."""
    found = []
    waiting = list(methods)
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        method = waiting.pop(0) if waiting else "GET"
        code = int(status.split()[1])
        # What has no body has no length of one (RFC 9110 section 8.6).
        length = 0 if method == "HEAD" or code == 204 else int(headers["content-length"])
        found.append(Response(code, headers, data[:length]))
        data = data[length:]
    return found


@define
class House:
    """A site with its clock and log."""

    resource: IResource = field(factory=lambda: Answers(echo))
    limits: Limits = LIMITS
    entry: Entry = ENTRY
    clock: Clock = field(factory=Clock)
    log: KeptLog = field(factory=KeptLog)
    site: StrictSite = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.site = StrictSite(self.resource, self.entry, self.limits, self.clock, self.log)

    @classmethod
    def answering(cls, answer: Callable[[StrictRequest], object]) -> House:
        """A site whose requests *answer* is given."""
        return cls(Answers(answer))

    def connect(self) -> MemoryStream:
        """A client connects."""
        protocol: IProtocol = self.site.buildProtocol(None)
        assert isinstance(protocol, StrictChannel)
        return MemoryStream(protocol)

    def ask(self, data: bytes) -> bytes:
        """What is answered to *data* on a connection of its own, which then ends."""
        stream = self.connect()
        stream.send(data)
        taken = stream.take()
        stream.finish()
        return taken

    @property
    def statuses(self) -> list[int]:
        """The statuses in the log."""
        return [record.status for record in self.log.records]

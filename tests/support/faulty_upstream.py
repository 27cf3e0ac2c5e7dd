"""A registry that misbehaves as it is told, for a process of its own.

``python -m tests.support.faulty_upstream DIRECTORY HTTP CONTROL [HTTPS CERTIFICATE_AND_KEY]``
serves the files of DIRECTORY on ports of 127.0.0.1. What it answers is scripted over HTTP on
the port CONTROL: ``PUT /scripts`` with a JSON object of scripts by :func:`key`, ``GET /log``
for every request so far. See :mod:`tests.support.faults` for the other side of that.

It speaks HTTP by itself: a library's server would not send what is wrong.
"""

from __future__ import annotations

import json
import mmap
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from attrs import asdict
from cattrs import structure
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IPushProducer,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from tests.support.turns import RANGE, End, Entry, Framing, Script, Turn, key

#: Bytes that are written at a time.
PIECE: Final = 64 * 1024
# Seconds between the writes of a throttled body.
_TICK: Final = 0.01
_REASONS: Final = {200: "OK", 206: "Partial Content", 302: "Found", 416: "Range Not Satisfiable"}


class Stage:
    """The scripts, the content and the log."""

    def __init__(self, directory: Path, clock: Any) -> None:
        self.clock = clock
        self.log: list[Entry] = []
        self._directory = directory
        self._scripts: dict[str, Script] = {}
        self._asked: dict[str, int] = {}

    def put(self, scripts: dict[str, Script]) -> None:
        """Begin with these *scripts* for their targets."""
        self._scripts |= scripts
        self._asked |= dict.fromkeys(scripts, 0)

    def turn(self, method: str, target: str, authorization: str | None) -> Turn:
        """How this request is answered."""
        name = key(method, target)
        follows = method == "HEAD" and name not in self._scripts
        script = self._scripts.get(key("GET", target) if follows else name)
        if script is None:
            return Turn(status=404)
        if script.accepted is not None and authorization not in script.accepted:
            return Turn(status=script.refusal, headers={"WWW-Authenticate": 'Basic realm="tests"'})
        if follows:
            return script.turns[-1]
        number = self._asked[name]
        self._asked[name] += 1
        return script.turns[min(number, len(script.turns) - 1)]

    def read(self, name: str) -> bytes | mmap.mmap:
        """The content called *name*."""
        if not name:
            return b""
        with (self._directory / name).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@implementer(IPushProducer)
class FaultyServer(Protocol):
    """One connection: requests without a body, each answered as the stage says."""

    # TCP or TLS: no interface of Twisted's has all that both can do.
    transport: Any

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._received = b""
        self._answering: Deferred[None] | None = None
        self._blocked: Deferred[None] | None = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        self._next()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._answering is not None:
            self._answering.cancel()

    def pauseProducing(self) -> None:
        """The client is behind."""
        if self._blocked is None:
            self._blocked = Deferred()

    def resumeProducing(self) -> None:
        """It has caught up."""
        blocked, self._blocked = self._blocked, None
        if blocked is not None:
            blocked.callback(None)

    def stopProducing(self) -> None:
        """It is gone: see connectionLost."""

    def _next(self) -> None:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end or self._answering is not None:
            return
        self._received = rest
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in _split(fields)}
        entry = Entry(method, target, headers.get("range"))
        self._stage.log.append(entry)
        turn = self._stage.turn(method, target, headers.get("authorization"))
        self._answering = ensureDeferred(self._answer(entry, turn))
        self._answering.addBoth(self._answered, entry)

    def _answered(self, result: Any, entry: Entry) -> None:
        self._answering = None
        entry.ended = time.monotonic()
        if not isinstance(result, Failure):
            self._next()
        elif not result.check(CancelledError):
            # A mistake of this program: it shows in its log, and the client is not left waiting.
            result.printTraceback()
            self.transport.abortConnection()

    async def _answer(self, entry: Entry, turn: Turn) -> None:
        content = self._stage.read(turn.content)
        start, end = 0, len(content)
        status = turn.status
        headers = dict(turn.headers)
        match = RANGE.fullmatch(entry.range or "")
        if match and turn.ranges and status == 200:
            start = int(match[1])
            end = min(int(match[2] or end - 1) + 1, end)
            status = 206 if start < end else 416
            if status == 416:
                start = end = 0
                headers["Content-Range"] = f"bytes */{len(content)}"
            else:
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        entry.status = status
        if turn.stop == -1:
            await self._break_off(turn.end)
            return
        await self._send_interim(turn)
        if entry.method == "HEAD" or turn.framing is Framing.LENGTH:
            length = end - start + turn.surplus if turn.announced is None else turn.announced
            headers["Content-Length"] = str(length)
        elif turn.framing is Framing.CHUNKED:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Connection"] = "close"
        await self._send_head(status, headers, turn.padding)
        if entry.method != "HEAD":
            await self._send_body(entry, turn, content, start, end)

    async def _send_interim(self, turn: Turn) -> None:
        sent = 0
        while sent != turn.interim:
            self.transport.write(b"HTTP/1.1 103 Early Hints\r\nLink: </>; rel=preload\r\n\r\n")
            sent += 1
            await self._writable()

    async def _send_head(self, status: int, headers: dict[str, str], padding: int) -> None:
        reason = _REASONS.get(status, "Unknown")
        self.transport.write(f"HTTP/1.1 {status} {reason}\r\n".encode())
        line = b"X-Padding: " + bytes(1000).replace(b"\0", b"x") + b"\r\n"
        for _ in range(0, padding, len(line)):
            self.transport.write(line)
            await self._writable()
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"{fields}\r\n".encode("latin-1"))

    async def _send_body(
        self, entry: Entry, turn: Turn, content: bytes | mmap.mmap, start: int, end: int
    ) -> None:
        stops = turn.stop is not None and start <= turn.stop < end
        stop = turn.stop if stops and turn.stop is not None else end
        chunked = turn.framing is Framing.CHUNKED
        begun = self._stage.clock.seconds()
        position = start
        while position < stop:
            size = min(PIECE, stop - position)
            if turn.rate is not None:
                passed = self._stage.clock.seconds() - begun
                size = min(size, 1 + int(passed * turn.rate) - (position - start))
                if size < min(PIECE, stop - position, turn.rate * _TICK):
                    await self._sleep(max(_TICK, 1 / turn.rate))
                    continue
            piece = content[position : position + size]
            if turn.flip is not None and position <= turn.flip < position + size:
                piece = _flipped(piece, turn.flip - position)
            self.transport.write(_chunk(piece) if chunked else piece)
            position += size
            entry.bytes += size
            entry.first = entry.first or time.monotonic()
            await self._writable()
        if stops:
            await self._break_off(turn.end)
            return
        if turn.surplus:
            piece = b"\0" * turn.surplus
            self.transport.write(_chunk(piece) if chunked else piece)
            entry.bytes += turn.surplus
        if chunked:
            self.transport.write(b"0\r\n\r\n")
        if turn.framing is Framing.CLOSE or turn.announced is not None:
            self._close()

    async def _break_off(self, end: End) -> None:
        if end is End.STALL:
            await Deferred()
        # A reset discards what was not sent yet.
        await self._sleep(0.1)
        if end is End.RESET:
            self.transport.abortConnection()
        else:
            self._close()

    def _close(self) -> None:
        # A transport with a producer may wait for it.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _writable(self) -> Deferred[None]:
        return succeed(None) if self._blocked is None else self._blocked

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._stage.clock, seconds, lambda: None)


class Control(Resource):
    """``PUT /scripts`` and ``GET /log``."""

    isLeaf = True

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def render_PUT(self, request: Request) -> bytes:
        """Take the scripts."""
        assert request.content is not None
        self._stage.put(structure(json.load(request.content), dict[str, Script]))
        return b"{}"

    def render_GET(self, request: Request) -> bytes:
        """Show the log."""
        return json.dumps([asdict(entry) for entry in self._stage.log]).encode()


@implementer(IProtocolNegotiationFactory)
class FaultyFactory(Factory):
    """Makes the connections."""

    noisy = False

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def buildProtocol(self, addr: object) -> FaultyServer:
        """One more."""
        return FaultyServer(self._stage)

    def acceptableProtocols(self) -> list[bytes]:
        """What is spoken over TLS (RFC 7301)."""
        return [b"http/1.1"]


def _split(fields: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    return (field.partition(":") for field in fields)


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _flipped(piece: bytes, position: int) -> bytes:
    changed = bytearray(piece)
    changed[position] ^= 1
    return bytes(changed)


def main(directory: str, http: str, control: str, https: str = "", pem: str = "") -> None:
    """Serve until terminated."""
    from twisted.internet import reactor

    clock: Any = reactor
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    stage = Stage(Path(directory), clock)
    factory = FaultyFactory(stage)
    listeners: dict[str, IProtocolFactory] = {
        f"tcp:{http}:interface=127.0.0.1": factory,
        f"tcp:{control}:interface=127.0.0.1": Site(Control(stage)),
    }
    if https:
        listeners[f"ssl:{https}:interface=127.0.0.1:privateKey={pem}:certKey={pem}"] = factory
    for description, each in listeners.items():
        serverFromString(reactor, description).listen(each).addErrback(
            lambda failure: (failure.printTraceback(), clock.stop())
        )
    clock.run()


if __name__ == "__main__":
    main(*sys.argv[1:])

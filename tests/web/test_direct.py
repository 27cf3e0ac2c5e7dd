"""Every way of a body, direct and through buffers, over TLS and without, on real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from regproxy.interfaces import IBlob
from regproxy.listeners.proxied import ProxiedFactory
from regproxy.tls.authority import Leaf
from regproxy.tls.contexts import server_context
from regproxy.web import site
from regproxy.web.channel import CLIENT_LEFT
from regproxy.web.direct import COLD, PIECE, TURN, DirectFile, DirectTLS
from regproxy.web.sender import Buffered, Outlet, send
from regproxy.web.site import StrictRequest, StrictSite
from tests.support.blobs import MemoryBlob
from tests.support.certificates import make_leaf
from tests.support.sites import ENTRY, LIMITS, Answers, KeptLog

T = TypeVar("T")

reactor: Any = _reactor
CONTENT = os.urandom(5 * TURN + 4321)
GET = b"GET / HTTP/1.1\r\nHost: r.test\r\n\r\n"


class FileBlob(MemoryBlob):
    """A blob that is in a file, too.

    Attributes:
        cold: the page cache has not got it.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(content, size=len(content))
        path.write_bytes(content)
        self.cold = False
        self._file = path.open("rb")

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return 0 if self.cold else super().read_into(buffer, offset)

    def file(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()
        super().close()


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    """The server's side of TLS, with any certificate."""

    def __init__(self) -> None:
        leaf = make_leaf(None, ["r.test"])
        assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
        self._context = server_context(Leaf(leaf.certificate, leaf.key, ()))

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._context)


class Client:
    """A client that takes what it is told to. Its methods block."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self._rest = b""

    def ask(self, count: int = 1) -> None:
        """Send *count* requests at once."""
        self.stream.sendall(GET * count)

    def head(self) -> bytes:
        """The next head."""
        while b"\r\n\r\n" not in self._rest:
            more = self._received()
            assert more, "the connection ended before a head"
            self._rest += more
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    def take(self, count: int) -> bytes:
        """The next *count* bytes of a body, or fewer when the connection ends."""
        data = bytearray(self._rest)
        while len(data) < count and (more := self._received()):
            data += more
        self._rest = bytes(data[count:])
        return bytes(data[:count])

    def answer(self) -> bytes:
        """The next answer's body."""
        length = self.head().lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
        return self.take(int(length))

    def _received(self) -> bytes:
        try:
            return self.stream.recv(1 << 16)
        except (ConnectionError, ssl.SSLError):
            return b""


class BufferedTests(TestCase):
    """Through the buffers, without TLS. The same holds for the other ways."""

    secure = False
    before = b""
    kind: type[object] = Buffered
    timeout = 60

    def setUp(self) -> None:
        if self.kind is Buffered:
            self.patch(site, "DIRECT_FROM", 1 << 60)
        self.clock = Clock()
        self.log = KeptLog()
        self.blob = FileBlob(Path(self.mktemp()), CONTENT)
        self.addCleanup(self.blob.close)
        self.taken: list[int] = []
        self.requests: list[StrictRequest] = []
        self.sent: list[Deferred[None]] = []
        self.lost: Deferred[None] = Deferred()
        strict = StrictSite(Answers(self.begin), ENTRY, LIMITS, self.clock, self.log)
        factory: Any = strict
        if self.secure:
            factory = TLSMemoryBIOFactory(Creator(), False, strict, reactor)
        if self.before:
            factory = ProxiedFactory(reactor, factory)
        build = factory.buildProtocol

        def noting(address: Any) -> Any:
            protocol = build(address)
            connection_lost = protocol.connectionLost

            def lost(reason: Failure) -> None:
                connection_lost(reason)
                self.lost.callback(None)

            protocol.connectionLost = lost
            return protocol

        factory.buildProtocol = noting
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(self.forgive)
        self.port = port.getHost().port

    def forgive(self) -> None:
        """A client that has got everything may be gone before that is known."""
        for sending in self.sent:
            sending.addErrback(
                lambda failure: failure.trap(ConnectionAborted, CancelledError, KeyError)
            )

    async def connect(self) -> Client:
        def dial() -> Client:
            stream = socket.create_connection(("127.0.0.1", self.port), 20)
            stream.sendall(self.before)
            if self.secure:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                return Client(context.wrap_socket(stream))
            return Client(stream)

        client: Client = await deferToThread(dial)
        self.addCleanup(lambda: self.lost)
        self.addCleanup(client.stream.close)
        return client

    def begin(self, request: StrictRequest) -> None:
        self.requests.append(request)
        answering = ensureDeferred(self.answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        self.sent.append(answering)

    async def answer(self, request: StrictRequest) -> None:
        request.setHeader(b"Content-Length", b"%d" % len(CONTENT))
        await send(partial(self.outlet, request), self.blob, 0, len(CONTENT))
        request.finish()

    def outlet(self, request: StrictRequest) -> Outlet:
        outlet = request.outlet(len(CONTENT))
        self.assertIs(type(outlet), self.kind)
        take = outlet.take

        async def noting(blob: IBlob, offset: int, limit: int) -> int:
            taken = await take(blob, offset, limit)
            self.taken.append(taken)
            return taken

        outlet.take = noting  # type: ignore[method-assign]
        return outlet

    async def until(self, holds: Callable[[], object]) -> None:
        """Let the reactor run until something *holds*; the test's own deadline bounds it."""
        while not holds():
            await deferLater(reactor, 0.01)

    async def test_kept_alive(self) -> None:
        self.blob.verify()
        client = await self.connect()
        for _ in range(3):
            client.ask()
            self.assertEqual(await deferToThread(client.answer), CONTENT)
        self.assertLessEqual(max(self.taken), TURN)
        await self.until(lambda: len(self.log.records) == 3)
        self.assertEqual({record.bytes for record in self.log.records}, {len(CONTENT)})

    async def test_pipelined(self) -> None:
        self.blob.verify()
        client = await self.connect()
        client.ask(3)
        for _ in range(3):
            self.assertEqual(await deferToThread(client.answer), CONTENT)

    async def test_not_in_the_page_cache(self) -> None:
        self.blob.verify()
        self.blob.cold = True
        client = await self.connect()
        client.ask()
        self.assertEqual(await deferToThread(client.answer), CONTENT)
        self.assertLessEqual(max(self.taken), COLD)

    async def test_now_and_then_not_in_the_page_cache(self) -> None:
        """Both halves of a way keep the order."""
        self.blob.verify()
        client = await self.connect()
        client.ask()
        receiving = deferToThread(client.answer)
        while not receiving.called:
            self.blob.cold = not self.blob.cold
            await deferLater(reactor, 0)
        self.assertEqual(await receiving, CONTENT)

    async def test_arriving(self) -> None:
        client = await self.connect()
        client.ask()
        await self.until(lambda: self.blob.wanted)
        self.blob.arrive(1)
        await deferToThread(client.head)
        self.assertEqual(await deferToThread(client.take, 1), CONTENT[:1])
        at = 1
        while at < len(CONTENT):
            step = min(3 * PIECE + 7, len(CONTENT) - at)
            self.blob.arrive(step)
            # The last byte is held back.
            step -= at + step == len(CONTENT)
            self.assertEqual(await deferToThread(client.take, step), CONTENT[at : at + step])
            at += step
            if at == len(CONTENT) - 1:
                break
        self.blob.verify()
        self.assertEqual(await deferToThread(client.take, 1), CONTENT[-1:])
        await self.sent[0]

    async def test_slow_client(self) -> None:
        """It gets all in the end, and what waits for it in memory is little."""
        self.blob.verify()
        client = await self.connect()
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.ask()
        await deferToThread(client.head)
        tcp = self.requests[0].channel.transport
        tcp = tcp.transport if self.secure else tcp
        tcp.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        body = b""
        while len(body) < len(CONTENT):
            body += await deferToThread(client.take, min(1 << 18, len(CONTENT) - len(body)))
            waiting = len(tcp.dataBuffer) - tcp.offset + tcp._tempDataLen
            self.assertLess(waiting, 5 * PIECE)
        self.assertEqual(body, CONTENT)

    async def test_client_leaves(self) -> None:
        self.blob.verify()
        client = await self.connect()
        client.ask()
        await deferToThread(client.head)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.stream.close()
        await self.lost
        await self.check_cut(CLIENT_LEFT)

    async def test_client_takes_nothing(self) -> None:
        self.blob.verify()
        client = await self.connect()
        client.ask()
        await self.until(lambda: len(self.clock.getDelayedCalls()) > 0 and self.taken)
        taken = -1
        # The kernel's buffers are full when nothing more is taken.
        while taken != len(self.taken):
            taken = len(self.taken)
            await deferLater(reactor, 0.2)
        self.assertLess(sum(self.taken), len(CONTENT))
        self.clock.advance(LIMITS.stall)
        await self.lost
        await self.check_cut(200)
        self.assertEqual(self.log.records[0].reason, "client took nothing for too long")

    async def test_content_fails(self) -> None:
        client = await self.connect()
        client.ask()
        await self.until(lambda: self.blob.wanted)
        self.blob.arrive(2 * TURN)
        await deferToThread(client.head)
        await deferToThread(client.take, TURN)
        self.blob.fail(KeyError())
        try:
            await self.sent[0]
        except KeyError:
            self.requests[0].cut("it failed")
        self.assertLess(len(await deferToThread(client.take, len(CONTENT))), TURN + 1)

    async def check_cut(self, status: int) -> None:
        with self.assertRaises((ConnectionAborted, CancelledError)):
            await self.sent[0]
        self.assertEqual([record.status for record in self.log.records], [status])


class DirectFileTests(BufferedTests):
    kind = DirectFile


class DirectTLSTests(BufferedTests):
    kind = DirectTLS
    secure = True

    async def test_client_ends_tls(self) -> None:
        """In the middle of a body."""
        self.blob.verify()
        client = await self.connect()
        client.ask()
        await deferToThread(client.head)
        assert isinstance(client.stream, ssl.SSLSocket)
        # Not by its name: trial takes a module's "suppress" for its own.
        with contextlib.suppress(OSError):
            await deferToThread(client.stream.unwrap)
        client.stream.close()
        await self.lost
        await self.check_cut(CLIENT_LEFT)


class DirectBehindABalancerTests(DirectTLSTests):
    before = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n"


class BufferedTLSTests(BufferedTests):
    secure = True

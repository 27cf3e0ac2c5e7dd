"""TLS in memory: Python's own ``ssl`` as the client of a Twisted server."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

Tune = Callable[[ssl.SSLContext], object]


def only(version: ssl.TLSVersion) -> Tune:
    """Makes a client speak this version and no other."""

    def tune(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version

    return tune


class Recorder(Protocol):
    """Keeps what it receives and why it ended."""

    def __init__(self) -> None:
        self.received = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.reason = reason


class MemoryHandshake:
    """A handshake between a creator of server connections and a strict client.

    Attributes:
        client: the client's side, once done: ``cipher()``, ``getpeercert()``...
        server: the protocol above TLS on the server.
        error: what broke the client's handshake, or None.
    """

    def __init__(
        self,
        creator: IOpenSSLServerConnectionCreator,
        ca_pem: bytes,
        name: str | None,
        *,
        alpn: list[str] | None = None,
        tune: Tune | None = None,
        session: ssl.SSLSession | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        context = context or ssl.create_default_context(cadata=ca_pem.decode())
        if name is None:
            context.check_hostname = False
        if alpn is not None:
            context.set_alpn_protocols(alpn)
        if tune is not None:
            tune(context)
        self.context = context
        self._to_client, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(
            self._to_client, self._to_server, server_hostname=name, session=session
        )
        self.server = Recorder()
        self.error: ssl.SSLError | None = None
        self._clock = Clock()
        self._transport = StringTransportWithDisconnection()
        tls = TLSMemoryBIOFactory(
            creator, False, Factory.forProtocol(lambda: self.server), self._clock
        ).buildProtocol(self._transport.getPeer())
        assert tls is not None
        self.tls = tls
        self._transport.protocol = tls
        tls.makeConnection(self._transport)
        self._run()

    def exchange(self, data: bytes = b"GET / HTTP/1.1\r\n") -> None:
        """Send *data* to the server, and take in what it sent, tickets too."""
        self.client.write(data)
        self._pump()
        self.tls.write(b"x")
        self._clock.advance(1)
        self._pump()
        self.client.read(1)

    def _run(self) -> None:
        for _ in range(10):
            try:
                self.client.do_handshake()
            except ssl.SSLWantReadError:
                self._pump()
            except ssl.SSLError as error:
                self.error = error
                # The server hears why.
                self._pump()
                return
            else:
                self._pump()
                return
        raise AssertionError("the handshake does not end")

    def _pump(self) -> None:
        data = self._to_server.read()
        if data and self._transport.connected:
            self.tls.dataReceived(data)
        self._to_client.write(self._transport.value())
        self._transport.clear()

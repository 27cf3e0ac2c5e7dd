"""Bodies past the buffers of the transports: from the page cache to the socket.

On twisted's way a byte of a file is copied six times before the kernel takes it, and
each 16 KiB of TLS pass through a dozen calls. Here a piece is read into a buffer that
all connections share, encrypted, and sent from another one. What the socket does not
take goes into the transport's own buffer. Without TLS the kernel does all of it.

Order is kept by one rule: bytes go past the TCP transport only from within its call of
``resumeProducing``. It calls that of a pull producer when its own buffer is empty
(twisted.internet.interfaces.IPullProducer), so nothing can be overtaken.

A body that cannot go this way, because there is another layer in between or twisted or
pyOpenSSL have changed inside, goes through :class:`regproxy.web.sender.Buffered`. Private
are, of BufferingTLSTransport, the aggregator of small writes, which has to be flushed, and
the buffer of what waits for a handshake, which has to be empty; of pyOpenSSL's
Connection, the BIO that ciphertext is read from. :mod:`regproxy.tls.contexts` sees to it that
OpenSSL encrypts a piece in one call; record by record it would come to the same.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from socket import socket
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.protocols.tls import BufferingTLSTransport

from regproxy.interfaces import IBlob
from regproxy.web.sender import Gate, Outlet

if TYPE_CHECKING:
    from regproxy.web.site import StrictRequest

# What is encrypted and sent at a time, and all that waits in memory for a slow client.
# malloc maps and unmaps memory for buffers of twice this size.
PIECE: Final = 64 * 1024
# What one connection sends before the others have their turn: about a millisecond.
TURN: Final = 1 << 20
# What a worker reads when the page cache has not got it.
COLD: Final = 256 * 1024

_plaintext: Final = memoryview(bytearray(PIECE))
_probe: Final = memoryview(bytearray(1))
_ffi: Any = getattr(SSL, "_ffi", None)
_lib: Any = getattr(SSL, "_lib", None)
# A record has 16 KiB and at most 277 bytes more; the TLS layer may have left some.
_ciphertext: Final = memoryview(bytearray(2 * PIECE))
_room: Final = _ffi and _ffi.from_buffer(_ciphertext)


def direct(request: StrictRequest) -> Outlet | None:
    """The direct way for the body of *request*, whose head is written; None: there is none."""
    transport: Any = request.channel.transport
    if _is_tcp(transport):
        return DirectFile(request, transport)
    if type(transport) is BufferingTLSTransport and _is_tcp(transport.transport):
        connection = transport.getHandle()
        flush: Any = getattr(getattr(transport, "_aggregator", None), "flush", None)
        bio = getattr(connection, "_from_ssl", None)
        waiting = getattr(transport, "_appSendBuffer", None)
        if None not in (_lib, flush, bio) and waiting == []:
            flush()
            return DirectTLS(request, transport.transport, connection, bio)
    return None


def _is_tcp(transport: Any) -> bool:
    """Whether *transport* is a connection's own, or stands for it."""
    return isinstance(getattr(transport, "getHandle", lambda: None)(), socket)


class _Direct(ABC):
    """One body's way; the pull producer of the TCP transport, in place of the channel.

    It is closed by whoever has it.
    """

    def __init__(self, request: StrictRequest, tcp: Any) -> None:
        self._request = request
        self._tcp = tcp
        self._socket = tcp.getHandle()
        self._gate = Gate()
        self._watch = request.stall_watch(self._gate)
        # The request forgets it when the client is gone.
        self._channel = request.channel
        self._channel.divert()
        tcp.registerProducer(self._watch, False)

    def opened(self) -> Deferred[None]:
        """See :class:`~regproxy.web.sender.Outlet`."""
        # Only what the transport says from now on is true.
        self._watch.pauseProducing()
        if self._tcp.disconnecting:
            self._watch.stopProducing()
        self._tcp.startWriting()
        return self._gate.opened()

    async def take(self, blob: IBlob, offset: int, limit: int) -> int:
        """See :class:`~regproxy.web.sender.Outlet`."""
        sent = self._pass(blob, offset, min(limit, TURN))
        if not sent:
            data = await blob.read(offset, min(limit, COLD))
            self._write(memoryview(data))
            sent = len(data)
        self._request.sentLength += sent
        return sent

    def close(self) -> None:
        """See :class:`~regproxy.web.sender.Outlet`."""
        self._watch.stop()
        self._tcp.unregisterProducer()
        self._channel.rejoin()

    @abstractmethod
    def _pass(self, blob: IBlob, offset: int, limit: int) -> int:
        """Send what can be had without waiting, as far as the socket takes it; how many bytes."""

    @abstractmethod
    def _write(self, data: memoryview) -> None:
        """Send *data* through the transport's buffer."""


class DirectTLS(_Direct):
    """A body that is encrypted on its way.

    Args:
        connection: encrypts; nothing waits in it.
        bio: where it leaves what is to be sent, in pyOpenSSL's terms.
    """

    def __init__(
        self, request: StrictRequest, tcp: Any, connection: SSL.Connection, bio: Any
    ) -> None:
        super().__init__(request, tcp)
        self._connection = connection
        self._bio = bio

    def _pass(self, blob: IBlob, offset: int, limit: int) -> int:
        sent = 0
        while sent < limit:
            got = blob.read_into(_plaintext[: limit - sent], offset + sent)
            if not got:
                break
            sent += got
            rest = self._encrypted(_plaintext[:got])
            with suppress(OSError):
                # What is wrong with the socket, the transport will find as well.
                rest = rest[self._socket.send(rest) :]
            if rest:
                self._tcp.write(bytes(rest))
                break
        return sent

    def _write(self, data: memoryview) -> None:
        for start in range(0, len(data), PIECE):
            self._tcp.write(bytes(self._encrypted(data[start : start + PIECE])))

    def _encrypted(self, data: memoryview) -> memoryview:
        """The records of at most PIECE bytes, in a buffer that the next call uses again.

        Raises:
            ConnectionAborted: the client has ended TLS.
        """
        while data:
            try:
                data = data[self._connection.send(data) :]
            except SSL.Error as error:
                raise ConnectionAborted from error
        # Nothing is -1.
        return _ciphertext[: max(0, _lib.BIO_read(self._bio, _room, len(_ciphertext)))]


class DirectFile(_Direct):
    """A body that the kernel sends from the file: sendfile(2)."""

    def _pass(self, blob: IBlob, offset: int, limit: int) -> int:
        number = blob.file()
        # The kernel reads ahead: what has both ends in the page cache has the middle, too.
        if number is None or not all(
            blob.read_into(_probe, at) for at in (offset, offset + limit - 1)
        ):
            return 0
        try:
            return os.sendfile(self._socket.fileno(), number, offset, limit)
        except OSError:
            # The other way will find out whether the disk or the socket is in trouble.
            return 0

    def _write(self, data: memoryview) -> None:
        self._tcp.write(bytes(data))

"""A client of the proxy that sees exactly what comes, and when: CONNECT, TLS, one request.

Blocking, for one thread each; two hundred of them cost little. Every wait is bounded.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from collections.abc import Mapping
from email.message import Message
from http.client import parse_headers
from io import BufferedReader
from pathlib import Path
from typing import Final

from attrs import frozen

#: Seconds for which a client waits for the next byte.
PATIENCE: Final = 30.0
# What is read at a time, and how much of a body is kept to look at.
_PIECE: Final = 256 * 1024
_KEPT: Final = 64 * 1024


@frozen
class Outcome:
    """What came of one request.

    Attributes:
        size: bytes of the body that came.
        digest: of these, ``sha256:HEX``.
        complete: whether the body came to the end that its framing promised.
        start: the first bytes of the body.
        first: when the first byte of the body came, on the monotonic clock.
        ended: when it was over.
    """

    status: int
    headers: Message
    size: int
    digest: str
    complete: bool
    start: bytes
    first: float | None
    ended: float


class Response:
    """An answer whose head has come. Its body comes as fast as it is taken."""

    def __init__(
        self, connection: socket.socket, stream: BufferedReader[socket.SocketIO], method: str
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._hash = hashlib.sha256()
        self._kept = bytearray()
        self._size = 0
        self._first: float | None = None
        self._broken = False
        line = stream.readline(65536)
        if not line:
            raise ConnectionError("the connection ended before an answer")
        self.status = int(line.split(b" ")[1])
        self.headers = parse_headers(stream)
        length = self.headers["Content-Length"]
        self._chunked = self.headers["Transfer-Encoding"] == "chunked"
        # Of the body, or of the chunk; None is all that comes.
        self._left = None if length is None else int(length)
        if method == "HEAD" or self.status in (204, 304):
            self._left = 0
        self._last = not self._chunked
        if self._chunked:
            self._left = 0

    def take(self, count: int) -> bytes:
        """The next *count* bytes of the body, or fewer if it ends before."""
        taken = bytearray()
        while len(taken) < count and (piece := self._read(count - len(taken))):
            taken += piece
        return bytes(taken)

    def finish(self) -> Outcome:
        """Take the rest, and close."""
        while self._read(_PIECE):
            pass
        outcome = Outcome(
            self.status,
            self.headers,
            self._size,
            f"sha256:{self._hash.hexdigest()}",
            not self._broken and self._last and self._left in (0, None),
            bytes(self._kept),
            self._first,
            time.monotonic(),
        )
        self.close()
        return outcome

    def close(self) -> None:
        """Leave, whatever is still to come."""
        self._stream.close()
        self._connection.close()

    def _read(self, most: int) -> bytes:
        try:
            if self._chunked and not self._left:
                self._next_chunk()
            piece = b""
            if self._left != 0:
                most = most if self._left is None else min(most, self._left)
                # One read of the socket: what is there is taken.
                piece = self._stream.read1(most)
        except (ConnectionError, ssl.SSLError):
            piece, self._broken = b"", True
        if piece:
            self._first = self._first or time.monotonic()
            self._hash.update(piece)
            self._kept += piece[: _KEPT - len(self._kept)]
            self._size += len(piece)
            if self._left is not None:
                self._left -= len(piece)
        return piece

    def _next_chunk(self) -> None:
        if self._last:
            return
        if self._size:
            self._stream.readline()
        line = self._stream.readline()
        if not line:
            self._broken = True
            return
        self._left = int(line, 16)
        self._last = self._left == 0
        if self._last:
            self._stream.readline()


class RawClient:
    """Makes requests through the proxy on *port* of 127.0.0.1, trusting the CA in *ca_file*."""

    def __init__(self, port: int, ca_file: Path) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=str(ca_file))

    def get(
        self,
        host: str,
        path: str,
        headers: Mapping[str, str] = {},
        *,
        method: str = "GET",
        small_window: bool = False,
    ) -> Response:
        """Ask, and wait for the head of the answer.

        Args:
            small_window: have the kernel take little that this client does not read.

        Raises:
            OSError: there is no answer.
        """
        connection = socket.socket()
        connection.settimeout(PATIENCE)
        if small_window:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            connection.connect(("127.0.0.1", self._port))
            connection.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                byte = connection.recv(1)
                if not byte:
                    raise ConnectionError("the connection ended in the answer to CONNECT")
                answer += byte
            if b" 200 " not in answer:
                raise ConnectionError(f"CONNECT was answered with {answer!r}")
            connection = self._context.wrap_socket(connection, server_hostname=host)
            fields = {"Host": host} | dict(headers)
            lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            connection.sendall(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
            stream = BufferedReader(connection.makefile("rb", buffering=0), _PIECE)
            return Response(connection, stream, method)
        except BaseException:
            connection.close()
            raise

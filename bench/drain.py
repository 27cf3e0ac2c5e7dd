"""A client that takes a body as fast as it comes, for about half of what curl costs.

A client that decrypts takes as much of the CPU as the server that encrypts, so that the
slower of the two is measured. This one reads the heads of TLS records (RFC 8446 section
5.2), from which the length of what is in them follows, and leaves the rest encrypted. The
handshake and the head of the response are read as by any client. Whether the content is
right is checked before, by a client that decrypts: see :func:`bench.setting.check`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from attrs import frozen

from bench.way import Refused, Way

_BUFFER: Final = 1 << 20
_RECORD_HEAD: Final = 5
# The byte that tells the type of content, and the tag of AES-GCM.
_RECORD_OVERHEAD: Final = 1 + 16


@frozen
class Drained:
    """How a body came. Times are of the monotonic clock.

    Attributes:
        begun: when the client began to connect.
        first: when the first byte of the body was there.
        ended: when the last one was.
    """

    size: int
    begun: float
    first: float
    ended: float

    @property
    def first_after(self) -> float:
        """Seconds until the first byte of the body."""
        return self.first - self.begun

    @property
    def seconds(self) -> float:
        """Seconds until the last byte."""
        return self.ended - self.begun


def drain(way: Way, target: str) -> Drained:
    """Get *target* on a new connection.

    Raises:
        Refused: it does not come, or not whole.
    """
    begun = time.monotonic()
    connection = way.open()
    try:
        connection.send(way.request("GET", target))
        status, headers, body = connection.read_head()
        if status != 200:
            raise Refused(f"GET {target} was answered with {status}")
        if "content-length" not in headers:
            raise Refused(f"GET {target} was answered without a length: {headers}")
        size = int(headers["content-length"])
        body = body or connection.receive()
        first = time.monotonic()
        if connection.tls is None:
            _skip(connection.raw, size - len(body))
        else:
            # OpenSSL reads no more of the socket than the record that it is asked for.
            skip_records(connection.raw, size - len(body))
        return Drained(size, begun, first, time.monotonic())
    finally:
        connection.close()


def _skip(raw: socket.socket, left: int) -> None:
    buffer = bytearray(_BUFFER)
    while left > 0:
        count = raw.recv_into(buffer)
        if not count:
            raise Refused(f"a body ended {left} bytes early")
        left -= count


def skip_records(raw: socket.socket, left: int) -> None:
    """Skip records until *left* bytes of content have come."""
    buffer = bytearray(_BUFFER)
    # What is in the buffer of a head that has not come whole; where the next one begins.
    filled = position = 0
    while left > 0:
        count = raw.recv_into(memoryview(buffer)[filled:])
        if not count:
            raise Refused(f"a body ended {left} bytes early")
        filled += count
        while position + _RECORD_HEAD <= filled:
            length = buffer[position + 3] << 8 | buffer[position + 4]
            left -= length - _RECORD_OVERHEAD
            position += _RECORD_HEAD + length
        rest = max(0, filled - position)
        buffer[:rest] = buffer[filled - rest : filled]
        position -= filled - rest
        filled = rest
    while filled < position:
        # The last record is counted, and still under way.
        count = raw.recv_into(buffer, min(position - filled, _BUFFER))
        if not count:
            raise Refused("a body ended in its last record")
        filled += count


def at_once(actions: Sequence[Callable[[], Drained]], interval: float = 0.0) -> list[Drained]:
    """Do all *actions*, a thread each, with *interval* seconds between their starts."""
    with ThreadPoolExecutor(len(actions)) as pool:
        futures = []
        for action in actions:
            futures.append(pool.submit(action))
            time.sleep(interval)
        return [future.result() for future in futures]

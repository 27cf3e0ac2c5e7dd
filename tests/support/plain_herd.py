"""Clients of the mirror that come at once, all in one thread: what they cost is not the proxy's."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Final

# Seconds for which nothing at all comes.
_PATIENCE: Final = 30.0
# As many bytes are looked at in one go.
_PIECE: Final = 1 << 20


class Arrival:
    """How a body came to one client. Times are of the monotonic clock.

    Attributes:
        first: when its first byte was there.
        ended: when its last one was.
        size: bytes that have come.
    """

    first: float | None = None
    ended: float | None = None
    size = 0

    def __init__(self) -> None:
        self._head = b""
        self._in_body = False

    def take(self, data: bytes, content: bytes) -> None:
        """More has come; the body has to be *content*.

        Raises:
            AssertionError: it is not.
        """
        if not self._in_body:
            self._head += data
            head, empty, data = self._head.partition(b"\r\n\r\n")
            if not empty:
                return
            assert head.startswith(b"HTTP/1.1 200 "), head
            assert f"\r\nContent-Length: {len(content)}\r\n".encode() in head + b"\r\n", head
            self._in_body = True
        if not data:
            return
        self.first = self.first or monotonic()
        assert content.startswith(data, self.size), f"a wrong byte after {self.size}"
        self.size += len(data)
        if self.size == len(content):
            self.ended = monotonic()


def fetch_at_once(
    place: tuple[str, int], target: str, content: bytes, clients: int
) -> list[Arrival]:
    """Have *clients* ask the mirror at *place* for *target*, and see that each gets *content*.

    Raises:
        AssertionError: one does not.
    """
    request = f"GET {target} HTTP/1.1\r\nHost: {place[0]}:{place[1]}\r\n\r\n".encode()
    arrivals = [Arrival() for _ in range(clients)]
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for arrival in arrivals:
            connection = stack.enter_context(socket.create_connection(place))
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ, arrival)
        while selector.get_map():
            for connection, arrival in _readable(selector):
                data = connection.recv(_PIECE)
                assert data, f"cut off after {arrival.size}"
                arrival.take(data, content)
                if arrival.ended is not None:
                    selector.unregister(connection)
    return arrivals


def _readable(selector: selectors.BaseSelector) -> Iterator[tuple[socket.socket, Arrival]]:
    ready = selector.select(_PATIENCE)
    assert ready, f"nothing came for {_PATIENCE} s"
    for key, _ in ready:
        assert isinstance(key.fileobj, socket.socket)
        yield key.fileobj, key.data

"""ClientHellos: those of a real TLS library, and hand-made ones as no library makes them."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from typing import Final

RANDOM: Final = bytes(range(32))
# RFC 8701: values that mean nothing, which clients send to keep servers tolerant.
GREASE: Final = 0x0A0A


def real_hello(name: str | None) -> bytes:
    """What this Python's TLS sends first to a server called *name*."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def vector(size: int, content: bytes) -> bytes:
    """*content* after its length, which has *size* bytes."""
    return len(content).to_bytes(size) + content


def extension(kind: int, content: bytes) -> bytes:
    """An extension."""
    return kind.to_bytes(2) + vector(2, content)


def server_names(*names: bytes, kind: int = 0) -> bytes:
    """The server_name extension."""
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def message(*extensions: bytes, random: bytes = RANDOM, kind: int = 1) -> bytes:
    """A ClientHello with these extensions, as a handshake message."""
    body = (
        b"\x03\x03"
        + random
        + vector(1, b"session")
        + vector(2, GREASE.to_bytes(2) + b"\x13\x01")
        + vector(1, b"\0")
        + vector(2, b"".join(extensions))
    )
    return bytes([kind]) + vector(3, body)


def records(content: bytes, sizes: Iterable[int] = ()) -> bytes:
    """*content* in handshake records of these *sizes*; the last takes the rest."""
    wire = b""
    for size in sizes:
        if not content:
            break
        wire += b"\x16\x03\x01" + vector(2, content[:size])
        content = content[size:]
    while content:
        wire += b"\x16\x03\x01" + vector(2, content[: 1 << 14])
        content = content[1 << 14 :]
    return wire


def cut(data: bytes, edges: Sequence[int]) -> list[bytes]:
    """*data* in pieces that end at these *edges*."""
    ends = [*sorted(edge for edge in edges if edge < len(data)), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]

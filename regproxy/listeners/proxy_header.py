"""The header of the PROXY protocol, versions 1 and 2: bytes in, (addresses, rest) out. Pure.

A load balancer sends it before the client's first byte, to tell who the client is
(https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt; sections below are its).

As with :mod:`regproxy.listeners.head`, the parser sees everything that came so far: what a
beginning decides, no continuation changes.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from attrs import frozen

from regproxy.oci.errors import BadRequest

# With CR LF (section 2.1).
V1_LIMIT: Final = 107
# HAProxy itself takes no header that does not fit its buffer of 16 KiB (tune.bufsize). Addresses
# have 36 bytes at most, what follows are extensions: a client's certificate, identities.
V2_LIMIT: Final = 16 * 1024

_V1: Final = b"PROXY "
_V1_LINE: Final = re.compile(
    rb"(?P<family>TCP[46]) (?P<source>[0-9a-fA-F:.]+) (?P<destination>[0-9a-fA-F:.]+)"
    rb" (?P<source_port>[0-9]{1,5}) (?P<destination_port>[0-9]{1,5})"
)
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
# Family and protocol: the length of an address of it (section 2.2).
_STREAMS: Final = {0x11: 4, 0x21: 16}


class HeaderInvalid(BadRequest):
    """A connection does not begin with a PROXY header."""


class HeaderTimeout(BadRequest):
    """The PROXY header did not come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT

    def __init__(self) -> None:
        super().__init__("the PROXY header did not come in time")


@frozen
class Ends:
    """Who speaks to whom, each as address and port."""

    source: tuple[str, int]
    destination: tuple[str, int]


def parse(data: bytes) -> tuple[Ends | None, bytes] | None:
    """Read the header at the beginning of a connection.

    Args:
        data: everything received so far.

    Returns:
        The ends, and the bytes after the header. No ends when the header does not tell: the
        load balancer speaks for itself (``LOCAL``), or does not know (``UNKNOWN``); then
        they are those of the connection. None while the header is not whole.

    Raises:
        HeaderInvalid: there is none, or a malformed one.
    """
    if _begins(data, _V2):
        return _parse_v2(data) if len(data) >= _V2_FIXED else None
    if not _begins(data, _V1):
        raise HeaderInvalid("the connection does not begin with a PROXY header")
    line, end, rest = data[:V1_LIMIT].partition(b"\r\n")
    if end:
        return _parse_v1(line), rest + data[V1_LIMIT:]
    if len(data) >= V1_LIMIT:
        raise HeaderInvalid("the line of the PROXY header does not end")
    return None


def _begins(data: bytes, prefix: bytes) -> bool:
    """Whether *data* begins with *prefix*, or may come to."""
    return prefix.startswith(data[: len(prefix)])


def _parse_v1(line: bytes) -> Ends | None:
    content = line[len(_V1) :]
    if content.partition(b" ")[0] == b"UNKNOWN":
        # What follows it means nothing.
        return None
    match = _V1_LINE.fullmatch(content)
    if match is None:
        raise HeaderInvalid("the line of the PROXY header is malformed")
    length = 4 if match["family"] == b"TCP4" else 16

    def end(address: bytes, port: bytes) -> tuple[str, int]:
        parsed = _address(address.decode("ascii"))
        if len(parsed.packed) != length or int(port) > 65535:
            raise HeaderInvalid("an address in the PROXY header is malformed")
        return _text(parsed), int(port)

    return Ends(
        end(match["source"], match["source_port"]),
        end(match["destination"], match["destination_port"]),
    )


def _parse_v2(data: bytes) -> tuple[Ends | None, bytes] | None:
    command, kind = data[12], data[13]
    if command not in (_LOCAL, _PROXY):
        raise HeaderInvalid(f"version and command {command:#04x} of the PROXY header are unknown")
    length = int.from_bytes(data[14:_V2_FIXED])
    if length > V2_LIMIT:
        raise HeaderInvalid(f"a PROXY header of {length} bytes")
    end = _V2_FIXED + length
    if len(data) < end:
        return None
    # What follows the addresses are extensions.
    return _parse_v2_ends(command, kind, data[_V2_FIXED:end]), data[end:]


def _parse_v2_ends(command: int, kind: int, content: bytes) -> Ends | None:
    size = _STREAMS.get(kind)
    if command == _LOCAL or size is None:
        # UNIX sockets and datagrams have no address that means something here.
        return None
    if len(content) < 2 * size + 4:
        raise HeaderInvalid("the addresses in the PROXY header are cut short")
    source, destination = content[:size], content[size : 2 * size]
    ports = content[2 * size : 2 * size + 4]
    return Ends(
        (_text(ip_address(source)), int.from_bytes(ports[:2])),
        (_text(ip_address(destination)), int.from_bytes(ports[2:])),
    )


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        raise HeaderInvalid("an address in the PROXY header is malformed") from None


def _text(address: IPv4Address | IPv6Address) -> str:
    """One text for one client, whichever family the load balancer listens on."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).compressed

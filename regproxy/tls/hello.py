"""The first message of a TLS client: bytes in, whom it wants out. Pure.

It is read before anybody ends the TLS, since whether that happens here depends on the
name that the client asks for. The bytes are left as they are: OpenSSL, or the server
that they are passed on to, reads them again and decides about everything else in them.

What is refused here no TLS library sends, except names that this proxy has no use for.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from attrs import frozen

from regproxy.oci.errors import BadRequest, HostInvalid, shown
from regproxy.oci.names import Host

# Bytes of one ClientHello. nginx (preread_buffer_size) and HAProxy (tune.bufsize) read no
# more either; with post-quantum key shares it has some 2 KiB.
HELLO_LIMIT: Final = 16 * 1024

# RFC 8446 section 5.1.
_HANDSHAKE: Final = 22
_RECORD_HEADER: Final = 5
_FRAGMENT_LIMIT: Final = 1 << 14
# RFC 8446 section 4.
_CLIENT_HELLO: Final = 1
_MESSAGE_HEADER: Final = 4
# RFC 6066 section 3.
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0


class Alert(IntEnum):
    """Reasons to end a handshake (RFC 8446 section 6.2)."""

    UNEXPECTED_MESSAGE = 10
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    INTERNAL_ERROR = 80
    UNRECOGNIZED_NAME = 112

    @property
    def record(self) -> bytes:
        """The fatal alert as it goes over the wire.

        Until a server has answered the ClientHello, alerts are in the clear in every version.
        """
        return bytes([21, 3, 3, 0, 2, 2, self])


class HelloInvalid(BadRequest):
    """A connection does not open with a ClientHello that names at most one host.

    Attributes:
        alert: what to tell the client; None for one that does not speak TLS.
    """

    def __init__(self, message: str, alert: Alert | None = Alert.DECODE_ERROR) -> None:
        super().__init__(message)
        self.alert = alert


@frozen
class ClientHello:
    """What is of interest in a ClientHello.

    Attributes:
        random: 32 bytes that tell this handshake from every other.
        server_name: the name asked for: a host name in lower case, without a trailing
            dot, never an address; or None.
    """

    random: bytes
    server_name: str | None


class HelloReader:
    """Puts one ClientHello together, however records and segments cut it.

    It keeps no more than the message and a record, and looks at each byte once.
    """

    def __init__(self) -> None:
        self._wire = bytearray()
        self._message = bytearray()

    def feed(self, data: bytes) -> ClientHello | None:
        """Take in what the connection brought next.

        Returns:
            The ClientHello, or None while it is not whole.

        Raises:
            HelloInvalid: this will never be one.
        """
        self._wire += data
        while (fragment := self._next_fragment()) is not None:
            self._message += fragment
            if len(self._message) < _MESSAGE_HEADER:
                continue
            kind, length = self._message[0], int.from_bytes(self._message[1:_MESSAGE_HEADER])
            if kind != _CLIENT_HELLO:
                raise HelloInvalid(
                    f"handshake message {kind} instead of a ClientHello", Alert.UNEXPECTED_MESSAGE
                )
            if length > HELLO_LIMIT:
                raise HelloInvalid(f"a ClientHello of {length} bytes")
            end = _MESSAGE_HEADER + length
            if len(self._message) >= end:
                return _parse(bytes(self._message[_MESSAGE_HEADER:end]))
        return None

    def _next_fragment(self) -> bytes | None:
        """The content of the next record, or None while that is not whole."""
        if self._wire and self._wire[0] & 0x80:
            # RFC 6101 appendix E. No other record begins so, and no HTTP.
            raise HelloInvalid("an SSLv2 hello, or no TLS at all", None)
        if self._wire and self._wire[0] != _HANDSHAKE:
            message = f"byte {self._wire[0]:#04x} where a TLS handshake begins"
            raise HelloInvalid(message, Alert.UNEXPECTED_MESSAGE if self._message else None)
        if len(self._wire) < _RECORD_HEADER:
            return None
        major, length = self._wire[1], int.from_bytes(self._wire[3:_RECORD_HEADER])
        if major != 3:
            raise HelloInvalid(f"a TLS record of version {major}", None)
        if not 0 < length <= _FRAGMENT_LIMIT:
            # Empty fragments of a handshake are forbidden, too.
            raise HelloInvalid(f"a TLS record of {length} bytes")
        end = _RECORD_HEADER + length
        if len(self._wire) < end:
            return None
        fragment = bytes(self._wire[_RECORD_HEADER:end])
        del self._wire[:end]
        return fragment


def _parse(body: bytes) -> ClientHello:
    """Read a ClientHello without its header (RFC 8446 section 4.1.2)."""
    fields = _Fields(body)
    fields.take(2)  # legacy_version
    random = fields.take(32)
    fields.vector(1)  # legacy_session_id
    fields.vector(2)  # cipher_suites
    fields.vector(1)  # legacy_compression_methods
    # Before TLS 1.3 there need not be any extensions.
    extensions = _Fields(fields.vector(2) if fields else b"")
    fields.end()
    found = []
    while extensions:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            found.append(content)
    if len(found) > 1:
        # RFC 8446 section 4.2.
        raise HelloInvalid("more than one server_name extension")
    return ClientHello(random, _parse_server_name(found[0]) if found else None)


def _parse_server_name(content: bytes) -> str:
    """Read the extension (RFC 6066 section 3).

    It is a list, but there is one type of name, and no type may come twice. OpenSSL, too,
    refuses everything else.
    """
    extension = _Fields(content)
    names = _Fields(extension.vector(2))
    extension.end()
    kind, name = names.number(1), names.vector(2)
    if kind != _HOST_NAME or names:
        raise HelloInvalid("the server_name extension is not one host name")
    text = name.decode("latin-1")
    try:
        # A port is nothing that a name can have here.
        host = None if ":" in text else Host.parse(text)
    except HostInvalid:
        host = None
    if host is None or host.is_address:
        raise HelloInvalid(f"the server name is {shown(text)}", Alert.UNRECOGNIZED_NAME)
    return host.name


class _Fields:
    """The bytes of a structure that are not read yet; true while there are any."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def __bool__(self) -> bool:
        return self._offset < len(self._data)

    def take(self, length: int) -> bytes:
        """So many bytes."""
        end = self._offset + length
        if end > len(self._data):
            raise HelloInvalid("a length in the ClientHello is wrong")
        data = self._data[self._offset : end]
        self._offset = end
        return data

    def number(self, length: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(length))

    def vector(self, length: int) -> bytes:
        """A vector whose own length has so many bytes (RFC 8446 section 3.4)."""
        return self.take(self.number(length))

    def end(self) -> None:
        """There must be nothing left."""
        if self:
            raise HelloInvalid("a length in the ClientHello is wrong")

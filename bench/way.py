"""How a client reaches a registry through a server."""

from __future__ import annotations

import re
import socket
import struct
from functools import lru_cache
from pathlib import Path
from typing import Final

from attrs import frozen
from OpenSSL import SSL

ADDRESS: Final = "127.0.0.1"
#: Seconds after which a client that gets nothing gives up.
PATIENCE: Final = 60
# As Go's clients offer them, dockerd and containerd among them, where the CPU has AES
# instructions: a server that goes by the client's order takes the one that they get.
_CIPHERS: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#: What a client takes: as containerd says it.
ACCEPT: Final = (
    "application/vnd.docker.distribution.manifest.v2+json,"
    " application/vnd.docker.distribution.manifest.list.v2+json,"
    " application/vnd.oci.image.manifest.v1+json,"
    " application/vnd.oci.image.index.v1+json, */*"
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_HEAD_LIMIT: Final = 64 * 1024


class Refused(Exception):
    """A server did not answer as the benchmark needs it."""


@frozen
class Way:
    """How a client reaches a registry through a server.

    Attributes:
        port: where it connects to, on the loopback interface.
        host: what it believes to talk to.
        repository: what the server calls the repository.
        ca_file: what the server's certificate is signed with; None for plain HTTP.
        connect: it says CONNECT first.
    """

    port: int
    host: str
    repository: str
    ca_file: Path | None = None
    connect: bool = False

    def blob(self, digest: str) -> str:
        """The target of a blob."""
        return f"/v2/{self.repository}/blobs/{digest}"

    def manifest(self, reference: str) -> str:
        """The target of a manifest."""
        return f"/v2/{self.repository}/manifests/{reference}"

    @property
    def curl_options(self) -> list[str]:
        """Options of curl(1) that make it go this way to :meth:`url`."""
        options = ["--noproxy", "" if self.connect else "*", "--http1.1"]
        options += ["--header", f"Accept: {ACCEPT}"]
        if self.ca_file is not None:
            options += ["--cacert", str(self.ca_file), "--tlsv1.3"]
            options += ["--tls13-ciphers", _CIPHERS.decode()]
        if self.connect:
            options += ["--proxy", f"http://{ADDRESS}:{self.port}"]
        else:
            options += ["--connect-to", f"::{ADDRESS}:{self.port}"]
        return options

    def url(self, target: str) -> str:
        """What curl is told to get."""
        return f"{'http' if self.ca_file is None else 'https'}://{self.host}{target}"

    def request(self, method: str, target: str) -> bytes:
        """A request as a client sends it."""
        lines = f"{method} {target} HTTP/1.1\r\nHost: {self.host}\r\nUser-Agent: bench\r\n"
        return f"{lines}Accept: {ACCEPT}\r\n\r\n".encode()

    def open(self, receive_buffer: int | None = None) -> Connection:
        """A new connection, ready for a request.

        Args:
            receive_buffer: bytes that the kernel is to take that nobody has read.

        Raises:
            Refused: the server does not want it.
            OSError, SSL.Error: there is none.
        """
        raw = socket.socket()
        try:
            # Not settimeout, which would make the socket a non-blocking one for OpenSSL.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", PATIENCE, 0))
            if receive_buffer is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            raw.connect((ADDRESS, self.port))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.connect:
                authority = f"{self.host}:443"
                raw.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
                status, _, _ = Connection(raw, None).read_head()
                if status != 200:
                    raise Refused(f"CONNECT was answered with {status}")
            if self.ca_file is None:
                return Connection(raw, None)
            tls = SSL.Connection(_context(self.ca_file), raw)
            tls.set_tlsext_host_name(self.host.encode())
            tls.set_connect_state()
            tls.do_handshake()
        except BaseException:
            raw.close()
            raise
        return Connection(raw, tls)


class Connection:
    """A connection to a server; *tls* is None where it is plain."""

    def __init__(self, raw: socket.socket, tls: SSL.Connection | None) -> None:
        self.raw = raw
        self.tls = tls
        self._stream = tls or raw

    def send(self, data: bytes) -> None:
        """Send all of *data*."""
        self._stream.sendall(data)

    def read_head(self) -> tuple[int, dict[str, str], bytes]:
        """The status, the headers in lower case, and what has come of the body.

        Raises:
            Refused: there is no answer.
        """
        received = b""
        while True:
            head, end, body = received.partition(b"\r\n\r\n")
            if end:
                break
            piece = self.receive()
            if not piece or len(received) > _HEAD_LIMIT:
                raise Refused(f"no answer but {received[:200]!r}")
            received += piece
        line, *fields = head.decode("latin-1").split("\r\n")
        pairs = (field.partition(":") for field in fields)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        return int(line.split(" ")[1]), headers, body

    def take_answer(self, *, is_head: bool) -> None:
        """Read an answer to its end, and look at no more of it than is needed.

        Many small requests would measure what else is done here.

        Raises:
            Refused: it is no 200, or not whole.
        """
        received = self.receive()
        while (end := received.find(b"\r\n\r\n")) < 0:
            piece = self.receive()
            if not piece:
                raise Refused(f"no answer but {received[:200]!r}")
            received += piece
        if received[9:12] != b"200":
            raise Refused(f"no 200 but {received[:200]!r}")
        if is_head:
            return
        length = _LENGTH.search(received, 0, end)
        if length is None:
            raise Refused(f"an answer without a length: {received[:end]!r}")
        left = int(length[1]) - (len(received) - end - 4)
        while left > 0:
            piece = self.receive()
            if not piece:
                raise Refused(f"a body ended {left} bytes early")
            left -= len(piece)

    def receive(self) -> bytes:
        """What comes next, at most one TLS record of it; empty at the end."""
        try:
            return bytes(self._stream.recv(16 * 1024))
        except (SSL.ZeroReturnError, SSL.SysCallError):
            return b""

    def close(self) -> None:
        """Leave."""
        self.raw.close()


@lru_cache
def _context(ca_file: Path) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(_CIPHERS)
    context.load_verify_locations(str(ca_file))
    context.set_verify(SSL.VERIFY_PEER)
    return context

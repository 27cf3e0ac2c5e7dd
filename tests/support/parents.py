"""Parent proxies in memory: HTTP ``CONNECT`` and SOCKS5, as their specifications have them.

They are written from the server's side and share nothing with the client that they test.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from ipaddress import ip_address

from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.support.memory_network import MemoryNetwork


class _Far(Protocol):
    """The connection to where the client wants to go."""

    def __init__(self, near: Parent) -> None:
        self.near = near

    def connectionMade(self) -> None:
        self.near.far = self
        self.near.established()

    def dataReceived(self, data: bytes) -> None:
        assert self.near.transport is not None
        self.near.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.near.transport is not None
        self.near.transport.loseConnection()


class _FarFactory(ClientFactory):
    noisy = False

    def __init__(self, near: Parent) -> None:
        self.near = near

    def buildProtocol(self, addr: IAddress | None) -> _Far:
        return _Far(self.near)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        reason.trap(ConnectError)
        self.near.unreachable()


class Parent(Protocol):
    """One client's connection to a parent."""

    factory: ParentFactory

    def __init__(self) -> None:
        self.far: _Far | None = None
        self._held = b""
        self._dialling = False

    def dataReceived(self, data: bytes) -> None:
        if self.far is not None:
            assert self.far.transport is not None
            self.far.transport.write(data)
            return
        self._held += data
        if not self._dialling:
            self._held = self.negotiate(self._held)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.far is not None and self.far.transport is not None:
            self.far.transport.loseConnection()

    def negotiate(self, data: bytes) -> bytes:
        """Read what there is of the client's part; what is left."""
        raise NotImplementedError

    def established(self) -> None:
        """The other end is connected."""
        raise NotImplementedError

    def unreachable(self) -> None:
        """It cannot be."""
        raise NotImplementedError

    def say(self, data: bytes) -> None:
        """Answer."""
        assert self.transport is not None
        self.transport.write(data)

    def dial(self, host: str, port: int) -> None:
        """Connect to where the client wants to go."""
        self._dialling = True
        self.factory.asked.append((host, port))
        network = self.factory.network
        addresses = network.names.get(host, [host])
        try:
            ip_address(addresses[0])
        except (ValueError, IndexError):
            self.unreachable()
            return
        network.connectTCP(addresses[0], port, _FarFactory(self))


class ParentFactory(Factory[Parent]):
    """A parent proxy.

    Attributes:
        asked: the (host, port) of every connection that was asked for, in order.
        login: what it wants, or None.
    """

    noisy = False
    kind: Callable[[], Parent]

    def __init__(self, network: MemoryNetwork, login: tuple[str, str] | None = None) -> None:
        self.network = network
        self.login = login
        self.asked: list[tuple[str, int]] = []

    def buildProtocol(self, addr: IAddress | None) -> Parent:
        protocol = type(self).kind()
        protocol.factory = self
        return protocol


class _HTTPParent(Parent):
    def negotiate(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        line, *fields = head.decode("ascii").split("\r\n")
        method, target, version = line.split(" ")
        assert (method, version) == ("CONNECT", "HTTP/1.1"), line
        assert f"Host: {target}" in fields, fields
        if self.factory.login is not None:
            pair = base64.b64encode(":".join(self.factory.login).encode()).decode()
            if f"Proxy-Authorization: Basic {pair}" not in fields:
                self.say(b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n')
                return b""
        host, _, port = target.rpartition(":")
        self.dial(host.strip("[]"), int(port))
        return rest

    def established(self) -> None:
        self.say(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 parent\r\n\r\n")

    def unreachable(self) -> None:
        self.say(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\noops")


class HTTPParent(ParentFactory):
    """One that knows ``CONNECT``."""

    kind = _HTTPParent


class _SOCKSParent(Parent):
    _stage = "greeting"

    def negotiate(self, data: bytes) -> bytes:
        while data:
            rest = getattr(self, f"_{self._stage}")(data)
            if rest is None:
                return data
            data = rest
        return data

    def _greeting(self, data: bytes) -> bytes | None:
        if len(data) < 2 or len(data) < 2 + data[1]:
            return None
        assert data[0] == 5
        wanted = 0 if self.factory.login is None else 2
        if wanted not in data[2 : 2 + data[1]]:
            self.say(b"\x05\xff")
            return b""
        self.say(bytes([5, wanted]))
        self._stage = "request" if wanted == 0 else "login"
        return data[2 + data[1] :]

    def _login(self, data: bytes) -> bytes | None:
        name = data[2 : 2 + data[1]]
        at = 2 + data[1]
        password = data[at + 1 : at + 1 + data[at]]
        assert data[0] == 1
        good = (name.decode(), password.decode()) == self.factory.login
        self.say(bytes([1, 0 if good else 1]))
        self._stage = "request"
        return data[at + 1 + data[at] :]

    def _request(self, data: bytes) -> bytes | None:
        assert data[:3] == b"\x05\x01\x00", data
        kind = data[3]
        if kind == 3:
            host, rest = data[5 : 5 + data[4]].decode(), data[5 + data[4] :]
        else:
            length = {1: 4, 4: 16}[kind]
            host, rest = str(ip_address(data[4 : 4 + length])), data[4 + length :]
        (port,) = struct.unpack(">H", rest[:2])
        self._stage = "wait"
        self.dial(host, port)
        return rest[2:]

    def _wait(self, data: bytes) -> bytes | None:
        return None

    def established(self) -> None:
        self.say(b"\x05\x00\x00\x01\x0a\x00\x00\x01\x30\x39")

    def unreachable(self) -> None:
        self.say(b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00")


class SOCKSParent(ParentFactory):
    """One that knows ``CONNECT`` of SOCKS5, with names and addresses."""

    kind = _SOCKSParent

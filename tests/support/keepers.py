"""Protocols that keep what they receive, and their factory, which keeps them."""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure


class Keeper(Protocol):
    """Keeps what it receives, and why the connection ended."""

    data = b""
    lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Keepers(Factory[Keeper]):
    """Makes them, and keeps them, with the addresses that it made them for."""

    noisy = False

    def __init__(self) -> None:
        self.built: list[Keeper] = []
        self.addresses: list[IAddress | None] = []
        self.refusing = False

    def buildProtocol(self, addr: IAddress | None) -> Keeper | None:
        if self.refusing:
            return None
        self.built.append(Keeper())
        self.addresses.append(addr)
        return self.built[-1]

    @property
    def data(self) -> list[bytes]:
        """What each protocol received."""
        return [protocol.data for protocol in self.built]

"""How many clients are connected."""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure


class Connections:
    """Counts the connections of each listener.

    Attributes:
        open: by the listener's way in.
    """

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()

    def watch(self, way: str, protocol: IProtocol) -> None:
        """Count the connection of *protocol*, which is about to be made, until it is lost.

        Twisted tells nobody but the protocol. One around it would see that too, but every
        byte would go through it, and files are sent only by those who have the transport itself.
        """
        self.open[way] += 1
        lose = protocol.connectionLost

        def lost(reason: Failure = connectionDone) -> None:
            # With it, protocol and function would keep each other in memory.
            del protocol.connectionLost
            self.open[way] -= 1
            lose(reason)

        protocol.connectionLost = lost  # type: ignore[method-assign]

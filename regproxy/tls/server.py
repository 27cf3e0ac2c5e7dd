"""The server's side of TLS: the certificate that a client gets to see."""

from __future__ import annotations

import re
from typing import Final

from attrs import define
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

# The alerts by which clients refuse a certificate (RFC 8446 section 6.2), in the words of OpenSSL.
_DISTRUST: Final = re.compile(
    "alert (?:unknown ca|bad certificate|certificate (?:expired|revoked|unknown))"
)


@define
class Handshakes:
    """How handshakes with clients ended. Who leaves in the middle of one is not counted.

    Attributes:
        completed: they went well.
        untrusted: the client did not accept the certificate: it does not know the CA.
        failed: anything else, such as no common version.
    """

    completed: int = 0
    untrusted: int = 0
    failed: int = 0


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Presents one certificate, whatever name the client asks for.

    Which one was decided before: by a CONNECT, or by the name in the ClientHello.

    Args:
        context: of :class:`regproxy.tls.leaves.LeafCache`.
        handshakes: counts them.
    """

    def __init__(self, context: SSL.Context, handshakes: Handshakes) -> None:
        self._context = context
        self._handshakes = handshakes

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection with that certificate."""
        connection = _Counted(self._context)
        connection.handshakes = self._handshakes
        return connection


class _Counted(SSL.Connection):
    """A connection whose handshake is counted."""

    handshakes: Handshakes

    def do_handshake(self) -> None:
        """Go on with the handshake; called until it is over."""
        try:
            super().do_handshake()
        except SSL.WantReadError:
            raise
        except SSL.Error as error:
            if _DISTRUST.search(str(error)):
                self.handshakes.untrusted += 1
            else:
                self.handshakes.failed += 1
            raise
        self.handshakes.completed += 1

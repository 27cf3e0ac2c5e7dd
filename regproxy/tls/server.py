"""The server's side of TLS: the certificate that a client gets to see."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Presents one certificate, whatever name the client asks for.

    Which one was decided before: by a CONNECT, or by the name in the ClientHello.

    Args:
        context: of :class:`regproxy.tls.leaves.LeafCache`.
    """

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection with that certificate."""
        return SSL.Connection(self._context)

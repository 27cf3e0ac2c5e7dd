"""The server's side of TLS: which certificate a client gets to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from regproxy.tls.authority import is_certifiable
from regproxy.tls.contexts import RefusableConnection, server_context
from regproxy.tls.errors import NameRefused
from regproxy.tls.leaves import LeafCache

_log = Logger()

# A record (RFC 8446 section 5.1) with a fatal alert unrecognized_name (section 6).
# Until the server has answered the ClientHello, alerts are in the clear in every version.
_UNRECOGNIZED_NAME: Final = bytes([21, 3, 3, 0, 2, 2, 112])


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Presents the leaf of one name, whatever name the client asks for.

    For tunnels: the CONNECT named the host already.
    """

    def __init__(self, leaves: LeafCache, name: str) -> None:
        self._leaves = leaves
        self._name = name

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection with the current leaf.

        Raises:
            ValueError, CAError: as ``LeafCache.context``.
        """
        return SSL.Connection(self._leaves.context(self._name))


@implementer(IOpenSSLServerConnectionCreator)
class SNIServerTLS:
    """Presents the leaf of the name that the client asks for by SNI.

    A name that is not allowed is answered with the alert unrecognized_name (RFC
    6066 section 3). So is a client that names none, unless there is a default.

    Args:
        leaves: where leaves come from.
        allowed: whether there may be a leaf for this name; it gets valid host
            names, in lower case and without a trailing dot, and nothing else.
        default: the name to assume for clients without SNI.
    """

    def __init__(
        self, leaves: LeafCache, allowed: Callable[[str], bool], default: str | None = None
    ) -> None:
        self._leaves = leaves
        self._allowed = allowed
        self._default = default
        self._context = server_context(None)
        self._context.set_tlsext_servername_callback(self._choose)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection whose leaf is chosen when the ClientHello is in."""
        return _ChoosingConnection(self._context)

    def _choose(self, connection: SSL.Connection) -> None:
        assert isinstance(connection, _ChoosingConnection)
        name = _normal(connection.get_servername()) or self._default
        try:
            if name is not None and is_certifiable(name) and self._allowed(name):
                connection.set_context(self._leaves.context(name))
                return
        except Exception:
            # Out of an OpenSSL callback an exception would go to stderr only.
            _log.failure("no certificate for {name}", name=name)
        # Left as it is, the connection has no certificate: its handshake cannot succeed.
        connection.refusal = NameRefused(
            "the client names no server" if name is None else f"not served here: {name!a}"
        )
        _log.debug("handshake refused: {reason}", reason=str(connection.refusal))


def server_name(connection: SSL.Connection) -> str | None:
    """The name that the client asked for by SNI, lower-case, without a trailing dot."""
    return _normal(connection.get_servername())


def _normal(name: bytes | None) -> str | None:
    # RFC 6066 section 3 allows ASCII only; what is not ASCII must not match anything.
    return name.decode("latin-1").lower().removesuffix(".") if name else None


class _ChoosingConnection(RefusableConnection):
    """Sends the right alert when it is refused.

    pyOpenSSL's callback cannot return an alert: it lets the handshake go on, or
    prints a traceback. So the handshake goes on, without a certificate, and what
    OpenSSL says about that is replaced.
    """

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context)
        # OpenSSL asks the first context's callback again when it has to retry the
        # ClientHello, so it has to outlive the change to another context.
        self._first_context = context

    def bio_read(self, bufsiz: int) -> bytes:
        data = super().bio_read(bufsiz)
        return data if self.refusal is None else _UNRECOGNIZED_NAME

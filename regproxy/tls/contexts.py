"""OpenSSL contexts: what every TLS connection of this proxy has in common.

Everything is set at creation, since pyOpenSSL refuses to change a context that
has had a connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from OpenSSL import SSL

from regproxy.tls.authority import Leaf
from regproxy.tls.errors import HandshakeRefused

HTTP_1_1: Final = b"http/1.1"

# SSL_OP_PRIORITIZE_CHACHA of OpenSSL's ssl.h, which pyOpenSSL does not name: a
# client that puts ChaCha20 first has no AES instructions and gets what it wants.
_OP_PRIORITIZE_CHACHA: Final = 1 << 21

# SSL_MODE_ENABLE_PARTIAL_WRITE of OpenSSL's ssl.h, which pyOpenSSL sets and does not name.
_MODE_ENABLE_PARTIAL_WRITE: Final = 1

# AES-128 first: 256 bits cost a third more CPU per byte and protect no better here.
_TLS_1_3: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# Forward secrecy and authenticated encryption only (RFC 9325 section 4.2). Leaves
# have ECDSA keys, so no other suite could be used.
_TLS_1_2: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"
)


class RefusableConnection(SSL.Connection):
    """A connection whose handshake a callback can refuse, with a reason.

    OpenSSL's callbacks can say no, but not why: the callback leaves the reason
    here, and the failed handshake raises it.
    """

    refusal: HandshakeRefused | None = None

    def do_handshake(self) -> None:
        """Go on with the handshake.

        Raises:
            HandshakeRefused: a callback refused it.
            SSL.Error: as ever.
        """
        try:
            super().do_handshake()
        finally:
            if self.refusal is not None:
                raise self.refusal


def server_context(leaf: Leaf) -> SSL.Context:
    """A context for the server's side, with *leaf* as its certificate."""
    context = _context(SSL.TLS_SERVER_METHOD)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | _OP_PRIORITIZE_CHACHA)
    # Resumption works by tickets alone: nothing is kept per client.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"regproxy")
    context.set_alpn_select_callback(_select_http_1_1)
    context.use_certificate(leaf.certificate)
    context.use_privatekey(leaf.key)
    for certificate in leaf.chain:
        context.add_extra_chain_cert(certificate)
    context.set_tls13_ciphersuites(_TLS_1_3)
    context.set_cipher_list(_TLS_1_2)
    return context


def client_context() -> SSL.Context:
    """A context for the client's side that trusts nobody yet."""
    context = _context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([HTTP_1_1])
    return context


def _context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    # An idle connection gives back its 32 KiB of record buffers.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # pyOpenSSL has every call write one record only. A BIO in memory takes them all at once.
    # Only private names of pyOpenSSL can say so; without them each call goes on as before.
    if clear_mode := getattr(getattr(SSL, "_lib", None), "SSL_CTX_clear_mode", None):
        clear_mode(context._context, _MODE_ENABLE_PARTIAL_WRITE)
    return context


def _select_http_1_1(connection: SSL.Connection, offered: Sequence[bytes]) -> Any:
    # Any: bytes or pyOpenSSL's marker, whose type has no public name.
    # Without a common protocol the handshake goes on: some clients offer "h2"
    # alone and speak HTTP/1.1 when that is not taken up.
    return HTTP_1_1 if HTTP_1_1 in offered else SSL.NO_OVERLAPPING_PROTOCOLS

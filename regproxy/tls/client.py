"""The client's side of TLS: who an upstream has to prove to be.

Twisted's own policy refuses a peer only for the one exception that the name check
is expected to raise; any other leaves the connection open. Here it is the other
way round: a connection goes on only when the check said yes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from attrs import frozen
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey, X509StoreFlags
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from regproxy.oci.names import Host
from regproxy.tls.cafiles import read_certificates
from regproxy.tls.contexts import RefusableConnection, client_context
from regproxy.tls.errors import CAError, VerificationFailed
from regproxy.tls.identity import CertifiedNames

_Codes = SSL.X509VerificationCodes

# The common results of chain verification (openssl-verification-options(1)) in words.
_CHAIN_ERRORS: Final = {
    _Codes.ERR_CERT_HAS_EXPIRED: "it has expired",
    _Codes.ERR_CERT_NOT_YET_VALID: "it is not valid yet",
    _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "it is self-signed and not trusted",
    _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "its root is not trusted",
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: "its issuer is unknown",
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: (
        "its issuer is unknown or an intermediate certificate is missing"
    ),
    _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: (
        "its issuer is unknown or an intermediate certificate is missing"
    ),
    _Codes.ERR_CERT_SIGNATURE_FAILURE: "its signature is wrong",
    _Codes.ERR_INVALID_CA: "its issuer is not a certificate authority",
    _Codes.ERR_INVALID_PURPOSE: "it is not one for servers",
    _Codes.ERR_PATH_LENGTH_EXCEEDED: "its chain is longer than allowed",
    _Codes.ERR_PERMITTED_VIOLATION: "its issuer may not sign for this name",
    _Codes.ERR_EXCLUDED_VIOLATION: "its issuer may not sign for this name",
}


@implementer(IPolicyForHTTPS)
class VerifyingPolicy:
    """TLS 1.2 or later to a server that proves to be the host of the URL.

    Trusted are the certificates of the platform (or of ``SSL_CERT_FILE`` and
    ``SSL_CERT_DIR``) and those in *ca_file*. As with Go's clients, any certificate
    in there is an anchor, an intermediate too.

    Args:
        ca_file: more certificates to trust, in PEM form.
        insecure: do not verify at all.
        identity: files with a certificate chain and its key, for servers that ask for them.

    Raises:
        CAError: *ca_file* or *identity* cannot be used.
    """

    def __init__(
        self,
        ca_file: Path | None = None,
        insecure: bool = False,
        identity: tuple[Path, Path] | None = None,
    ) -> None:
        self._context = client_context()
        if identity is not None:
            _identify(self._context, *identity)
        if insecure:
            return
        self._context.set_verify(SSL.VERIFY_PEER, _verify)
        self._context.set_default_verify_paths()
        if ca_file is not None:
            _trust(self._context, ca_file)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """What makes connections to this host.

        Raises:
            HostInvalid: *hostname* is not a host name or an address.
        """
        # Latin-1 decodes every byte, and nothing that is not ASCII parses.
        return _Creator(self._context, Host.parse(hostname.decode("latin-1")))


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _Creator:
    _context: SSL.Context
    _host: Host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = _VerifyingConnection(self._context)
        connection.host = self._host.name
        # Addresses are not permitted in SNI (RFC 6066 section 3).
        if not self._host.is_address:
            connection.set_tlsext_host_name(self._host.name.encode("ascii"))
        return connection


class _VerifyingConnection(RefusableConnection):
    """Knows whom it is to reach, and gives what it has received as a whole."""

    host: str

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """All records that are here, of at least one.

        OpenSSL gives one, of at most 16 KiB, at a time, and whatever is above would have to
        look at each.
        """
        records = [super().recv(bufsiz, flags)]
        try:
            while True:
                records.append(super().recv(bufsiz, flags))
        except SSL.Error:
            # There are no more, or it will be said again when the next one is asked for.
            return records[0] if len(records) == 1 else b"".join(records)


def _verify(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """OpenSSL's question about one certificate of the chain; depth 0 is the server's own."""
    assert isinstance(connection, _VerifyingConnection)
    if not ok:
        reason = _CHAIN_ERRORS.get(error, f"OpenSSL verification error {error}")
    elif depth > 0:
        return True
    else:
        try:
            names = CertifiedNames.of(certificate.to_cryptography())
            if names.cover(connection.host):
                return True
            reason = f"it is for {names}" if str(names) else "it has no subject alternative name"
        except Exception as failure:
            # The rule of this module: no answer is no. Decoders raise many things.
            reason = f"it cannot be decoded ({type(failure).__name__})"
    connection.refusal = VerificationFailed(
        f"the server's certificate is not valid for {connection.host}: {reason}"
    )
    return False


def _trust(context: SSL.Context, ca_file: Path) -> None:
    try:
        certificates = read_certificates(ca_file)
    except OSError as error:
        raise CAError(f"{ca_file}: {error.strerror}: give a readable file") from error
    store = context.get_cert_store()
    assert store is not None  # only a context without OpenSSL's defaults has none
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    for certificate in certificates:
        store.add_cert(X509.from_cryptography(certificate))


def _identify(context: SSL.Context, chain: Path, key: Path) -> None:
    # Not by OpenSSL's own readers, which would ask the terminal for a passphrase.
    try:
        leaf, *others = load_pem_x509_certificates(chain.read_bytes())
        private: Any = load_pem_private_key(key.read_bytes(), None)
        context.use_certificate(X509.from_cryptography(leaf))
        context.use_privatekey(PKey.from_cryptography_key(private))
        context.check_privatekey()
    except (OSError, ValueError, TypeError, SSL.Error) as error:
        raise CAError(f"{chain}, {key}: not a certificate and its key in PEM form") from error
    for certificate in others:
        context.add_extra_chain_cert(X509.from_cryptography(certificate))

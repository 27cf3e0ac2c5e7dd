"""The certificate authority that signs for intercepted hosts.

Made at first start, or the operator's own. Two files: ``ca.crt`` (PEM, one
certificate or a chain) and ``ca.key`` (PEM, RSA or EC, with or without a
passphrase).
"""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from regproxy.tls import cafiles
from regproxy.tls.errors import CAError

CAKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

CA_LIFE: Final = timedelta(days=3650)
# The most that public authorities may issue from 2029 on (CA/Browser Forum ballot
# SC-081v3): clients that enforce it will accept these too. Both ends of a validity
# period belong to it (RFC 5280 section 4.1.2.5), hence the second.
LEAF_LIFE: Final = timedelta(days=47) - timedelta(seconds=1)
# Clients whose clocks are behind should not see a certificate from the future.
BACKDATE: Final = timedelta(days=2)

# One level below is kept open so that an operator can later sign an intermediate
# with this key, give only that to the proxy and lock the key away, without asking
# every client to trust a new root.
_CA_PATH_LENGTH: Final = 1
# ub-common-name of RFC 5280 appendix A.1.
_COMMON_NAME_MAX: Final = 64
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@frozen
class Leaf:
    """A server certificate with its key.

    ``chain`` holds the intermediates that a client needs to get from the
    certificate to a root, nearest first, without the root.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def not_before(self) -> datetime:
        return self.certificate.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        return self.certificate.not_valid_after_utc


@frozen
class CertificateAuthority:
    """A key that clients trust, and its certificate.

    ``chain`` is the certificate that signs followed by those above it, up to the
    root if that is known.
    """

    key: CAKey
    chain: tuple[x509.Certificate, ...]

    @classmethod
    def load_or_create(
        cls, directory: Path, *, passphrase: bytes | None = None, now: datetime
    ) -> Self:
        """The authority in *directory*, made and kept there if there is none.

        A new key is encrypted if there is a passphrase.

        Raises:
            CAError: the files cannot be read, written or used.
        """
        files = cafiles.load_or_create(directory, passphrase, lambda: create_root(now))
        return cls(files.key, files.usable_chain(now))

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate whose key signs leaves."""
        return self.chain[0]

    @property
    def certificate_pem(self) -> bytes:
        """What clients have to trust: the root first, then intermediates.

        The root comes first because tools that read one certificate per file
        read the first.
        """
        return b"".join(
            certificate.public_bytes(Encoding.PEM) for certificate in reversed(self.chain)
        )

    def issue(self, names: Sequence[str], now: datetime) -> Leaf:
        """A new key and certificate for *names*: lower-case host names and addresses.

        It lives for 47 days at most and never longer than the authority.

        Raises:
            ValueError: one of them is neither; nothing is signed for wildcards.
            CAError: the authority has expired.
        """
        subject_names = [_general_name(name) for name in names]
        name = names[0]
        not_before = max(now - BACKDATE, self.certificate.not_valid_before_utc)
        not_after = min(not_before + LEAF_LIFE, self.certificate.not_valid_after_utc)
        if not_after <= now:
            raise CAError(
                f"the CA certificate expired on {not_after:%Y-%m-%d}: no certificate can be"
                f" made for {name}; replace ca.crt and ca.key"
            )
        has_common_name = len(name) <= _COMMON_NAME_MAX
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_subject(name) if has_common_name else x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            # Critical when it is all that names the subject (RFC 5280 section 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(subject_names), critical=not has_common_name)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(_authority_key_identifier(self.certificate), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        intermediates = tuple(c for c in self.chain if c.issuer != c.subject)
        return Leaf(certificate, key, intermediates)


def create_root(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A new root with a name that tells it from any other."""
    key = ec.generate_private_key(ec.SECP256R1())
    label = f"regproxy CA {secrets.token_hex(4)} {socket.gethostname()}"[:_COMMON_NAME_MAX]
    public_key = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_subject(label))
        .issuer_name(_subject(label))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=_CA_PATH_LENGTH), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        if not _HOST_NAME.fullmatch(name):
            raise ValueError(f"not a host name or address: {name!r}") from None
        return x509.DNSName(name)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's own identifier, whatever it was computed from (RFC 5280 section 4.2.1.1)."""
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier(
            x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest, None, None
        )
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)

"""Certificates of all kinds for tests, good and bad."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

DAY = timedelta(days=1)
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH


@frozen
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self._key_pem(NoEncryption())

    def encrypted_key_pem(self, passphrase: bytes) -> bytes:
        return self._key_pem(BestAvailableEncryption(passphrase))

    def _key_pem(self, encryption: KeySerializationEncryption) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def ec_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key() -> rsa.RSAPrivateKey:
    """A new RSA key: slow, so use it only where RSA is the point."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def make_ca(
    common_name: str = "Test CA",
    *,
    issuer: Identity | None = None,
    key: PrivateKey | None = None,
    is_ca: bool = True,
    signs_certificates: bool = True,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> Identity:
    """A root, or with *issuer* an intermediate."""
    usage = x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
    return _make(
        common_name,
        issuer,
        key,
        not_before,
        not_after,
        [
            (x509.BasicConstraints(ca=is_ca, path_length=None), True),
            (usage, True),
        ],
    )


def make_leaf(
    ca: Identity | None,
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    cn: str | None = None,
    *,
    key: PrivateKey | None = None,
    usages: Sequence[x509.ObjectIdentifier] = (SERVER_AUTH,),
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
) -> Identity:
    """A server certificate signed by *ca*, or self-signed without one.

    Without *dns* and *ips* it has no subject alternative name at all.
    """
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    names += [x509.IPAddress(ip_address(ip)) for ip in ips]
    contents: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage(usages), False),
    ]
    if names:
        contents.append((x509.SubjectAlternativeName(names), False))
    contents += [(extension, False) for extension in extensions]
    return _make(cn, ca, key, not_before, not_after, contents)


def _make(
    common_name: str | None,
    issuer: Identity | None,
    key: PrivateKey | None,
    not_before: datetime | None,
    not_after: datetime | None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> Identity:
    key = key or ec_key()
    signer = issuer.key if issuer else key
    now = datetime.now(UTC)
    subject = x509.Name(
        [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or now - DAY)
        .not_valid_after(not_after or now + DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Identity(builder.sign(signer, hashes.SHA256()), key)

"""``ca.crt`` and ``ca.key``: reading, checking and first writing.

Every refusal names the file, what was found, and what to do about it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.logger import Logger

from regproxy.tls.errors import CAError

_log = Logger()

_EXPIRY_WARNING: Final = timedelta(days=30)

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@frozen
class CAFiles:
    """What the two files hold."""

    certificate_file: Path
    key_file: Path
    certificates: tuple[x509.Certificate, ...]
    key: Key

    def usable_chain(self, now: datetime) -> tuple[x509.Certificate, ...]:
        """The certificate of the key, then those above it as far as the file has them.

        Raises:
            CAError: no certificate has this key, it is not one that may sign
                certificates, or one of the chain is not valid at *now*.
        """
        issuer = self._issuer()
        self._check_may_sign(issuer)
        chain = [issuer]
        while chain[-1].issuer != chain[-1].subject:
            parent = _parent(chain[-1], [c for c in self.certificates if c not in chain])
            if parent is None:
                break
            chain.append(parent)
        for certificate in chain:
            self._check_time(certificate, now)
        return tuple(chain)

    @property
    def matches(self) -> bool:
        """Whether one of the certificates has this key."""
        return self._with_key() is not None

    def _with_key(self) -> x509.Certificate | None:
        public_key = self.key.public_key()
        for certificate in self.certificates:
            if _public_key(certificate) == public_key:
                return certificate
        return None

    def _issuer(self) -> x509.Certificate:
        if (found := self._with_key()) is not None:
            return found
        raise CAError(
            f"{self.key_file} is not the key of any certificate in {self.certificate_file}:"
            " put the matching pair there"
        )

    def _check_may_sign(self, issuer: x509.Certificate) -> None:
        try:
            extensions = issuer.extensions
        except ValueError as error:
            raise CAError(
                f"{self.certificate_file}: the certificate cannot be decoded ({error})"
            ) from error
        constraints = _extension(extensions, x509.BasicConstraints)
        usage = _extension(extensions, x509.KeyUsage)
        if constraints is None or not constraints.ca or (usage and not usage.key_cert_sign):
            raise CAError(
                f"{self.certificate_file}: the certificate of {_subject(issuer)} is not one of"
                " a certificate authority: use one with CA:TRUE and, if it limits key usage,"
                " keyCertSign"
            )

    def _check_time(self, certificate: x509.Certificate, now: datetime) -> None:
        what = f"{self.certificate_file}: the certificate of {_subject(certificate)}"
        if now < certificate.not_valid_before_utc:
            raise CAError(
                f"{what} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
                " only: check the clock"
            )
        end = certificate.not_valid_after_utc
        if now >= end:
            raise CAError(
                f"{what} expired on {end:%Y-%m-%d}: replace it, or remove it and"
                f" {self.key_file} to have a new one made"
            )
        if end - now < _EXPIRY_WARNING:
            _log.warn("{what} expires on {date}", what=what, date=f"{end:%Y-%m-%d}")


def load_or_create(
    directory: Path,
    passphrase: bytes | None,
    create: Callable[[], tuple[x509.Certificate, ec.EllipticCurvePrivateKey]],
) -> CAFiles:
    """Read the pair in *directory*; write what *create* makes if neither file is there.

    Processes that start at the same time end with the same pair.

    Raises:
        CAError: one of the files is missing, or reading or writing failed.
    """
    passphrase = passphrase or None
    certificate_file, key_file = directory / "ca.crt", directory / "ca.key"
    try:
        if not (certificate_file.exists() and key_file.exists()):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(directory):
                _create_if_absent(certificate_file, key_file, passphrase, create)
    except OSError as error:
        raise _unusable(directory, error) from error
    return read_pair(certificate_file, key_file, passphrase)


def read_pair(certificate_file: Path, key_file: Path, passphrase: bytes | None) -> CAFiles:
    """Read the two files of a CA.

    Raises:
        CAError: reading failed.
    """
    try:
        return CAFiles(
            certificate_file,
            key_file,
            read_certificates(certificate_file),
            _read_key(key_file, passphrase or None),
        )
    except OSError as error:
        raise _unusable(certificate_file.parent, error) from error


def write_pair(
    certificate_file: Path,
    key_file: Path,
    passphrase: bytes | None,
    made: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
) -> None:
    """Write the two files of a CA, of which the key can be read by its owner only.

    Raises:
        OSError: that failed.
    """
    certificate, key = made
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    # Key first: a reader that finds the certificate finds both.
    write(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), 0o600)
    write(certificate_file, certificate.public_bytes(Encoding.PEM), 0o644)


def _unusable(directory: Path, error: OSError) -> CAError:
    return CAError(
        f"{error.filename or directory}: {error.strerror}: the CA's files have to be"
        " readable, and their directory writable unless both are there"
    )


def read_certificates(file: Path) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file, at least one.

    Raises:
        CAError: there is none.
        OSError: it cannot be read.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(file.read_bytes()))
    except ValueError as error:
        raise CAError(
            f"{file} does not hold certificates in PEM form (-----BEGIN CERTIFICATE-----)"
        ) from error


def _create_if_absent(
    certificate_file: Path,
    key_file: Path,
    passphrase: bytes | None,
    create: Callable[[], tuple[x509.Certificate, ec.EllipticCurvePrivateKey]],
) -> None:
    present = [file for file in (certificate_file, key_file) if file.exists()]
    if len(present) == 2:
        return
    if len(present) == 1:
        [missing] = {certificate_file, key_file} - set(present)
        raise CAError(
            f"{missing} is missing while {present[0]} is there: put it back, or remove"
            f" {present[0]} to have a new CA made"
        )
    write_pair(certificate_file, key_file, passphrase, create())
    _log.info("made a new certificate authority: {file}", file=str(certificate_file))


def _read_key(file: Path, passphrase: bytes | None) -> Key:
    if file.stat().st_mode & 0o077:
        _log.warn("{file} can be read by other users: chmod 600 it", file=str(file))
    pem = file.read_bytes()
    try:
        key = load_pem_private_key(pem, passphrase)
    except TypeError as error:
        # The library's way to say that exactly one of passphrase and encryption is there.
        raise CAError(
            f"{file} is encrypted: configure its passphrase"
            if passphrase is None
            else f"{file} is not encrypted: remove the passphrase from the configuration"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CAError(
            f"{file} cannot be read: it is no private key in PEM form"
            + (", or the passphrase is wrong" if passphrase else "")
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CAError(f"{file} holds a key that is neither RSA nor EC: use one of these")
    return key


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from changing the CA in *directory* meanwhile."""
    with (directory / "ca.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(file: Path, content: bytes, mode: int) -> None:
    """Put a file there whole and on disk, or not at all."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            # mkstemp made it 0600; here it only ever gains permissions.
            os.fchmod(out.fileno(), mode)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        rename(Path(temporary), file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def rename(file: Path, to: Path) -> None:
    """Rename within a directory; a loss of power does not undo it."""
    os.rename(file, to)
    directory = os.open(to.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _parent(
    child: x509.Certificate, candidates: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    for candidate in candidates:
        try:
            child.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            # Other name, other kind of key, or other key: not the parent.
            continue
        return candidate
    return None


def _extension(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _public_key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        # Not a kind that the authority's key can have.
        return None


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "an empty subject"

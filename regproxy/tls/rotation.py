"""The CA in use, its successor and its predecessors: announced first, then put in its place.

Beside ``ca.crt`` and ``ca.key`` are ``next.crt`` and ``next.key``, which clients are to trust
before anything is signed with them, and ``previous.crt``, which clients still trust.

A kill at any point leaves files from which the next start goes on. A pair is written with its key
first, and counts when its certificate is there. To put it in place, its key is renamed first:
where ``ca.key`` is the key of ``next.crt``, the certificate is still to follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Self

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.logger import Logger

from regproxy.tls import cafiles
from regproxy.tls.authority import CertificateAuthority, Leaf, create_root
from regproxy.tls.errors import CAError, RotationRefused


@frozen
class Authorities:
    """Whom clients trust, or are to trust.

    Attributes:
        current: signs.
        next: is announced, and does not sign yet.
        previous: certificates of those that do not sign any more, the latest first.
    """

    current: CertificateAuthority
    next: CertificateAuthority | None = None
    previous: tuple[x509.Certificate, ...] = ()

    def trusted(self, now: datetime) -> tuple[x509.Certificate, ...]:
        """What clients are to be given, the root of the one in use first."""
        chains = (self.current.chain, () if self.next is None else self.next.chain)
        wanted = [certificate for chain in chains for certificate in reversed(chain)]
        return tuple(dict.fromkeys([*wanted, *_valid(self.previous, now)]))


@frozen
class AuthorityFiles:
    """Where they are kept."""

    directory: Path
    passphrase: bytes | None = None

    def load(self, now: datetime) -> Authorities:
        """Read them; make the first one if there is none.

        Raises:
            CAError: the files cannot be read, written or used.
        """
        # The directory need not be writable when there is nothing to do.
        if self._unfinished():
            with self._changing():
                self._finish()
        return self._read(now)

    def announce(self, known: Authorities, now: datetime) -> Authorities:
        """Make a successor of the one in use.

        Args:
            known: what the caller has loaded.

        Raises:
            CAError: see :meth:`load`.
            RotationRefused: there is one already.
        """
        with self._changing():
            self._finish()
            found = self._read(now)
            if found.next is None:
                pair = self._file("next.crt"), self._file("next.key")
                cafiles.write_pair(*pair, self.passphrase, create_root(now))
                return self._read(now)
            if known.next is not None:
                raise RotationRefused("the next CA is announced already")
            # Another process did, or an attempt that seemed to have failed.
            return found

    def rotate(self, known: Authorities, now: datetime) -> Authorities:
        """Put the successor in the place of the one in use. See :meth:`announce`.

        Raises:
            CAError: see :meth:`load`.
            RotationRefused: none is announced.
        """
        with self._changing():
            self._finish()
            found = self._read(now)
            if found.current.certificate != known.current.certificate:
                return found
            if found.next is None:
                raise RotationRefused("no CA is announced that could take the place of this one")
            previous = (*found.current.chain, *_valid(found.previous, now))
            cafiles.write(self._file("previous.crt"), _pem(previous), 0o644)
            cafiles.rename(self._file("next.key"), self._file("ca.key"))
            self._finish()
            return self._read(now)

    def _finish(self) -> None:
        """Do what is left to do of a rotation that was broken off."""
        if self._unfinished():
            cafiles.rename(self._file("next.crt"), self._file("ca.crt"))

    def _unfinished(self) -> bool:
        certificate_file, key_file = self._file("next.crt"), self._file("ca.key")
        if not certificate_file.exists() or self._file("next.key").exists():
            return False
        return cafiles.read_pair(certificate_file, key_file, self.passphrase).matches

    def _read(self, now: datetime) -> Authorities:
        current = CertificateAuthority.load_or_create(
            self.directory, passphrase=self.passphrase, now=now
        )
        following = None
        certificate_file, key_file = self._file("next.crt"), self._file("next.key")
        if certificate_file.exists() and key_file.exists():
            pair = cafiles.read_pair(certificate_file, key_file, self.passphrase)
            following = CertificateAuthority(pair.key, pair.usable_chain(now))
        previous: tuple[x509.Certificate, ...] = ()
        if (file := self._file("previous.crt")).exists():
            # A rotation that was broken off early has put the one in use there, too.
            found = cafiles.read_certificates(file)
            previous = tuple(each for each in found if each not in current.chain)
        return Authorities(current, following, previous)

    def _file(self, name: str) -> Path:
        return self.directory / name

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with cafiles.locked(self.directory):
                yield
        except OSError as error:
            raise CAError(
                f"{error.filename or self.directory}: {error.strerror}: to announce or change the"
                " CA, its directory has to be writable"
            ) from error


class RotatingAuthority:
    """The authority in use, whichever that is.

    Args:
        now: the time, with its time zone.
    """

    _log = Logger()

    def __init__(
        self, files: AuthorityFiles, known: Authorities, now: Callable[[], datetime]
    ) -> None:
        self._files = files
        self._now = now
        self.known = known

    @classmethod
    def load(cls, directory: Path, passphrase: bytes | None, now: Callable[[], datetime]) -> Self:
        """What is in *directory*, made if there is nothing.

        Raises:
            CAError: the files cannot be read, written or used.
        """
        files = AuthorityFiles(directory, passphrase)
        return cls(files, files.load(now()), now)

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate whose key signs leaves."""
        return self.known.current.certificate

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """That certificate and those above it."""
        return self.known.current.chain

    @property
    def previous(self) -> tuple[x509.Certificate, ...]:
        """Those before that clients are still given."""
        return _valid(self.known.previous, self._now())

    @property
    def certificate_pem(self) -> bytes:
        """What clients are to trust, the root of the one in use first."""
        return _pem(self.known.trusted(self._now()))

    def issue(self, names: Sequence[str], now: datetime) -> Leaf:
        """See :meth:`regproxy.tls.authority.CertificateAuthority.issue`."""
        return self.known.current.issue(names, now)

    def announced(self) -> Authorities:
        """Announce a successor, on disk. See :meth:`adopt`.

        Raises:
            CAError: that failed.
            RotationRefused: there is one already.
        """
        return self._files.announce(self.known, self._now())

    def rotated(self) -> Authorities:
        """Put the successor in place, on disk. See :meth:`adopt`.

        Raises:
            CAError: that failed.
            RotationRefused: there is none.
        """
        return self._files.rotate(self.known, self._now())

    def adopt(self, changed: Authorities) -> None:
        """Go on with what has been done on disk."""
        self.known = changed


def _valid(certificates: Sequence[x509.Certificate], now: datetime) -> tuple[x509.Certificate, ...]:
    return tuple(each for each in certificates if now < each.not_valid_after_utc)


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)

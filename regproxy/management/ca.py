"""The certificate authority: what clients trust, and how that changes."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from regproxy.management.values import CAValue, RootValue
from regproxy.store.disk import Workers, shielded
from regproxy.tls.authority import CertificateAuthority
from regproxy.tls.rotation import Authorities, RotatingAuthority


class Authority:
    """Shows the CA, announces the next one, and puts that in its place.

    Args:
        workers: write files.
    """

    _log = Logger()

    def __init__(self, authority: RotatingAuthority, workers: Workers) -> None:
        self._authority = authority
        self._workers = workers
        self._changing = DeferredLock()

    def state(self) -> CAValue:
        """What clients trust, and are to trust."""
        known = self._authority.known
        current = _root(known.current)
        return CAValue(
            subject=current.subject,
            fingerprint=current.fingerprint,
            not_after=current.not_after,
            next=None if known.next is None else _root(known.next),
            previous=tuple(map(_value, self._authority.previous)),
        )

    def pem(self) -> bytes:
        """All certificates that clients are to trust, the root of the one in use first."""
        return self._authority.certificate_pem

    def der(self) -> bytes:
        """The root of the one in use."""
        return self._authority.chain[-1].public_bytes(Encoding.DER)

    async def announce(self) -> CAValue:
        """Make the next CA; clients are given it from now on.

        Raises:
            RotationRefused: there is one already.
            CAError: it could not be kept.
        """
        await self._change(self._authority.announced)
        state = self.state()
        assert state.next is not None, "it was announced just now"
        self._log.info("The next CA is announced, SHA-256 {it}", it=state.next.fingerprint)
        return state

    async def rotate(self) -> CAValue:
        """Have the next CA sign from now on.

        Raises:
            RotationRefused: none is announced.
            CAError: the files could not be changed.
        """
        await self._change(self._authority.rotated)
        state = self.state()
        self._log.info("The CA is another from now on, SHA-256 {it}", it=state.fingerprint)
        return state

    def _change(self, change: Callable[[], Authorities]) -> Deferred[None]:
        """Do it on disk and then here, whoever waits for it or does no more."""

        def work() -> Deferred[None]:
            return self._workers.run(change).addCallback(self._authority.adopt)

        return shielded(self._changing.run(work), lambda _: None)


def _root(authority: CertificateAuthority) -> RootValue:
    """Of a chain, what clients trust."""
    return _value(authority.chain[-1])


def _value(certificate: x509.Certificate) -> RootValue:
    return RootValue(
        subject=certificate.subject.rfc4514_string(),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        not_after=certificate.not_valid_after_utc,
    )

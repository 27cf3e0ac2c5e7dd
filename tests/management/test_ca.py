"""Tests for :mod:`regproxy.management.ca`."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.ca import Authority
from regproxy.management.values import CAValue
from regproxy.tls.errors import CAError, RotationRefused
from regproxy.tls.rotation import RotatingAuthority
from tests.support.workers import Later, Now

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LIFE = timedelta(days=3650)


class AuthorityTests(SynchronousTestCase):
    """Authority"""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.now = NOW
        self.authority = self.part()

    def part(self, workers: Now | Later | None = None) -> Authority:
        """What a new process has."""
        rotating = RotatingAuthority.load(self.directory, None, lambda: self.now)
        return Authority(rotating, Now() if workers is None else workers)

    def announce(self) -> CAValue:
        return self.successResultOf(ensureDeferred(self.authority.announce()))

    def rotate(self) -> CAValue:
        return self.successResultOf(ensureDeferred(self.authority.rotate()))

    def fingerprints(self) -> list[str]:
        """Of what clients are given."""
        given = x509.load_pem_x509_certificates(self.authority.pem())
        return [_fingerprint(certificate) for certificate in given]

    def test_state(self) -> None:
        state = self.authority.state()
        self.assertRegex(state.subject, "^CN=regproxy CA ")
        self.assertEqual(state.not_after, NOW + LIFE)
        self.assertEqual((state.next, state.previous), (None, ()))
        self.assertEqual(self.fingerprints(), [state.fingerprint])
        certificate = x509.load_der_x509_certificate(self.authority.der())
        self.assertEqual(_fingerprint(certificate), state.fingerprint)

    def test_way(self) -> None:
        """Announced, in place, and at last forgotten; and each is what a new process has."""
        first = self.authority.state()
        announced = self.announce()
        assert announced.next is not None
        self.assertEqual(announced.fingerprint, first.fingerprint)
        self.assertEqual(self.fingerprints(), [first.fingerprint, announced.next.fingerprint])
        self.assertEqual(self.part().state(), announced)
        rotated = self.rotate()
        self.assertEqual(rotated.fingerprint, announced.next.fingerprint)
        self.assertIsNone(rotated.next)
        (previous,) = rotated.previous
        self.assertEqual(previous.fingerprint, first.fingerprint)
        self.assertEqual(self.fingerprints(), [rotated.fingerprint, first.fingerprint])
        self.assertEqual(self.part().state(), rotated)
        self.now = previous.not_after
        self.assertEqual(self.authority.state().previous, ())

    def test_log(self) -> None:
        """The log has the fingerprints that people compare."""
        with capturedLogs() as events:
            announced = self.announce()
            rotated = self.rotate()
        assert announced.next is not None
        first, second = map(formatEvent, events)
        self.assertIn(announced.next.fingerprint, first)
        self.assertIn(rotated.fingerprint, second)

    def test_refused(self) -> None:
        self.failureResultOf(ensureDeferred(self.authority.rotate()), RotationRefused)
        self.announce()
        self.failureResultOf(ensureDeferred(self.authority.announce()), RotationRefused)

    def test_not_writable(self) -> None:
        """It is told of, nothing has changed, and the next attempt may succeed."""
        before = self.authority.state()
        with patch.object(os, "rename", side_effect=OSError(30, "Read-only file system")):
            failure = self.failureResultOf(ensureDeferred(self.authority.announce()), CAError)
        self.assertIn("Read-only file system", failure.getErrorMessage())
        self.assertEqual(self.authority.state(), before)
        self.announce()

    def test_one_after_the_other(self) -> None:
        """Nothing blocks, and whoever comes second sees what the first has done."""
        self.authority = self.part(workers := Later())
        announcing = ensureDeferred(self.authority.announce())
        rotating = ensureDeferred(self.authority.rotate())
        self.assertEqual(len(workers), 1)
        self.assertIsNone(self.authority.state().next)
        workers.all()
        announced = self.successResultOf(announcing)
        assert announced.next is not None
        self.assertEqual(self.successResultOf(rotating).fingerprint, announced.next.fingerprint)

    def test_nobody_waits(self) -> None:
        """What is done on disk holds, though who asked for it has left."""
        self.announce()
        self.authority = self.part(workers := Later())
        rotating = ensureDeferred(self.authority.rotate())
        rotating.addErrback(lambda failure: None)
        rotating.cancel()
        workers.all()
        self.assertEqual(self.authority.state(), self.part().state())
        self.assertIsNone(self.authority.state().next)


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()

"""Tests for regproxy.tls.rotation."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.authority import CertificateAuthority
from regproxy.tls.errors import CAError, RotationRefused
from regproxy.tls.leaves import LeafCache
from regproxy.tls.rotation import Authorities, AuthorityFiles, RotatingAuthority
from tests.support.certificates import make_ca

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = 365 * DAY


class Killed(BaseException):
    """The process is gone."""


class DirectoryTestCase(SynchronousTestCase):
    """A test with a CA."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "ca"
        self.files = AuthorityFiles(self.directory)
        self.first = self.load()

    def load(self, now: datetime = NOW) -> Authorities:
        """What a new process finds."""
        return self.files.load(now)

    def announce(self) -> Authorities:
        return self.files.announce(self.load(), NOW)

    def rotate(self) -> Authorities:
        return self.files.rotate(self.load(), NOW)


class FilesTests(DirectoryTestCase):
    """AuthorityFiles"""

    def test_first(self) -> None:
        """One is made, and nobody follows it."""
        self.assertIsNone(self.first.next)
        self.assertEqual(self.first.previous, ())
        self.assertEqual(_identity(self.load()), _identity(self.first))

    def test_announce(self) -> None:
        """There is a second one, and the first still signs; so it is after a restart."""
        announced = self.announce()
        assert announced.next is not None
        self.assertEqual(announced.current.chain, self.first.current.chain)
        self.assertNotEqual(announced.next.certificate, self.first.current.certificate)
        self.assertEqual(_identity(self.load()), _identity(announced))

    def test_rotate(self) -> None:
        """The second one signs, the first one is still trusted; so it is after a restart."""
        announced = self.announce()
        assert announced.next is not None
        rotated = self.rotate()
        self.assertEqual(rotated.current.certificate, announced.next.certificate)
        self.assertIsNone(rotated.next)
        self.assertEqual(rotated.previous, self.first.current.chain)
        self.assertEqual(_identity(self.load()), _identity(rotated))

    def test_again(self) -> None:
        """Those before pile up, the latest first, until they expire."""
        seen = [self.first.current.certificate]
        for _ in range(2):
            self.announce()
            seen.append(self.rotate().current.certificate)
        self.assertEqual(self.load().previous, (seen[1], seen[0]))
        self.assertEqual(self.load().trusted(NOW), tuple(reversed(seen)))

    def test_trusted(self) -> None:
        """The one in use comes first; who has expired is given out no more."""
        announced = self.announce()
        assert announced.next is not None
        one, two = self.first.current.certificate, announced.next.certificate
        self.assertEqual(announced.trusted(NOW), (one, two))
        rotated = self.rotate()
        self.assertEqual(rotated.trusted(NOW), (two, one))
        self.assertEqual(rotated.trusted(one.not_valid_after_utc), (two,))

    def test_only_owner_reads_keys(self) -> None:
        self.announce()
        self.assertEqual((self.directory / "next.key").stat().st_mode & 0o777, 0o600)
        self.rotate()
        self.assertEqual((self.directory / "ca.key").stat().st_mode & 0o777, 0o600)
        self.assertFalse((self.directory / "next.key").exists())

    def test_passphrase(self) -> None:
        """It is that of the new key, too."""
        directory = Path(self.mktemp()) / "ca"
        files = AuthorityFiles(directory, b"secret")
        files.announce(files.load(NOW), NOW)
        self.assertIn(b"ENCRYPTED", (directory / "next.key").read_bytes())
        rotated = files.rotate(files.load(NOW), NOW)
        self.assertEqual(files.load(NOW).current.certificate, rotated.current.certificate)
        self.assertIn(b"ENCRYPTED", (directory / "ca.key").read_bytes())

    def test_twice(self) -> None:
        """Neither can be done twice."""
        self.announce()
        self.assertRaises(RotationRefused, self.announce)
        self.rotate()
        self.assertRaises(RotationRefused, self.rotate)

    def test_somebody_else_did(self) -> None:
        """Who does not know of it learns of it, and does it no second time."""
        announced = self.files.announce(self.first, NOW)
        self.assertEqual(_identity(self.files.announce(self.first, NOW)), _identity(announced))
        rotated = self.files.rotate(announced, NOW)
        self.assertEqual(_identity(self.files.rotate(announced, NOW)), _identity(rotated))

    def test_own(self) -> None:
        """An operator's own successor is one like any other, a chain too."""
        begin, end = NOW - DAY, NOW + YEAR
        root = make_ca("Root", not_before=begin, not_after=end)
        issuer = make_ca("Issuer", issuer=root, not_before=begin, not_after=end)
        (self.directory / "next.crt").write_bytes(issuer.certificate_pem + root.certificate_pem)
        (self.directory / "next.key").write_bytes(issuer.key_pem)
        chain = issuer.certificate, root.certificate
        found = self.load()
        assert found.next is not None
        self.assertEqual(found.next.chain, chain)
        self.assertEqual(self.rotate().current.chain, chain)
        self.assertEqual(self.load().current.chain, chain)
        self.assertEqual(self.load().trusted(NOW)[:2], (root.certificate, issuer.certificate))

    def test_bad_successor(self) -> None:
        """It is told of at the start, not when it is to sign."""
        self.announce()
        (self.directory / "next.crt").write_bytes(make_ca("Other").certificate_pem)
        with self.assertRaisesRegex(CAError, r"next\.key is not the key of any .*next\.crt"):
            self.load()

    def test_directory_is_not_writable(self) -> None:
        """Reading needs no more than reading; the rest says what it needs."""
        self.announce()
        with patch("os.rename", side_effect=PermissionError(13, "Permission denied")):
            self.assertIsNotNone(self.load().next)
            with self.assertRaisesRegex(CAError, "has to be writable"):
                self.rotate()


class KillTests(DirectoryTestCase):
    """A process that ends between any two steps."""

    def steps(self, change: Callable[[], object], fatal: int) -> bool:
        """Do *change*, and die before the step *fatal* of it; whether it came to that."""
        count = 0

        def step(real: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **named: Any) -> Any:
                nonlocal count
                count += 1
                if count > fatal:
                    raise Killed
                return real(*arguments, **named)

            return wrapped

        with ExitStack() as stack:
            for name in "rename", "fsync", "fchmod", "open":
                stack.enter_context(patch.object(os, name, step(getattr(os, name))))
            try:
                change()
            except Killed:
                return True
        return False

    def check(self, change: Callable[[], object], then: Callable[[int], None]) -> None:
        """Kill *change* before each of its steps, look each time, and see it through."""
        fatal = 0
        while True:
            self.setUp()
            if change == self.rotate:
                self.announce()
            if not self.steps(change, fatal):
                break
            then(fatal)
            fatal += 1
        self.assertGreater(fatal, 5)

    def test_announce(self) -> None:
        """Nothing, or the whole; and it can be done anew."""

        def then(fatal: int) -> None:
            found = self.load()
            self.assertEqual(_identity(found)[0], _identity(self.first)[0], fatal)
            again = found if found.next is not None else self.announce()
            self.assertIsNotNone(again.next, fatal)
            self.assertEqual(_identity(self.load()), _identity(again), fatal)

        self.check(self.announce, then)

    def test_rotate(self) -> None:
        """The one or the other signs, and clients are given both, always."""
        outcomes = set()

        def then(fatal: int) -> None:
            found = self.load()
            rotated = found.next is None
            outcomes.add(rotated)
            old = self.first.current.certificate
            self.assertEqual(found.current.certificate == old, not rotated, fatal)
            trusted = found.trusted(NOW)
            self.assertEqual(len(trusted), 2, fatal)
            self.assertIn(old, trusted, fatal)
            done = found if rotated else self.rotate()
            self.assertEqual(set(done.trusted(NOW)), set(trusted), fatal)
            self.assertEqual(done.previous, (old,), fatal)
            self.assertEqual(_identity(self.load()), _identity(done), fatal)

        self.check(self.rotate, then)
        self.assertEqual(outcomes, {False, True})


class RotatingTests(DirectoryTestCase):
    """RotatingAuthority"""

    def setUp(self) -> None:
        super().setUp()
        self.now = NOW
        self.authority = RotatingAuthority.load(self.directory, None, lambda: self.now)

    def given(self) -> list[x509.Certificate]:
        """What clients are given."""
        return x509.load_pem_x509_certificates(self.authority.certificate_pem)

    def test_changes(self) -> None:
        """Each holds once it is adopted, in what is signed and in what is given out."""
        (one,) = self.given()
        announced = self.authority.announced()
        self.assertEqual(self.given(), [one])
        self.authority.adopt(announced)
        first, two = self.given()
        self.assertEqual(first, one)
        self.assertEqual(self.issuer(), one)
        self.authority.adopt(self.authority.rotated())
        self.assertEqual(self.given(), [two, one])
        self.assertEqual(self.issuer(), two)
        self.assertEqual(self.authority.chain, (two,))
        self.now = one.not_valid_after_utc
        self.assertEqual(self.given(), [two])

    def issuer(self) -> x509.Certificate:
        """Who signs."""
        leaf = self.authority.issue(["ghcr.io"], NOW).certificate
        leaf.verify_directly_issued_by(self.authority.certificate)
        return self.authority.certificate

    def test_leaves(self) -> None:
        """They are made anew with the new one, and not before."""
        leaves = LeafCache(self.authority, lambda: NOW)
        context = leaves.context("ghcr.io")
        self.authority.adopt(self.authority.announced())
        self.assertIs(leaves.context("ghcr.io"), context)
        self.authority.adopt(self.authority.rotated())
        renewed = leaves.context("ghcr.io")
        self.assertIsNot(renewed, context)
        self.assertIs(leaves.context("ghcr.io"), renewed)

    def test_rename_fails(self) -> None:
        """What seemed to have failed half-way, and is done, is adopted by the next attempt."""
        self.authority.adopt(self.authority.announced())
        real = os.rename

        def rename(source: Any, target: Any) -> None:
            if str(target).endswith("ca.crt"):
                raise OSError(5, "Input/output error")
            real(source, target)

        with patch("os.rename", rename):
            self.assertRaises(CAError, self.authority.rotated)
        self.authority.adopt(self.authority.rotated())
        self.assertEqual(self.authority.known.previous, self.first.current.chain)
        self.assertNotEqual(self.authority.certificate, self.first.current.certificate)


def _identity(found: Authorities) -> tuple[object, ...]:
    """What is comparable of it: keys are not."""

    def chain(authority: CertificateAuthority | None) -> object:
        return None if authority is None else authority.chain

    return chain(found.current), chain(found.next), found.previous

"""Tests for regproxy.tls.cafiles."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.cafiles import CAFiles, load_or_create, read_certificates
from regproxy.tls.errors import CAError
from tests.support import docker_registry_proxy
from tests.support.certificates import Identity, make_ca, make_leaf, rsa_key
from tests.support.programs import needs

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def create() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    made = make_ca("Made", not_after=NOW + 3650 * DAY)
    assert isinstance(made.key, ec.EllipticCurvePrivateKey)
    return made.certificate, made.key


def refuse() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    raise AssertionError("nothing is to be made")


class DirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "deep" / "ca"
        self.certificate_file = self.directory / "ca.crt"
        self.key_file = self.directory / "ca.key"

    def put(self, certificates: bytes, key: bytes, mode: int = 0o600) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.certificate_file.write_bytes(certificates)
        self.key_file.write_bytes(key)
        self.key_file.chmod(mode)

    def load(self, passphrase: bytes | None = None) -> CAFiles:
        return load_or_create(self.directory, passphrase, refuse)

    def chain(self) -> tuple[x509.Certificate, ...]:
        return self.load().usable_chain(NOW)


class CreateTests(DirectoryTests):
    """First start."""

    def test_files_and_modes(self) -> None:
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        made = load_or_create(self.directory, None, create)
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.certificate_file.stat().st_mode & 0o777, 0o644)
        self.assertEqual(self.key_file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.load().certificates, made.certificates)

    def test_leaves_nothing_else(self) -> None:
        load_or_create(self.directory, None, create)
        self.assertEqual(
            {file.name for file in self.directory.iterdir()}, {"ca.crt", "ca.key", "ca.lock"}
        )

    def test_existing_pair_needs_no_writing(self) -> None:
        ca = make_ca()
        self.put(ca.certificate_pem, ca.key_pem)
        self.load()
        self.assertEqual({file.name for file in self.directory.iterdir()}, {"ca.crt", "ca.key"})

    def test_passphrase_encrypts(self) -> None:
        load_or_create(self.directory, b"secret", create)
        self.assertIn(b"ENCRYPTED PRIVATE KEY", self.key_file.read_bytes())
        self.load(b"secret")

    def test_failed_write_leaves_nothing(self) -> None:
        with (
            patch("os.rename", side_effect=OSError(28, "No space left on device")),
            self.assertRaisesRegex(CAError, "No space left"),
        ):
            load_or_create(self.directory, None, create)
        self.assertEqual({file.name for file in self.directory.iterdir()}, {"ca.lock"})

    def test_started_twice_at_once(self) -> None:
        # Locks belong to open files, so threads contend as processes do.
        together = threading.Barrier(4)
        found: list[CAFiles] = []

        def start() -> None:
            together.wait(10)
            found.append(load_or_create(self.directory, None, create))

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        self.assertEqual(len(found), 4)
        for files in found:
            self.assertEqual(files.usable_chain(NOW), found[0].usable_chain(NOW))

    def test_directory_cannot_be_made(self) -> None:
        blocker = Path(self.mktemp())
        blocker.write_text("a file")
        with self.assertRaisesRegex(CAError, str(blocker)):
            load_or_create(blocker / "ca", None, create)


class LoadTests(DirectoryTests):
    """What the operator put there."""

    def test_ec_and_rsa(self) -> None:
        for ca in (make_ca(), make_ca(key=rsa_key())):
            self.put(ca.certificate_pem, ca.key_pem)
            self.assertEqual(self.chain(), (ca.certificate,))

    def test_one_missing(self) -> None:
        for name, other in (("ca.key", "ca.crt"), ("ca.crt", "ca.key")):
            ca = make_ca()
            self.put(ca.certificate_pem, ca.key_pem)
            (self.directory / name).unlink()
            with self.assertRaisesRegex(CAError, f"{name} is missing while .*{other} is there"):
                self.load()

    def test_other_key(self) -> None:
        self.put(make_ca().certificate_pem, make_ca().key_pem)
        with self.assertRaisesRegex(CAError, r"ca\.key is not the key of any certificate"):
            self.chain()

    def test_not_a_ca(self) -> None:
        bad: list[Identity] = [
            make_leaf(None, ["example.com"], cn="leaf"),
            make_ca(is_ca=False),
            make_ca(signs_certificates=False),
        ]
        for identity in bad:
            self.put(identity.certificate_pem, identity.key_pem)
            with self.assertRaisesRegex(CAError, r"ca\.crt: .* CN=.* is not one of a cert"):
                self.chain()

    def test_expired(self) -> None:
        ca = make_ca(not_before=NOW - 2 * DAY, not_after=NOW - DAY)
        self.put(ca.certificate_pem, ca.key_pem)
        with self.assertRaisesRegex(CAError, r"ca\.crt: .* expired on .*replace it"):
            self.chain()

    def test_not_yet_valid(self) -> None:
        ca = make_ca(not_before=NOW + DAY, not_after=NOW + 2 * DAY)
        self.put(ca.certificate_pem, ca.key_pem)
        with self.assertRaisesRegex(CAError, r"ca\.crt: .* valid from .* check the clock"):
            self.chain()

    def test_soon_expired(self) -> None:
        ca = make_ca(not_after=NOW + 10 * DAY)
        self.put(ca.certificate_pem, ca.key_pem)
        with capturedLogs() as events:
            self.chain()
        [event] = events
        self.assertIs(event["log_level"], LogLevel.warn)
        self.assertRegex(formatEvent(event), r"ca\.crt: the certificate of CN=Test CA expires on")

    def test_not_pem(self) -> None:
        ca = make_ca()
        self.put(b"junk", ca.key_pem)
        with self.assertRaisesRegex(CAError, r"ca\.crt does not hold certificates in PEM"):
            self.load()
        self.put(ca.certificate_pem, b"junk")
        with self.assertRaisesRegex(CAError, r"ca\.key cannot be read: it is no private key"):
            self.load()

    def test_passphrase(self) -> None:
        ca = make_ca()
        self.put(ca.certificate_pem, ca.encrypted_key_pem(b"secret"))
        self.assertEqual(self.load(b"secret").usable_chain(NOW), (ca.certificate,))
        with self.assertRaisesRegex(CAError, r"ca\.key is encrypted: configure"):
            self.load()
        with self.assertRaisesRegex(CAError, r"ca\.key .*passphrase is wrong") as caught:
            self.load(b"guess")
        self.assertNotIn("guess", str(caught.exception))

    @needs("openssl")
    def test_triple_des(self) -> None:
        """Keys as docker-registry-proxy encrypts them, in both formats."""
        self.directory.mkdir(parents=True)
        for traditional in False, True:
            docker_registry_proxy.make_ca(self.directory, bits=2048, traditional=traditional)
            pem = (self.directory / "ca.key").read_bytes()
            self.assertEqual(b"DEK-Info: DES-EDE3-CBC" in pem, traditional)
            (certificate,) = self.load(b"foobar").usable_chain(datetime.now(UTC))
            self.assertIn("DockerMirrorBox", certificate.subject.rfc4514_string())
            with self.assertRaisesRegex(CAError, r"ca\.key .*passphrase is wrong"):
                self.load(b"guess")

    def test_passphrase_without_need(self) -> None:
        ca = make_ca()
        self.put(ca.certificate_pem, ca.key_pem)
        with self.assertRaisesRegex(CAError, r"ca\.key is not encrypted: remove"):
            self.load(b"secret")
        self.assertEqual(self.load(b"").usable_chain(NOW), (ca.certificate,))

    def test_other_kind_of_key(self) -> None:
        key = ed25519.Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.put(make_ca().certificate_pem, pem)
        with self.assertRaisesRegex(CAError, r"ca\.key holds a key that is neither RSA nor EC"):
            self.load()

    def test_unreadable(self) -> None:
        ca = make_ca()
        self.put(ca.certificate_pem, ca.key_pem)
        self.key_file.unlink()
        self.key_file.mkdir()
        with self.assertRaisesRegex(CAError, r"ca\.key: Is a directory"):
            self.load()

    def test_open_key_file_is_warned_about(self) -> None:
        ca = make_ca()
        self.put(ca.certificate_pem, ca.key_pem, mode=0o640)
        with capturedLogs() as events:
            self.load()
        [event] = events
        self.assertIs(event["log_level"], LogLevel.warn)
        self.assertRegex(formatEvent(event), r"ca\.key can be read by other users")

    def test_closed_key_file_is_not(self) -> None:
        ca = make_ca()
        self.put(ca.certificate_pem, ca.key_pem)
        with capturedLogs() as events:
            self.load()
        self.assertEqual(events, [])


class ChainTests(DirectoryTests):
    """Several certificates in ``ca.crt``."""

    def setUp(self) -> None:
        super().setUp()
        self.root = make_ca("Root")
        self.middle = make_ca("Middle", issuer=self.root)
        self.lower = make_ca("Lower", issuer=self.middle)

    def test_in_any_order(self) -> None:
        stranger = make_ca("Root")
        for order in (
            (self.lower, self.middle, self.root),
            (self.root, stranger, self.lower, self.middle),
        ):
            self.put(b"".join(one.certificate_pem for one in order), self.lower.key_pem)
            wanted = (self.lower, self.middle, self.root)
            self.assertEqual(self.chain(), tuple(one.certificate for one in wanted))

    def test_expired_root(self) -> None:
        root = make_ca("Root", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
        lower = make_ca("Lower", issuer=root)
        self.put(lower.certificate_pem + root.certificate_pem, lower.key_pem)
        with self.assertRaisesRegex(CAError, r"ca\.crt: .* CN=Root expired on"):
            self.chain()

    def test_other_kinds_of_certificate_beside_it(self) -> None:
        foreign = make_ca("Root", key=rsa_key())
        self.put(foreign.certificate_pem + self.lower.certificate_pem, self.lower.key_pem)
        self.assertEqual(self.chain(), (self.lower.certificate,))

    def test_without_root(self) -> None:
        self.put(self.lower.certificate_pem + self.middle.certificate_pem, self.lower.key_pem)
        self.assertEqual(self.chain(), (self.lower.certificate, self.middle.certificate))

    def test_root_signs_though_others_are_there(self) -> None:
        self.put(self.lower.certificate_pem + self.root.certificate_pem, self.root.key_pem)
        self.assertEqual(self.chain(), (self.root.certificate,))


class ReadCertificatesTests(SynchronousTestCase):
    def test_missing_file_is_an_os_error(self) -> None:
        self.assertRaises(OSError, read_certificates, Path(self.mktemp()))

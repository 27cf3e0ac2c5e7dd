"""Tests for regproxy.tls.authority."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.authority import CertificateAuthority, Leaf
from regproxy.tls.errors import CAError
from tests.support.certificates import Identity, make_ca, rsa_key

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = 365 * DAY


def authority(*chain: Identity) -> CertificateAuthority:
    return CertificateAuthority(chain[0].key, tuple(link.certificate for link in chain))


def common_name(certificate: x509.Certificate) -> str:
    [attribute] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


class CreateTests(SynchronousTestCase):
    """The authority made at first start."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "ca"
        self.ca = CertificateAuthority.load_or_create(self.directory, now=NOW)

    def test_key_and_life(self) -> None:
        self.assertIsInstance(self.ca.key, ec.EllipticCurvePrivateKey)
        self.assertEqual(self.ca.key.key_size, 256)
        certificate = self.ca.certificate
        self.assertEqual(certificate.not_valid_before_utc, NOW - 2 * DAY)
        self.assertEqual(certificate.not_valid_after_utc, NOW + 3650 * DAY)

    def test_extensions(self) -> None:
        extensions = self.ca.certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(constraints.critical)
        self.assertTrue(constraints.value.ca)
        # Room for an intermediate below it, and no more.
        self.assertEqual(constraints.value.path_length, 1)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        self.assertTrue(usage.critical)
        self.assertTrue(usage.value.key_cert_sign and usage.value.crl_sign)
        self.assertFalse(usage.value.digital_signature)
        own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        above = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        self.assertEqual(above.key_identifier, own.digest)

    def test_two_authorities_differ_in_name(self) -> None:
        other = CertificateAuthority.load_or_create(Path(self.mktemp()), now=NOW)
        self.assertNotEqual(common_name(self.ca.certificate), common_name(other.certificate))
        self.assertIn("regproxy", common_name(other.certificate))

    def test_is_kept(self) -> None:
        again = CertificateAuthority.load_or_create(self.directory, now=NOW + YEAR)
        self.assertEqual(again.certificate, self.ca.certificate)
        self.assertEqual(again.certificate_pem, (self.directory / "ca.crt").read_bytes())

    def test_expired(self) -> None:
        later = NOW + 3650 * DAY
        with self.assertRaisesRegex(CAError, r"ca\.crt.*regproxy CA.*expired on 2036"):
            CertificateAuthority.load_or_create(self.directory, now=later)


class IssueTests(SynchronousTestCase):
    """Leaves."""

    def setUp(self) -> None:
        self.root = make_ca("Root", not_before=NOW - YEAR, not_after=NOW + YEAR)
        self.ca = authority(self.root)

    def issue(self, *names: str) -> Leaf:
        return self.ca.issue(names or ("registry.example.com",), NOW)

    def test_life(self) -> None:
        leaf = self.issue()
        self.assertEqual(leaf.not_before, NOW - 2 * DAY)
        # Both seconds at the ends count: 47 days are not exceeded.
        one_second = timedelta(seconds=1)
        self.assertEqual(leaf.not_after - leaf.not_before + one_second, 47 * DAY)

    def test_never_outside_the_authoritys_life(self) -> None:
        self.ca = authority(make_ca(not_before=NOW - DAY, not_after=NOW + DAY))
        leaf = self.issue()
        self.assertEqual((leaf.not_before, leaf.not_after), (NOW - DAY, NOW + DAY))

    def test_expired_authority(self) -> None:
        self.ca = authority(make_ca(not_before=NOW - YEAR, not_after=NOW))
        with self.assertRaisesRegex(CAError, "expired on 2026-05-04.*registry.example.com"):
            self.issue()

    def test_signed_by_the_authority(self) -> None:
        leaf = self.issue()
        leaf.certificate.verify_directly_issued_by(self.root.certificate)
        self.assertEqual(leaf.chain, ())
        above = leaf.certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        own = self.root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        self.assertEqual(above.value.key_identifier, own.value.digest)

    def test_signed_by_an_rsa_authority(self) -> None:
        root = make_ca(key=rsa_key(), not_before=NOW - YEAR, not_after=NOW + YEAR)
        self.ca = authority(root)
        leaf = self.issue()
        leaf.certificate.verify_directly_issued_by(root.certificate)
        self.assertIsInstance(leaf.certificate.signature_hash_algorithm, hashes.SHA256)
        self.assertIsInstance(leaf.key, ec.EllipticCurvePrivateKey)

    def test_for_servers_only(self) -> None:
        extensions = self.issue().certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertFalse(constraints.value.ca)
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        self.assertEqual(list(extended.value), [ExtendedKeyUsageOID.SERVER_AUTH])
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        self.assertTrue(usage.digital_signature)
        self.assertFalse(usage.key_cert_sign)

    def test_own_key_and_serial_each_time(self) -> None:
        one, other = self.issue(), self.issue()
        self.assertNotEqual(one.certificate.serial_number, other.certificate.serial_number)
        self.assertGreater(one.certificate.serial_number.bit_length(), 64)
        self.assertNotEqual(one.key.private_numbers(), other.key.private_numbers())
        self.assertEqual(one.certificate.public_key(), one.key.public_key())

    def test_host_name(self) -> None:
        certificate = self.issue("registry.example.com").certificate
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(list(names.value), [x509.DNSName("registry.example.com")])
        self.assertFalse(names.critical)
        self.assertEqual(common_name(certificate), "registry.example.com")

    def test_long_host_name(self) -> None:
        name = f"{'a' * 63}.dkr.ecr.eu-west-1.amazonaws.com"
        certificate = self.issue(name).certificate
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(list(names.value), [x509.DNSName(name)])
        self.assertTrue(names.critical)
        self.assertEqual(len(certificate.subject), 0)

    def test_addresses(self) -> None:
        for text in ("192.0.2.7", "2001:db8::7"):
            names = self.issue(text).certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            self.assertEqual(list(names.value), [x509.IPAddress(ip_address(text))])

    def test_several(self) -> None:
        certificate = self.issue("proxy.example.com", "192.0.2.7").certificate
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(
            list(names.value),
            [x509.DNSName("proxy.example.com"), x509.IPAddress(ip_address("192.0.2.7"))],
        )
        self.assertEqual(common_name(certificate), "proxy.example.com")

    def test_no_such_name(self) -> None:
        for name in (
            "", "*.example.com", "*", "a b", "a..b", ".a", "a.", "UPPER.example", "a:443",
            "bücher.example", "a\0b", "a\nb", "x" * 64, f"{'a.' * 127}a", "[::1]", "a/b",
        ):  # fmt: skip
            self.assertRaises(ValueError, self.issue, name)
            self.assertRaises(ValueError, self.issue, "a.example", name)

    def test_intermediate(self) -> None:
        middle = make_ca("Middle", issuer=self.root, not_before=NOW - DAY, not_after=NOW + YEAR)
        lower = make_ca("Lower", issuer=middle, not_before=NOW - DAY, not_after=NOW + YEAR)
        self.ca = authority(lower, middle, self.root)
        leaf = self.issue()
        leaf.certificate.verify_directly_issued_by(lower.certificate)
        self.assertEqual(leaf.chain, (lower.certificate, middle.certificate))
        self.assertEqual(
            self.ca.certificate_pem,
            self.root.certificate_pem + middle.certificate_pem + lower.certificate_pem,
        )

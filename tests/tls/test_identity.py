"""Tests for regproxy.tls.identity."""

from __future__ import annotations

from ipaddress import ip_address

from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.identity import CertifiedNames
from tests.support.certificates import make_ca, make_leaf

LABELS = st.from_regex(r"[a-z0-9_-]{1,10}", fullmatch=True)
HOSTS = (
    st.lists(LABELS, min_size=2, max_size=5)
    .map(".".join)
    .filter(lambda host: not host.rpartition(".")[2].isdigit())
)


def names(*dns: str, ips: tuple[str, ...] = ()) -> CertifiedNames:
    return CertifiedNames(dns, tuple(ip_address(ip) for ip in ips))


class CoverTests(SynchronousTestCase):
    """RFC 9525, rule by rule."""

    def covers(self, host: str, *dns: str, ips: tuple[str, ...] = ()) -> bool:
        return names(*dns, ips=ips).cover(host)

    def test_exact_name(self) -> None:
        self.assertTrue(self.covers("registry.example.com", "other.test", "registry.example.com"))
        self.assertFalse(self.covers("registry.example.com", "example.com"))
        self.assertFalse(self.covers("example.com", "registry.example.com"))

    def test_wildcard_is_one_label(self) -> None:
        self.assertTrue(self.covers("eu.example.com", "*.example.com"))
        self.assertTrue(self.covers("xn--bcher-kva.example.com", "*.example.com"))
        self.assertFalse(self.covers("a.eu.example.com", "*.example.com"))
        self.assertFalse(self.covers("example.com", "*.example.com"))
        self.assertFalse(self.covers(".example.com", "*.example.com"))

    def test_wildcard_is_the_whole_left_most_label(self) -> None:
        for pattern in ("f*.example.com", "*o.example.com", "foo.*.com", "**.example.com"):
            self.assertFalse(self.covers("foo.example.com", pattern), pattern)

    def test_wildcard_needs_two_labels_after_it(self) -> None:
        for pattern in ("*", "*.", "*.com", "*.*", "*.*.com", "*.com."):
            self.assertFalse(self.covers("example.com", pattern), pattern)

    def test_address_needs_an_address(self) -> None:
        self.assertTrue(self.covers("192.0.2.1", ips=("192.0.2.1",)))
        self.assertTrue(self.covers("2001:db8::1", ips=("2001:db8::1",)))
        self.assertFalse(self.covers("192.0.2.1", ips=("192.0.2.2",)))
        self.assertFalse(self.covers("192.0.2.1", "192.0.2.1"))
        self.assertFalse(self.covers("192.0.2.1", "*.0.2.1"))
        self.assertFalse(self.covers("192.0.2.1", ips=("::ffff:192.0.2.1",)))

    def test_name_needs_a_name(self) -> None:
        self.assertFalse(self.covers("registry.example.com", ips=("192.0.2.1",)))

    def test_a_bad_name_spoils_no_other(self) -> None:
        self.assertTrue(self.covers("192.0.2.1", "192.0.2.1", "*.*", ips=("192.0.2.1",)))
        self.assertTrue(self.covers("registry.example.com", "*", "", "registry.example.com"))

    def test_nul_does_not_end_a_name(self) -> None:
        self.assertFalse(self.covers("example.com", "example.com\0.attacker.test"))

    def test_nothing_covers_nothing(self) -> None:
        self.assertFalse(names().cover("example.com"))
        self.assertFalse(names("").cover("example.com"))

    @given(HOSTS)
    def test_a_host_is_covered_by_itself(self, host: str) -> None:
        self.assertTrue(names(host).cover(host))

    @given(HOSTS, HOSTS)
    def test_only_by_itself(self, host: str, other: str) -> None:
        self.assertEqual(names(other).cover(host), host == other)

    @given(HOSTS, HOSTS)
    def test_wildcard_covers_siblings_only(self, host: str, parent: str) -> None:
        covered = names(f"*.{parent}").cover(host)
        self.assertEqual(covered, host.split(".")[1:] == parent.split("."))


class OfTests(SynchronousTestCase):
    """Reading certificates."""

    def test_names_and_addresses(self) -> None:
        leaf = make_leaf(make_ca(), ["A.example.COM"], ["192.0.2.1", "2001:db8::1"])
        read = CertifiedNames.of(leaf.certificate)
        self.assertEqual(read, names("a.example.com", ips=("192.0.2.1", "2001:db8::1")))
        self.assertEqual(str(read), "a.example.com, 192.0.2.1, 2001:db8::1")

    def test_common_name_does_not_count(self) -> None:
        leaf = make_leaf(make_ca(), cn="registry.example.com")
        self.assertEqual(CertifiedNames.of(leaf.certificate), names())

    def test_undecodable(self) -> None:
        leaf = make_leaf(
            make_ca(),
            extensions=[
                x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x05junk")
            ],
        )
        self.assertRaises(ValueError, CertifiedNames.of, leaf.certificate)

    def test_text_is_short_and_printable(self) -> None:
        self.assertEqual(str(names("a\x1b[31m")), "a\\x1b[31m")
        self.assertEqual(str(names(*"abcdefgh")), "a, b, c, d, e, ...")

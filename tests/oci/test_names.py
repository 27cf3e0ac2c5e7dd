"""Tests of regproxy.oci.names."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.errors import (
    BlobDigestInvalid,
    DigestUnsupported,
    HostInvalid,
    NameInvalid,
    RegistryError,
    TagInvalid,
)
from regproxy.oci.names import DOCKER_HUB, Digest, Host, Reference, Repository, Tag, parse_reference
from tests.oci.strategies import hosts, references, repositories


class HostTests(SynchronousTestCase):
    """Host"""

    def test_parse(self) -> None:
        """Names, addresses and ports."""
        for text, host in {
            "ghcr.io": Host("ghcr.io", 443),
            "GHCR.io.": Host("ghcr.io", 443),
            "ghcr.io:443": Host("ghcr.io", 443),
            "localhost:5000": Host("localhost", 5000),
            "127.0.0.1:5000": Host("127.0.0.1", 5000),
            "[::1]": Host("::1", 443),
            "[0:0::1]:5000": Host("::1", 5000),
            "::1": Host("::1", 443),
            "my_host-1": Host("my_host-1", 443),
        }.items():
            self.assertEqual(Host.parse(text), host, text)
        self.assertEqual(Host.parse("a", default_port=80), Host("a", 80))

    def test_refused(self) -> None:
        """What is no host, or would be another one to another reader."""
        for text in (
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a/b",
            "a@b",
            "a:",
            "a:0",
            "a:65536",
            "a:1:2",
            "a:+1",
            "a:\u0661",
            "é",
            "\u212a8s.io",
            "127.1",
            "0x7f.1",
            "010.0.0.1",
            "1.2.3.256",
            "[::1",
            "[::1]5000",
            "[::1%eth0]",
            "fe80::1%eth0",
            "[127.0.0.1]",
            "[a.example]",
            "[]",
            "a" * 64,
            ".".join(["a" * 63] * 5),
            "a\n",
        ):
            self.assertRaises(HostInvalid, Host.parse, text)

    def test_forms(self) -> None:
        """The port is left out when it is the usual one, except of an authority."""
        self.assertEqual(str(Host("a")), "a")
        self.assertEqual(str(Host("a", 80)), "a:80")
        self.assertEqual(str(Host("::1")), "[::1]")
        self.assertEqual(str(Host("::1", 80)), "[::1]:80")
        self.assertEqual(Host("a").authority, "a:443")
        self.assertEqual(Host("::1").authority, "[::1]:443")

    def test_docker_hub(self) -> None:
        """Its names are one registry, on the usual port only."""
        for name in ("docker.io", "index.docker.io", DOCKER_HUB):
            self.assertEqual(Host.parse(name).canonical, Host(DOCKER_HUB))
        self.assertEqual(Host("docker.io", 80).canonical, Host("docker.io", 80))

    def test_is_address(self) -> None:
        """Literal addresses of both families."""
        self.assertTrue(Host("::1").is_address)
        self.assertTrue(Host("1.2.3.4").is_address)
        self.assertFalse(Host("a.example").is_address)

    @given(hosts)
    def test_round_trip(self, host: Host) -> None:
        """Both written forms are read back."""
        self.assertEqual(Host.parse(str(host)), host)
        self.assertEqual(Host.parse(host.authority), host)

    @given(st.ip_addresses(), st.integers(1, 65535))
    def test_addresses(self, address: IPv4Address | IPv6Address, port: int) -> None:
        """However an address is written, it is one host."""
        text = f"[{address.exploded}]" if address.version == 6 else str(address)
        self.assertEqual(Host.parse(f"{text}:{port}"), Host(address.compressed, port))

    @given(st.text())
    def test_arbitrary(self, text: str) -> None:
        """Any text is a stable host or refused."""
        try:
            host = Host.parse(text)
        except HostInvalid:
            return
        self.assertEqual(Host.parse(str(host)), host)


class RepositoryTests(SynchronousTestCase):
    """Repository"""

    def test_good(self) -> None:
        """The separators of the grammar."""
        for text in ("a", "library/debian", "a.b_c__d---e/0", "a" * 255):
            self.assertEqual(str(Repository.parse(text)), text)

    def test_refused(self) -> None:
        """What breaks it."""
        for text in ("", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "_a", "a-", "a\n", "é"):
            self.assertRaises(NameInvalid, Repository.parse, text)
        self.assertRaises(NameInvalid, Repository.parse, "a" * 256)

    @given(repositories)
    def test_generated(self, repository: Repository) -> None:
        """Every generated one is read back."""
        self.assertEqual(Repository.parse(str(repository)), repository)


class ReferenceTests(SynchronousTestCase):
    """Tag, Digest and parse_reference"""

    def test_tag(self) -> None:
        """The first character is no separator; 128 are the most."""
        for text in ("latest", "_x", "1.0-rc.1", "x" * 128):
            self.assertEqual(parse_reference(text), Tag(text))
        for text in ("", ".x", "-x", "x" * 129, "a b", "a\n", "é", "a+b"):
            self.assertRaises(TagInvalid, parse_reference, text)

    def test_digest(self) -> None:
        """Of content, with either algorithm."""
        for algorithm, length in (("sha256", 64), ("sha512", 128)):
            digest = Digest.of(b"content", algorithm)
            self.assertEqual(len(digest.hex), length)
            self.assertEqual(parse_reference(str(digest)), digest)

    def test_refused_digests(self) -> None:
        """Grammar and length."""
        for text in (
            ":",
            "sha256:",
            "sha256:" + "a" * 63,
            "sha256:" + "A" * 64,
            "sha256:" + "g" * 64,
            "sha512:" + "a" * 64,
            "SHA256:" + "a" * 64,
            "sha256:" + "a" * 64 + "\n",
            "a:b:c",
        ):
            error = self.assertRaises(BlobDigestInvalid, parse_reference, text)
            self.assertNotIsInstance(error, DigestUnsupported)

    def test_unsupported_digests(self) -> None:
        """Another algorithm is told apart."""
        for text in ("blake3:" + "a" * 64, "sha256+b64:Zm9v", "md5:0"):
            self.assertRaises(DigestUnsupported, Digest.parse, text)

    @given(references)
    def test_generated(self, reference: Reference) -> None:
        """Every generated one is read back."""
        self.assertEqual(parse_reference(str(reference)), reference)

    @given(st.text())
    def test_arbitrary(self, text: str) -> None:
        """Any text is a reference that is written the same, or an error for the client."""
        try:
            reference = parse_reference(text)
        except RegistryError as error:
            self.assertEqual(error.status, 400)
        else:
            self.assertEqual(str(reference), text)

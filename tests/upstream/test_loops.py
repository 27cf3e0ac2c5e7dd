"""Tests of regproxy.upstream.loops."""

from __future__ import annotations

import socket
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import (
    Config,
    DNSSection,
    HostPattern,
    InterceptionSection,
    RegistrySection,
    TLSSection,
)
from regproxy.config.wayout import ParentProxy, UpstreamSection
from regproxy.oci.names import Host
from regproxy.upstream.loops import OwnPlaces, find_loops, is_local
from tests.support.memory_network import MemoryNetwork

#: Of documentation networks (RFC 5737, RFC 3849): nobody's.
FOREIGN = ("192.0.2.1", "2001:db8::1")


class IsLocalTests(SynchronousTestCase):
    """is_local, on this machine"""

    def test_loopback(self) -> None:
        for address in ("127.0.0.1", "127.9.8.7", "::1"):
            self.assertTrue(is_local(address), address)

    def test_own(self) -> None:
        """The address from which this machine would speak to another one, if it can."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((FOREIGN[0], 9))
            except OSError:
                self.skipTest("no network but the loopback")
            self.assertTrue(is_local(probe.getsockname()[0]))

    def test_foreign(self) -> None:
        """Also what cannot be connected to at all."""
        for address in (*FOREIGN, "255.255.255.255", "224.0.0.1"):
            self.assertFalse(is_local(address), address)


class OwnPlacesTests(SynchronousTestCase):
    """OwnPlaces"""

    def setUp(self) -> None:
        self.places = OwnPlaces()

    def test_exact(self) -> None:
        """One address, one port."""
        self.places.add("192.0.2.1", 443)
        self.assertTrue(self.places.holds("192.0.2.1", 443))
        self.assertTrue(self.places.holds("::ffff:192.0.2.1", 443))
        for address, port in (("192.0.2.1", 5000), ("192.0.2.2", 443), ("127.0.0.1", 443)):
            self.assertFalse(self.places.holds(address, port))

    def test_spelling(self) -> None:
        self.places.add("2001:db8:0:0::1", 443)
        self.assertTrue(self.places.holds("2001:db8::1", 443))

    def test_everywhere(self) -> None:
        """All addresses of this machine, at that port, and none of others."""
        for unspecified in ("0.0.0.0", "::"):
            self.places = OwnPlaces()
            self.places.add(unspecified, 443)
            self.assertTrue(self.places.holds("127.0.0.1", 443))
            self.assertTrue(self.places.holds("::ffff:127.0.0.1", 443))
            self.assertFalse(self.places.holds("127.0.0.1", 5000))
            for address in FOREIGN:
                self.assertFalse(self.places.holds(address, 443))


class FindLoopsTests(SynchronousTestCase):
    """find_loops"""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.config = Config(
            Path("/data"),
            tls=TLSSection(("tcp:443",)),
            interception=InterceptionSection(
                tuple(map(HostPattern.parse, ("ghcr.io", "*.pkg.dev", "ported.example:5000")))
            ),
            registries={
                Host("own.example"): RegistrySection(
                    upstream=("https://mirror.example/prefix", "https://own.example:8443")
                ),
                Host("docker.io").canonical: RegistrySection(),
            },
        )
        self.network.names.update({"ghcr.io": ["1.1.1.1"], "own.example": ["10.0.0.5"]})

    def own(self, address: str, port: int) -> bool:
        return address in ("10.0.0.5", "fd00::5") and port in (443, 53)

    def find(self) -> list[str]:
        finding = find_loops(self.network.nameResolver, self.config, self.own)
        return self.successResultOf(Deferred.fromCoroutine(finding))

    def test_none(self) -> None:
        """Not at that port, not by that name, or the name does not resolve at all."""
        self.assertEqual(self.find(), [])

    def test_found(self) -> None:
        """What is wrong, and what to do."""
        self.network.names["ghcr.io"] = ["1.1.1.1", "fd00::5"]
        (loop,) = self.find()
        self.assertRegex(loop, r"^ghcr\.io leads back to this proxy: .* gives fd00::5\. ")
        self.assertIn("dns.upstream_resolvers", loop)

    def test_all(self) -> None:
        """Every server of every registry whose name is known."""
        names = "ghcr.io", "mirror.example", "registry-1.docker.io", "ported.example"
        self.network.names.update({name: ["10.0.0.5"] for name in names})
        self.assertEqual(
            [loop.split()[0] for loop in self.find()],
            ["ghcr.io", "mirror.example", "registry-1.docker.io"],
        )

    def test_parent(self) -> None:
        """What a parent proxy looks up does not lead here, whatever it is here."""
        self.network.names["ghcr.io"] = ["10.0.0.5"]
        for url, loops in ("http://10.0.0.1:3128", 0), ("socks5://10.0.0.1:1080", 1):
            upstream = UpstreamSection(ParentProxy(url))
            self.config = evolve(self.config, upstream=upstream)
            self.assertEqual(len(self.find()), loops, url)
        upstream = UpstreamSection(ParentProxy("http://10.0.0.1:3128"), no_proxy=("ghcr.io",))
        self.config = evolve(self.config, upstream=upstream)
        self.assertEqual(len(self.find()), 1)

    def test_nobody_is_led_here(self) -> None:
        """Without a listener that a name could lead to, no name is looked up."""
        self.network.names["ghcr.io"] = ["10.0.0.5"]
        self.config = evolve(self.config, tls=TLSSection())
        self.assertEqual(self.find(), [])
        self.config = evolve(self.config, dns=DNSSection(listen=("10.0.0.9",)))
        self.assertEqual(len(self.find()), 1)

    def test_name_servers(self) -> None:
        """A name server that would ask itself, at an address that it has not by name."""
        self.config = evolve(
            self.config,
            dns=DNSSection(
                forward_to=("10.0.0.2", "10.0.0.5"), upstream_resolvers=("[fd00::5]", "10.0.0.5:54")
            ),
        )
        self.assertEqual(
            self.find(),
            [
                "dns.forward_to: the name server 10.0.0.5 is this proxy itself",
                "dns.upstream_resolvers: the name server [fd00::5] is this proxy itself",
            ],
        )

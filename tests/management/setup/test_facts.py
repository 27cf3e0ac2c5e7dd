"""Tests for :mod:`regproxy.management.setup.facts`."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import (
    Config,
    DNSSection,
    HostPattern,
    InterceptionSection,
    MirrorSection,
    ProxySection,
    RegistrySection,
    RelaySection,
)
from regproxy.management.setup.facts import Door, Facts, port_of
from regproxy.oci.names import Host

CONFIG = Config(data=Path("/nowhere"))


class FactsTests(SynchronousTestCase):
    """A configuration, seen from outside."""

    def test_defaults(self) -> None:
        """A proxy and nothing else; Docker Hub by the name that references have."""
        facts = Facts.of(CONFIG)
        self.assertEqual(facts.proxy_port, 3128)
        self.assertIsNone(facts.mirror)
        self.assertIsNone(facts.name_server)
        self.assertFalse(facts.plain_http)
        self.assertEqual(facts.registries.count(Host("docker.io")), 1)
        self.assertNotIn(Host("registry-1.docker.io"), facts.registries)
        self.assertIn(Host("ghcr.io"), facts.registries)
        self.assertEqual(facts.probe, "registry-1.docker.io")

    def test_patterns(self) -> None:
        """What has a star is the name of no registry."""
        self.assertNotIn("*", "".join(map(str, Facts.of(CONFIG).registries)))

    def test_ports(self) -> None:
        """Of every kind of description."""
        for listen, expected in (
            (("tcp:3129",), 3129),
            (("tcp6:port=3130:interface=\\:\\:1",), 3130),
            (("haproxy:tcp:3131",), 3131),
            (("ssl:3132:privateKey=/k:certKey=/c",), 3132),
            (("systemd:domain=INET:index=0", "tcp:3133"), 3133),
            (("systemd:domain=INET:index=0",), None),
            ((), None),
        ):
            self.assertEqual(port_of(listen), expected)
        config = evolve(CONFIG, proxy=ProxySection(listen=("tcp:8000",)))
        self.assertEqual(Facts.of(config).proxy_port, 8000)

    def test_only_tls(self) -> None:
        """As a site has it whose clients come by TLS: its own programs have a port without."""
        listen = ("tcp:3128:interface=127.0.0.1", "ssl:3129:privateKey=/k:certKey=/c")
        facts = Facts.of(evolve(CONFIG, proxy=ProxySection(listen=listen)))
        self.assertEqual(facts.proxy_port, 3129)
        self.assertEqual(facts.url(Host("p.example.net", 3129)), "https://p.example.net:3129")
        self.assertEqual(facts.url(Host("p.example.net", 3128)), "http://p.example.net:3128")
        self.assertEqual(Facts.of(CONFIG).tls_ports, frozenset())

    def test_mirror(self) -> None:
        """With TLS or without."""
        for listen, door in (
            ("tcp:5000", Door("http", 5000)),
            ("ssl:5001:privateKey=/k:certKey=/c", Door("https", 5001)),
        ):
            config = evolve(CONFIG, mirror=MirrorSection(listen=(listen,)))
            self.assertEqual(Facts.of(config).mirror, door)

    def test_name_server(self) -> None:
        """Where it listens; what names answer with, if it listens everywhere; at port 53 only."""
        for listen, expected in (
            ("10.0.0.5:53", "10.0.0.5"),
            ("[fd00::5]", "fd00::5"),
            ("0.0.0.0:53", "10.0.0.9"),
            ("10.0.0.5:5353", None),
        ):
            section = DNSSection(listen=(listen,), addresses=("10.0.0.9",), authoritative=True)
            self.assertEqual(Facts.of(evolve(CONFIG, dns=section)).name_server, expected)

    def test_plain_http(self) -> None:
        """Requests without TLS are for the proxy if it has use for them."""
        host = Host("registry.example.net", 5000)
        plain = evolve(CONFIG, registries={host: RegistrySection(plain_http=True)})
        self.assertTrue(Facts.of(plain).plain_http)
        self.assertTrue(Facts.of(evolve(CONFIG, relay=RelaySection(allow_http=True))).plain_http)

    def test_probe(self) -> None:
        """A registry that can be asked by its name at port 443."""
        for patterns, expected in (
            (("*.example.net",), None),
            (("registry.example.net:5000", "10.0.0.7"), None),
            (("registry.example.net:5000", "b.example.net", "c.example.net"), "b.example.net"),
            (("b.example.net", "registry-1.docker.io"), "registry-1.docker.io"),
        ):
            hosts = tuple(map(HostPattern.parse, patterns))
            config = evolve(CONFIG, interception=InterceptionSection(hosts=hosts))
            self.assertEqual(Facts.of(config).probe, expected)

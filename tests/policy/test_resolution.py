"""Tests of regproxy.policy.resolution."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import (
    Config,
    DNSSection,
    HostPattern,
    InterceptionSection,
    RegistrySection,
    TLSSection,
)
from regproxy.dns.message import Question, Type
from regproxy.oci.names import Host
from regproxy.policy.resolution import (
    Forward,
    Own,
    Refuse,
    Resolution,
    ResolutionRules,
    ServerAddress,
)

CONFIG = Config(
    Path("/data"),
    dns=DNSSection(addresses=("10.0.0.6", "10.0.0.5", "fd00::5")),
    interception=InterceptionSection(
        (
            HostPattern.parse("ghcr.io"),
            HostPattern.parse("*.ecr.*.example"),
            HostPattern.parse("ported.example:5000"),
        )
    ),
    registries={
        Host("registry-1.docker.io"): RegistrySection(),
        Host("own.example", 5000): RegistrySection(),
    },
)
CLIENT = "10.1.2.3"
V4 = (ip_address("10.0.0.6"), ip_address("10.0.0.5"))
V6 = (ip_address("fd00::5"),)

#: Everything but addresses; HTTPS and SVCB (RFC 9460) could lead a client elsewhere.
OTHER_TYPES = (2, 5, 6, 12, 15, 16, 33, 35, 39, 43, 48, 64, 65, 255, 256, 257, 65280)


class ServerAddressTests(SynchronousTestCase):
    """ServerAddress"""

    def test_parse(self) -> None:
        for text, expected in {
            "10.0.0.5": ServerAddress("10.0.0.5"),
            "10.0.0.5:53": ServerAddress("10.0.0.5"),
            "10.0.0.5:5353": ServerAddress("10.0.0.5", 5353),
            "fd00::5": ServerAddress("fd00::5"),
            "FD00:0:0::5": ServerAddress("fd00::5"),
            "[fd00::5]": ServerAddress("fd00::5"),
            "[fd00::5]:65535": ServerAddress("fd00::5", 65535),
        }.items():
            self.assertEqual(ServerAddress.parse(text), expected, text)

    def test_invalid(self) -> None:
        for text in (
            "",
            "localhost",
            "localhost:53",
            "10.0.0",
            "10.0.0.5:",
            "10.0.0.5:x",
            "10.0.0.5:0",
            "10.0.0.5:65536",
            "10.0.0.5:053535",
            "10.0.0.5/32",
            "[fd00::5",
            "[fd00::5]53",
            "fd00::5]:53",
            "tcp:53",
        ):
            with self.assertRaisesRegex(ValueError, "expected an? (address|port)", msg=text):
                ServerAddress.parse(text)

    @given(st.builds(ServerAddress, st.ip_addresses().map(str), st.integers(1, 65535)))
    def test_round_trip(self, server: ServerAddress) -> None:
        self.assertEqual(ServerAddress.parse(str(server)), server)


class ResolutionTests(SynchronousTestCase):
    """ResolutionRules"""

    def decide(
        self,
        name: str,
        type: int = Type.A,
        *,
        client: str = CLIENT,
        recursion: bool = True,
        authoritative: bool = False,
        cls: int = 1,
    ) -> Resolution:
        config = evolve(CONFIG, dns=evolve(CONFIG.dns, authoritative=authoritative))
        question = Question(Question.about(name, type).name, type, cls)
        return ResolutionRules.of(config).decide(client, question, recursion_desired=recursion)

    def test_addresses(self) -> None:
        """In the order of the configuration."""
        for name in (
            "ghcr.io",
            "GHCR.IO",
            "registry-1.docker.io",
            "docker.io",
            "index.docker.io",
            "1.ecr.eu.example",
        ):
            self.assertEqual(self.decide(name), Own(V4), name)
            self.assertEqual(self.decide(name, Type.AAAA), Own(V6), name)

    def test_other_types(self) -> None:
        """There is nothing else at such a name."""
        for type in OTHER_TYPES:
            self.assertEqual(self.decide("ghcr.io", type), Own(()))

    def test_one_family(self) -> None:
        """An appliance with IPv4 only has no IPv6 addresses, rather than those of the registry."""
        config = evolve(CONFIG, dns=DNSSection(addresses=("10.0.0.5",)))
        question = Question.about("ghcr.io", Type.AAAA)
        decision = ResolutionRules.of(config).decide(CLIENT, question, recursion_desired=True)
        self.assertEqual(decision, Own(()))

    def test_other_names(self) -> None:
        """Also those above and below, and those that are intercepted at other ports only."""
        for name in (
            "example",
            "a.ghcr.io",
            "io",
            "ecr.eu.example",
            "own.example",
            "ported.example",
        ):
            for type in (Type.A, Type.AAAA, *OTHER_TYPES):
                self.assertEqual(self.decide(name, type), Forward(), name)
                refused = self.decide(name, type, authoritative=True)
                self.assertEqual(refused, Refuse("not a name that leads here"), name)

    def test_other_ports(self) -> None:
        """A registry at another port is led here if there is a listener at that port, too."""
        question = Question.about("own.example", Type.A)
        for endpoint, leads in {
            "tcp:5000": True,
            "tcp6:5000:interface=\\:\\:1": True,
            "haproxy:tcp:port=5000:interface=10.0.0.5": True,
            "tcp:interface=10.0.0.5:port=5000": True,
            "tcp:50000": False,
            "tcp:443:backlog=5000": False,
            "unix:/run/5000": False,
        }.items():
            for section in (
                TLSSection(listen=("tcp:443", endpoint)),
                TLSSection(listen=("tcp:443",), http_listen=(endpoint,)),
            ):
                rules = ResolutionRules.of(evolve(CONFIG, tls=section))
                decision = rules.decide(CLIENT, question, recursion_desired=True)
                self.assertEqual(decision, Own(V4) if leads else Forward(), endpoint)

    def test_no_host_name(self) -> None:
        """A label with a dot in it is another name, whatever it looks like."""
        question = Question(b"\x07ghcr.io\0", Type.A)
        decision = ResolutionRules.of(CONFIG).decide(CLIENT, question, recursion_desired=True)
        self.assertEqual(decision, Forward())

    def test_authoritative(self) -> None:
        """Names that lead here are answered all the same, with recursion or without."""
        for authoritative in (True, False):
            for recursion in (True, False):
                decision = self.decide("ghcr.io", authoritative=authoritative, recursion=recursion)
                self.assertEqual(decision, Own(V4))

    def test_recursion_not_desired(self) -> None:
        self.assertEqual(
            self.decide("a.example", recursion=False), Refuse("recursion was not desired")
        )

    def test_clients(self) -> None:
        """Only whoever is listed, for whatever name; by default the private networks."""
        for client in (
            "127.0.0.1",
            "10.255.255.255",
            "172.31.0.1",
            "192.168.1.1",
            "::1",
            "fd12::1",
            "::ffff:10.0.0.1",
        ):
            self.assertEqual(self.decide("ghcr.io", client=client), Own(V4), client)
            self.assertEqual(self.decide("a.example", client=client), Forward(), client)
        for client in ("8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "fe80::1%eth0"):
            for name in ("ghcr.io", "a.example"):
                self.assertEqual(self.decide(name, client=client), Refuse("not a client"), client)

    def test_classes_and_types(self) -> None:
        """No other networks, no transfers of zones, no keys."""
        refused = Refuse("not a question that is answered")
        for name in ("ghcr.io", "a.example"):
            for cls in (0, 3, 4, 254, 255):
                self.assertEqual(self.decide(name, cls=cls), refused)
            for type in (Type.AXFR, Type.IXFR, Type.OPT, Type.TSIG, Type.TKEY):
                self.assertEqual(self.decide(name, type), refused)

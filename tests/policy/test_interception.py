"""Tests for :mod:`regproxy.policy.interception`."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import (
    Config,
    HostPattern,
    InterceptionSection,
    RegistrySection,
    TLSSection,
)
from regproxy.oci.names import Host
from regproxy.policy.interception import (
    OTHER,
    Decision,
    Intercept,
    Refuse,
    Tunnel,
    counted_as,
    decide,
    decide_by_name,
)

CONFIG = Config(
    data=Path("data"),
    interception=InterceptionSection(hosts=(HostPattern.parse("*.example.org"),)),
    registries={
        Host("registry.example.com", 5000): RegistrySection(),
        Host("registry-1.docker.io"): RegistrySection(),
    },
)


class DecideTests(SynchronousTestCase):
    """What becomes of a CONNECT."""

    config = CONFIG

    def test_section(self) -> None:
        """A host with a section of its own is intercepted, at that port only."""
        host = Host("registry.example.com", 5000)
        self.assertEqual(decide(self.config, host), Intercept(host))
        other = Host("registry.example.com")
        self.assertEqual(decide(self.config, other), Tunnel(other))

    def test_pattern(self) -> None:
        """So is one that a pattern names."""
        host = Host("quay.example.org")
        self.assertEqual(decide(self.config, host), Intercept(host))

    def test_alias_keeps_its_name(self) -> None:
        """An alias of a known registry is intercepted under the name the client used."""
        self.assertEqual(decide(self.config, Host("docker.io")), Intercept(Host("docker.io")))

    def test_others(self) -> None:
        """Everything else is tunnelled, addresses included."""
        for host in (Host("example.net"), Host("127.0.0.1"), Host("example.org")):
            self.assertEqual(decide(self.config, host), Tunnel(host))


class DecideByNameTests(SynchronousTestCase):
    """What becomes of TLS that comes without a CONNECT."""

    def decide(
        self, name: str | None, passthrough: bool = False, default: str | None = None
    ) -> Decision | Refuse:
        """With these settings."""
        registry = None if default is None else Host(default)
        section = TLSSection(passthrough=passthrough, default_registry=registry)
        return decide_by_name(evolve(CONFIG, tls=section), name)

    def test_intercepted(self) -> None:
        """By section or pattern, whatever its port: the handshake does not say it."""
        for name in ("registry.example.com", "quay.example.org", "docker.io"):
            for passthrough in (True, False):
                self.assertEqual(
                    self.decide(name, passthrough), Intercept(Host(name), any_port=True)
                )

    def test_others(self) -> None:
        """They are refused, with a reason that names them, or passed on if that is wanted."""
        refused = self.decide("example.net", default="docker.io")
        assert isinstance(refused, Refuse)
        self.assertIn("example.net", refused.reason)
        self.assertEqual(self.decide("example.net", passthrough=True), Tunnel(Host("example.net")))

    def test_no_name(self) -> None:
        """There is nowhere to pass it on to."""
        for passthrough in (True, False):
            self.assertIsInstance(self.decide(None, passthrough), Refuse)
            default = Intercept(Host("docker.io"))
            self.assertEqual(self.decide(None, passthrough, "docker.io"), default)


class CountedAsTests(SynchronousTestCase):
    """counted_as"""

    config = Config(
        data=Path("data"),
        interception=InterceptionSection(
            tuple(map(HostPattern.parse, ("quay.io", "docker.io", "*.example.org", "*.dev:5000")))
        ),
        registries={
            Host("registry.example.com", 5000): RegistrySection(),
            Host("team.example.org"): RegistrySection(),
        },
    )

    def test_names(self) -> None:
        """Hosts that are named are counted by their names, others of a pattern by the pattern."""
        for host, name in {
            Host("registry.example.com", 5000): "registry.example.com:5000",
            Host("quay.io"): "quay.io",
            Host("docker.io"): "registry-1.docker.io",
            Host("registry-1.docker.io"): "registry-1.docker.io",
            Host("team.example.org"): "team.example.org",
            Host("a.example.org"): "*.example.org",
            Host("b.c.example.org"): "*.example.org",
            Host("x.dev", 5000): "*.dev:5000",
            Host("x.dev"): OTHER,
            Host("registry.example.com"): OTHER,
            Host("quay.io", 8443): OTHER,
            Host("example.org"): OTHER,
            Host("127.0.0.1"): OTHER,
        }.items():
            self.assertEqual(counted_as(self.config, host), name)

"""Tests for :mod:`regproxy.policy.interception`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import Config, HostPattern, InterceptionSection, RegistrySection
from regproxy.oci.names import Host
from regproxy.policy.interception import Intercept, Tunnel, decide


class DecideTests(SynchronousTestCase):
    """What becomes of a CONNECT."""

    config = Config(
        data=Path("data"),
        interception=InterceptionSection(hosts=(HostPattern.parse("*.example.org"),)),
        registries={
            Host("registry.example.com", 5000): RegistrySection(),
            Host("registry-1.docker.io"): RegistrySection(),
        },
    )

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

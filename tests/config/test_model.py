"""Tests of regproxy.config.model."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import (
    Access,
    Auth,
    CacheSection,
    CASection,
    Config,
    HostPattern,
    InterceptionSection,
    LimitsSection,
    RegistryLimits,
    RegistrySection,
)
from regproxy.config.wayout import DIRECT, Family, Line, ParentProxy, UpstreamSection
from regproxy.oci.names import DOCKER_HUB, Host
from tests.oci.strategies import hosts

DATA = Path("/data")


class HostPatternTests(SynchronousTestCase):
    """HostPattern"""

    def test_matches(self) -> None:
        """A star stands for one or more characters; the port counts."""
        for pattern, good, bad in (
            ("GHCR.io", ["ghcr.io"], ["ghcr.io:5000", "a.ghcr.io", "ghcrxio"]),
            ("ghcr.io:5000", ["ghcr.io:5000"], ["ghcr.io"]),
            (
                "*.gcr.io",
                ["eu.gcr.io", "a.b.gcr.io"],
                ["gcr.io", "eugcr.io", "x.gcr.io.evil.example"],
            ),
            ("*-docker.pkg.dev", ["europe-docker.pkg.dev"], ["-docker.pkg.dev", "docker.pkg.dev"]),
            (
                "*.dkr.ecr.*.amazonaws.com",
                ["1.dkr.ecr.eu.amazonaws.com"],
                ["1.dkr.ecr.amazonaws.com"],
            ),
            ("*.example:5000", ["a.example:5000"], ["a.example"]),
            ("[::1]:5000", ["[::1]:5000"], ["[::1]"]),
        ):
            for text in good:
                self.assertTrue(HostPattern.parse(pattern).matches(Host(*_split(text))), text)
            for text in bad:
                self.assertFalse(HostPattern.parse(pattern).matches(Host(*_split(text))), text)

    def test_refused(self) -> None:
        """Patterns that would match everything or nothing."""
        for text in (
            "",
            "*",
            "*.",
            "*.*",
            "a b",
            "*.a/b",
            "a:",
            "*.a:",
            "*.a:0",
            "*.a:x",
            "*.a:1:2",
        ):
            self.assertRaises(ValueError, HostPattern.parse, text)

    @given(hosts)
    def test_host_is_a_pattern(self, host: Host) -> None:
        """Every host is the pattern for itself, and is written as one."""
        pattern = HostPattern.parse(str(host))
        self.assertTrue(pattern.matches(host))
        self.assertEqual(str(pattern), str(host))


def _split(text: str) -> tuple[str, int]:
    host = Host.parse(text) if not text.startswith("-") else Host(text)
    return host.name, host.port


class RegistrySectionTests(SynchronousTestCase):
    """The defaults that depend on credentials."""

    def test_defaults(self) -> None:
        """Credentials mean inject and shared, their absence forward and verify."""
        section = RegistrySection()
        self.assertEqual(section.effective_auth, Auth.FORWARD)
        self.assertEqual(section.effective_access, Access.VERIFY)
        section = RegistrySection(username="u", password="p")
        self.assertEqual(section.effective_auth, Auth.INJECT)
        self.assertEqual(section.effective_access, Access.SHARED)

    def test_explicit(self) -> None:
        """What is said counts."""
        for auth in (Auth.FORWARD, Auth.CLIENT_FIRST):
            section = RegistrySection(username="u", password="p", auth=auth)
            self.assertEqual(section.effective_auth, auth)
            self.assertEqual(section.effective_access, Access.VERIFY)
        section = RegistrySection(access=Access.SHARED)
        self.assertEqual(section.effective_access, Access.SHARED)

    def test_password_is_not_shown(self) -> None:
        """A repr may reach a log."""
        self.assertNotIn("secret", repr(RegistrySection(username="u", password="secret")))


class RegistryLimitsTests(SynchronousTestCase):
    """RegistryLimits"""

    def test_over(self) -> None:
        """What is said counts, the rest stays."""
        common = LimitsSection(connect=9.0, upstream_idle=8.0)
        self.assertEqual(RegistryLimits().over(common), common)
        limits = RegistryLimits(connect=1.0, upstream_rate=7).over(common)
        self.assertEqual((limits.connect, limits.upstream_idle), (1.0, 8.0))
        self.assertEqual(limits.upstream_rate, 7)


class LineTests(SynchronousTestCase):
    """Config.line: how connections go out"""

    parent = ParentProxy("http://10.0.0.1:3128")
    other = ParentProxy("socks5://10.0.0.2:1080")
    config = Config(
        DATA,
        limits=LimitsSection(connect=9.0),
        upstream=UpstreamSection(parent, ("a.b",), ("192.0.2.9",), Family.IPV4),
    )

    def test_common(self) -> None:
        self.assertEqual(
            self.config.line(RegistrySection()),
            Line(self.parent, ("a.b",), ("192.0.2.9",), Family.IPV4, 9.0),
        )

    def test_own(self) -> None:
        """Each key by itself; exceptions are from the common parent only."""
        section = RegistrySection(
            proxy=self.other,
            source_address=(),
            family=Family.ANY,
            limits=RegistryLimits(connect=2.0),
        )
        self.assertEqual(self.config.line(section), Line(self.other, (), (), Family.ANY, 2.0))
        self.assertEqual(self.config.line(RegistrySection(proxy=DIRECT)).proxy, DIRECT)


class ConfigTests(SynchronousTestCase):
    """Config"""

    def test_directories(self) -> None:
        """Below data unless they are set."""
        config = Config(DATA)
        self.assertEqual(config.cache_directory, DATA / "cache")
        self.assertEqual(config.ca_directory, DATA / "ca")
        config = Config(DATA, cache=CacheSection(Path("/c")), ca=CASection(Path("/k")))
        self.assertEqual(config.cache_directory, Path("/c"))
        self.assertEqual(config.ca_directory, Path("/k"))

    def test_intercepts(self) -> None:
        """Patterns, sections, and the other names of a section's registry."""
        config = Config(DATA)
        for name in ("ghcr.io", "docker.io", "auth.docker.io", "eu.gcr.io"):
            self.assertTrue(config.intercepts(Host(name)), name)
        self.assertFalse(config.intercepts(Host("ghcr.io", 5000)))
        config = Config(
            DATA,
            interception=InterceptionSection(()),
            registries={Host(DOCKER_HUB): RegistrySection()},
        )
        self.assertTrue(config.intercepts(Host("docker.io")))
        self.assertFalse(config.intercepts(Host("ghcr.io")))

    def test_intercepts_name(self) -> None:
        """Whatever the port is."""
        config = Config(
            DATA,
            interception=InterceptionSection((HostPattern.parse("*.example:5000"),)),
            registries={
                Host(DOCKER_HUB): RegistrySection(),
                Host("localhost", 80): RegistrySection(),
            },
        )
        for name in ("docker.io", DOCKER_HUB, "localhost", "a.example"):
            self.assertTrue(config.intercepts_name(name), name)
        for name in ("ghcr.io", "example", "docker.io.example.org"):
            self.assertFalse(config.intercepts_name(name), name)

    def test_registry(self) -> None:
        """Upstream is the registry itself unless it is set."""
        mirror = RegistrySection(upstream=("https://mirror.example",))
        plain = RegistrySection(plain_http=True)
        config = Config(DATA, registries={Host(DOCKER_HUB): mirror, Host("localhost", 5000): plain})
        self.assertIs(config.registry(Host("docker.io")), mirror)
        self.assertEqual(
            config.registry(Host("localhost", 5000)).upstream, ("http://localhost:5000",)
        )
        self.assertEqual(config.registry(Host("ghcr.io")).upstream, ("https://ghcr.io",))

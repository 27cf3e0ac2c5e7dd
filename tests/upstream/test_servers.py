"""Tests for :mod:`regproxy.upstream.servers`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import Auth, Config, RegistryLimits, RegistrySection
from regproxy.config.wayout import Family, ParentProxy
from regproxy.oci.names import Host
from regproxy.upstream.redirects import URL
from regproxy.upstream.servers import Server, named, servers

REGISTRY = Host("registry.example.test")
PARENT = ParentProxy("http://10.0.0.1:3128")
FULL = RegistrySection(
    upstream=(
        "https://bare.example.net/prefix",
        "https://known.example.net/of-docker",
        "https://registry.example.test/cache",
        "https://10.0.0.7:5000/same",
        "https://10.0.0.7:5000",
    ),
    auth=Auth.INJECT,
    username="team",
    password="geheim",
    ca_file=Path("/ca.pem"),
    client_cert=Path("/cert.pem"),
    client_key=Path("/key.pem"),
    relay_private=True,
    proxy=PARENT,
    source_address=("192.0.2.9",),
    family=Family.IPV4,
    limits=RegistryLimits(connect=3.0),
)
KNOWN = RegistrySection(
    upstream=("https://elsewhere.example.net", "https://10.0.0.8:5000/x"),
    username="mirror",
    password="anders",
)
CONFIG = Config(
    Path("/data"),
    registries={REGISTRY: FULL, Host("known.example.net"): KNOWN},
)


def credentials(section: RegistrySection) -> tuple[object, ...]:
    """What a server is trusted with."""
    return (
        section.effective_auth,
        section.username,
        section.password,
        section.password_file,
        section.client_cert,
        section.client_key,
    )


NOTHING = (Auth.FORWARD, None, None, None, None, None)


class ServersTests(SynchronousTestCase):
    """servers: what holds for mirrors and origin"""

    def setUp(self) -> None:
        self.bare, self.known, self.cache, self.same, self.origin = servers(CONFIG, REGISTRY)

    def test_bases(self) -> None:
        """Each where the configuration says, and alone there."""
        for server, base in (
            (self.bare, "https://bare.example.net/prefix"),
            (self.known, "https://10.0.0.8:5000/x/of-docker"),
            (self.cache, "https://registry.example.test/cache"),
            (self.same, "https://10.0.0.7:5000/same"),
            (self.origin, "https://10.0.0.7:5000/"),
        ):
            self.assertEqual(str(server.base), base)
            self.assertEqual(server.section.upstream, (base,))

    def test_own(self) -> None:
        """The origin, its host under other paths, and the registry's own name are trusted."""
        for server in self.origin, self.same, self.cache:
            self.assertEqual(server.owner, REGISTRY)
            self.assertEqual(credentials(server.section), credentials(FULL))

    def test_bare_mirror(self) -> None:
        """It is reached as the registry is, and gets none of its credentials."""
        self.assertEqual(self.bare.owner, Host("bare.example.net"))
        self.assertEqual(credentials(self.bare.section), NOTHING)
        self.assertEqual(self.bare.section.ca_file, FULL.ca_file)
        self.assertTrue(self.bare.section.relay_private)
        self.assertEqual(CONFIG.line(self.bare.section), CONFIG.line(FULL))

    def test_mirror_with_section(self) -> None:
        """That section holds, and nothing of the registry's."""
        self.assertEqual(self.known.owner, Host("known.example.net"))
        self.assertEqual(credentials(self.known.section), credentials(KNOWN))
        self.assertIsNone(self.known.section.ca_file)
        self.assertFalse(self.known.section.relay_private)
        self.assertEqual(CONFIG.line(self.known.section), CONFIG.line(RegistrySection()))

    def test_no_section(self) -> None:
        (server,) = servers(CONFIG, Host("ghcr.io"))
        self.assertEqual((server.owner, str(server.base)), (Host("ghcr.io"), "https://ghcr.io/"))

    def test_another_port_is_another_host(self) -> None:
        section = RegistrySection(
            upstream=("https://registry.example.test:8443", "https://registry.example.test"),
            username="team",
            password="geheim",
        )
        mirror, _ = servers(Config(Path("/data"), registries={REGISTRY: section}), REGISTRY)
        self.assertEqual(credentials(mirror.section), NOTHING)


class NamedTests(SynchronousTestCase):
    """named: where a redirect or a token realm leads"""

    def setUp(self) -> None:
        self.bare, *_, self.origin = servers(CONFIG, REGISTRY)

    def named(self, server: Server, url: str) -> tuple[Server, str]:
        found, target = named(CONFIG, server, URL.parse(url))
        return found, str(target)

    def test_itself(self) -> None:
        url = "https://10.0.0.7:5000/else?x=1"
        self.assertEqual(self.named(self.origin, url), (self.origin, url))

    def test_a_mirror_is_not_the_origin(self) -> None:
        """Nor the other way round."""
        server, _ = self.named(self.origin, "https://bare.example.net/prefix/x")
        self.assertEqual(server.owner, Host("bare.example.net"))
        self.assertEqual(credentials(server.section), NOTHING)
        server, _ = self.named(self.bare, "https://10.0.0.7:5000/x")
        self.assertEqual(server.owner, Host("10.0.0.7", 5000))
        self.assertEqual(credentials(server.section), NOTHING)

    def test_section(self) -> None:
        """A host with one is reached as that says: at its origin."""
        for server in self.bare, self.origin:
            found, url = self.named(server, "https://known.example.net/blob?sig=1")
            self.assertEqual(
                (found.owner, url),
                (Host("known.example.net"), "https://10.0.0.8:5000/x/blob?sig=1"),
            )
        found, url = self.named(self.bare, "https://registry.example.test/v2/")
        self.assertEqual((found.owner, url), (REGISTRY, "https://10.0.0.7:5000/v2/"))

    def test_stranger(self) -> None:
        """It is reached by the same line, and trusted with nothing."""
        found, url = self.named(self.origin, "https://cdn.example.org:444/blob?sig=1")
        self.assertEqual(url, "https://cdn.example.org:444/blob?sig=1")
        self.assertEqual(found.owner, Host("cdn.example.org", 444))
        self.assertEqual(str(found.base), "https://cdn.example.org:444/")
        self.assertEqual(credentials(found.section), NOTHING)
        self.assertIsNone(found.section.ca_file)
        self.assertFalse(found.section.relay_private)
        self.assertEqual(CONFIG.line(found.section), CONFIG.line(FULL))
        self.assertEqual(found.section.limits, FULL.limits)
        again, _ = self.named(found, "https://cdn.example.org:444/other")
        self.assertEqual(again, found)

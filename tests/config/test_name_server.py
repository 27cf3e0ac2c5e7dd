"""Tests of regproxy.config.name_server."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.load import ConfigError, effective, loads
from regproxy.config.model import DNSSection


def load(**keys: object) -> DNSSection:
    """The section with these keys."""
    # JSON's texts, booleans and arrays are TOML's.
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    config = loads("\n".join(["data = '/data'", "[dns]", *lines]), "f", data=None)
    assert loads(effective(config), "f", data=None) == config
    return config.dns


class DNSSectionTests(SynchronousTestCase):
    """finish_dns"""

    def problems(self, **keys: object) -> list[str]:
        error = self.assertRaises(ConfigError, load, **keys)
        return [problem.removeprefix("dns.") for problem in error.problems]

    def test_default(self) -> None:
        """No name server."""
        self.assertEqual(load(), DNSSection())
        self.assertEqual(DNSSection().listen, ())

    def test_forwarding(self) -> None:
        section = load(
            listen=["10.0.0.5:53", "[fd00::5]:53"],
            addresses=["10.0.0.5", "fd00::5"],
            forward_to=["10.0.0.2", "10.0.0.3:5353"],
            upstream_resolvers=["10.0.0.2"],
            clients=["10.0.0.0/8", "fd00::/8", "192.0.2.7"],
            ttl="30s",
        )
        self.assertEqual(section.ttl, 30.0)
        self.assertEqual(section.forward_to, ("10.0.0.2", "10.0.0.3:5353"))

    def test_authoritative(self) -> None:
        section = load(listen=["10.0.0.5"], addresses=["10.0.0.5"], authoritative=True)
        self.assertTrue(section.authoritative)

    def test_only_resolvers(self) -> None:
        """The proxy's own look-ups may go elsewhere without a name server here."""
        section = load(upstream_resolvers=["10.0.0.2"])
        self.assertEqual(section, DNSSection(upstream_resolvers=("10.0.0.2",)))

    def test_unreadable(self) -> None:
        """All at once, with what was found."""
        self.assertEqual(
            self.problems(
                listen=["10.0.0.5:53", "tcp:53"],
                addresses=["0.0.0.0", "ff02::1", "appliance.example", "10.0.0.5:53"],
                forward_to=["10.0.0.2:x"],
                clients=["10.0.0.1/8", "all"],
                upstream_resolvers=[""],
                ttl="25h",
            ),
            [
                "listen[1]: expected an address, with :PORT if the port is not 53, found 'tcp:53'",
                "addresses[0]: expected an address that clients can connect to, found '0.0.0.0'",
                "addresses[1]: expected an address that clients can connect to, found 'ff02::1'",
                "addresses[2]: expected an address, found 'appliance.example'",
                "addresses[3]: expected an address, found '10.0.0.5:53'",
                "forward_to[0]: expected an address, with :PORT if the port is not 53,"
                " found '10.0.0.2:x'",
                "clients[0]: expected a network such as \"10.0.0.0/8\", found '10.0.0.1/8'",
                "clients[1]: expected a network such as \"10.0.0.0/8\", found 'all'",
                "upstream_resolvers[0]: expected an address, with :PORT if the port is not 53,"
                " found ''",
                "ttl: expected at most 1d",
            ],
        )

    def test_missing(self) -> None:
        """A name server needs something to say."""
        self.assertEqual(
            self.problems(listen=["10.0.0.5"]),
            [
                "addresses: missing: what intercepted names answer with",
                "forward_to: missing: whom to ask for other names; or authoritative = true",
            ],
        )

    def test_both(self) -> None:
        self.assertEqual(
            self.problems(authoritative=True, forward_to=["10.0.0.2"]),
            ["forward_to: not together with authoritative = true"],
        )

    def test_itself(self) -> None:
        """However it is written."""
        self.assertEqual(
            self.problems(
                listen=["10.0.0.5", "[fd00::5]:5353"],
                addresses=["10.0.0.5"],
                forward_to=["10.0.0.2", "10.0.0.5:53"],
                upstream_resolvers=["[fd00:0::5]:5353"],
            ),
            [
                "forward_to[1]: '10.0.0.5:53' is in listen: it would ask itself",
                "upstream_resolvers[0]: '[fd00:0::5]:5353' is in listen: it would ask itself",
            ],
        )

"""Tests for :mod:`regproxy.upstream.ways_out`: parents over a network in memory."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.wayout import DIRECT, Family, Line, ParentProxy, Trust
from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard
from regproxy.tls.client import VerifyingPolicy
from regproxy.upstream.errors import (
    AddressRefused,
    NameUnresolved,
    ParentProxyRefused,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTLSFailed,
    UpstreamUnreachable,
)
from regproxy.upstream.ways_out import WaysOut
from tests.support.memory_network import MemoryNetwork
from tests.support.parents import HTTPParent, ParentFactory, SOCKSParent

TARGET = Host("site.example.test")
PARENT = "10.0.0.1"
LOGIN = ("team", "ge:heim")


class Collecting(Protocol):
    """Says something, and remembers the answer."""

    received = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"ping")

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class WaysOutCase(SynchronousTestCase):
    """A site that echoes at 8.8.8.8, and a parent at 10.0.0.1."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.network.serve(TARGET.name, "8.8.8.8", 443, Factory.forProtocol(Echo))
        self.trusts: list[Trust] = []
        self.policy = VerifyingPolicy(insecure=True)
        self.ways_out = WaysOut(self.network, self.network.nameResolver, self.policy_for)
        self.line = Line(DIRECT, (), (), Family.ANY, 10.0)

    def policy_for(self, trust: Trust) -> VerifyingPolicy:
        self.trusts.append(trust)
        return self.policy

    def parent(
        self,
        scheme: str,
        login: tuple[str, str] | None = None,
        *,
        sent: ParentProxy | None = None,
    ) -> ParentFactory:
        """Start a parent and go through it, with the keys of *sent*."""
        kind = SOCKSParent if scheme.startswith("socks") else HTTPParent
        parent = kind(self.network, login)
        self.network.serve("parent.example.test", PARENT, 3128, parent, tls=scheme == "https")
        proxy = evolve(sent or DIRECT, url=f"{scheme}://parent.example.test:3128")
        self.line = evolve(self.line, proxy=proxy)
        return parent

    def connect(
        self, host: Host = TARGET, guard: AddressGuard | None = None
    ) -> Deferred[IProtocol]:
        endpoint = self.ways_out.endpoint(host, guard or AddressGuard(), self.line)
        connecting = endpoint.connect(Factory.forProtocol(Collecting))
        self.network.flush()
        return connecting

    def echo(self, host: Host = TARGET, guard: AddressGuard | None = None) -> None:
        """*host* is reached, and bytes pass both ways."""
        protocol = self.successResultOf(self.connect(host, guard))
        self.network.flush()
        assert isinstance(protocol, Collecting)
        self.assertEqual(protocol.received, b"ping")

    def refusal(
        self,
        kind: type[UpstreamError],
        host: Host = TARGET,
        guard: AddressGuard | None = None,
    ) -> str:
        error = self.failureResultOf(self.connect(host, guard)).value
        self.assertIs(type(error), kind)
        self.assertIsInstance(error, UpstreamError)
        return str(error)


class DirectTests(WaysOutCase):
    """Without a parent"""

    def test_direct(self) -> None:
        self.echo()
        self.assertEqual(self.network.dialled, [("8.8.8.8", 443)])

    def test_exceptions(self) -> None:
        """What is exempt is dialled, with the guard that looks at addresses."""
        parent = self.parent("http")
        self.line = evolve(self.line, exempt=(".example.test",))
        self.echo()
        self.network.names["inside.example.test"] = ["10.0.0.9"]
        self.refusal(AddressRefused, Host("inside.example.test"))
        self.assertEqual(parent.asked, [])
        self.line = evolve(self.line, exempt=("example.net",))
        self.echo()
        self.assertEqual(parent.asked, [("site.example.test", 443)])

    def test_this_machine(self) -> None:
        """It is never asked for at a parent."""
        for scheme in "http", "socks5h":
            parent = self.parent(scheme)
            self.network.serve("localhost", "127.0.0.1", 5000, Factory.forProtocol(Echo))
            for name in "127.0.0.1", "localhost":
                self.echo(Host(name, 5000), AddressGuard.private_allowed())
                self.refusal(AddressRefused, Host(name, 5000))
            self.assertEqual(parent.asked, [])

    def test_source_family(self) -> None:
        """A source address of one family leaves the other out, preferred or not."""
        self.network.names[TARGET.name] = ["2606:4700::1", "8.8.8.8"]
        self.line = evolve(self.line, source_address=("192.0.2.9",), family=Family.PREFER_IPV6)
        self.echo()
        self.assertEqual(self.network.dialled, [("8.8.8.8", 443)])


class ParentTests(WaysOutCase):
    """Through each kind of parent"""

    def test_all_kinds(self) -> None:
        """Nothing but the parent is dialled from here, and bytes pass both ways."""
        for scheme, asked in (
            ("http", "site.example.test"),
            ("https", "site.example.test"),
            ("socks5h", "site.example.test"),
            ("socks5", "8.8.8.8"),
        ):
            self.network.dialled.clear()
            parent = self.parent(scheme)
            self.echo()
            self.assertEqual(parent.asked, [(asked, 443)], scheme)
            # The second is the parent's own.
            self.assertEqual(self.network.dialled, [(PARENT, 3128), ("8.8.8.8", 443)], scheme)

    def test_who_resolves(self) -> None:
        """All but socks5 go without names here."""
        for scheme in "http", "https", "socks5h":
            parent = self.parent(scheme)
            del self.network.names[TARGET.name]
            self.assertIn("cannot reach", self.refusal(UpstreamUnreachable))
            self.assertEqual(parent.asked, [("site.example.test", 443)])
            self.setUp()
        parent = self.parent("socks5")
        del self.network.names[TARGET.name]
        self.refusal(NameUnresolved)
        self.assertEqual(parent.asked, [])

    def test_login(self) -> None:
        sent = ParentProxy("", username=LOGIN[0], password=LOGIN[1])
        for scheme in "http", "https", "socks5", "socks5h":
            self.parent(scheme, LOGIN, sent=sent)
            self.echo()

    def test_wrong_login(self) -> None:
        """It says so, and not what was sent."""
        for scheme in "http", "socks5h":
            self.parent(scheme, LOGIN, sent=ParentProxy("", username="team", password="falsch"))
            message = self.refusal(ParentProxyRefused)
            self.assertEqual(
                message,
                "the parent proxy parent.example.test:3128 does not accept this proxy's login",
            )
            self.parent(scheme, LOGIN)
            self.assertIn("wants a login, and there is none", self.refusal(ParentProxyRefused))

    def test_password_file(self) -> None:
        """It is read each time: a new password counts at once, a lost file is told."""
        file = Path(self.mktemp())
        sent = ParentProxy("", username=LOGIN[0], password_file=file)
        for scheme in "http", "socks5h":
            self.parent(scheme, LOGIN, sent=sent)
            file.write_text("falsch\n")
            self.refusal(ParentProxyRefused)
            file.write_text(f"{LOGIN[1]}\n")
            self.echo()
            file.unlink()
            message = self.refusal(ParentProxyRefused)
            self.assertIn(f"3128 cannot be read: {file}", message)

    def test_parent_is_gone(self) -> None:
        for scheme in "http", "https", "socks5", "socks5h":
            self.parent(scheme)
            self.network.names["parent.example.test"] = ["10.0.0.2"]
            message = self.refusal(UpstreamUnreachable)
            self.assertIn("cannot connect to the parent proxy parent.example.test:3128:", message)

    def test_parent_is_silent(self) -> None:
        """Its answer has a time of its own."""
        self.network.serve("parent.example.test", PARENT, 3128, Factory.forProtocol(Protocol))
        for scheme in "http", "https", "socks5", "socks5h":
            self.line = evolve(self.line, proxy=ParentProxy(f"{scheme}://parent.example.test:3128"))
            connecting = self.connect()
            self.network.pass_time(9)
            self.assertNoResult(connecting)
            self.network.pass_time(1)
            failure = self.failureResultOf(connecting, UpstreamTimeout)
            self.assertIn("did not answer within 10 seconds", str(failure.value))
            self.assertTrue(self.network.pumps[-1].clientIO.disconnected)

    def test_parent_is_not_to_be_trusted(self) -> None:
        """The login is not sent to one whose certificate is not good."""
        parent = self.parent(
            "https", LOGIN, sent=ParentProxy("", "team", "ge:heim", ca_file=Path("/ca.pem"))
        )
        self.policy = VerifyingPolicy()
        message = self.refusal(UpstreamTLSFailed)
        self.assertIn("TLS with the parent proxy parent.example.test:3128 failed", message)
        self.assertEqual(parent.asked, [])
        self.assertEqual(self.trusts, [Trust(Path("/ca.pem"))])

    def test_addresses_in_turn(self) -> None:
        """With socks5, one address after the other is asked for."""
        parent = self.parent("socks5")
        self.network.names[TARGET.name] = ["8.8.4.4", "8.8.8.8"]
        self.echo()
        self.assertEqual(parent.asked, [("8.8.4.4", 443), ("8.8.8.8", 443)])


class GuardTests(WaysOutCase):
    """What the guard can do where a parent resolves"""

    def refused(self, scheme: str, host: Host, guard: AddressGuard | None = None) -> None:
        parent = self.parent(scheme)
        message = self.refusal(AddressRefused, host, guard)
        self.assertIn(f"connections to {host.authority} are not allowed: ", message)
        self.assertEqual((parent.asked, self.network.dialled), ([], []))

    def test_addresses(self) -> None:
        """Literal ones are checked by all."""
        for scheme in "http", "https", "socks5", "socks5h":
            self.refused(scheme, Host("10.0.0.7"))
            self.refused(scheme, Host("169.254.169.254", 80), AddressGuard.private_allowed())

    def test_names(self) -> None:
        """Those of private networks are refused where the parent resolves."""
        for scheme in "http", "https", "socks5h":
            self.refused(scheme, Host("metadata.google.internal"))
            self.refused(scheme, Host("db"))

    def test_ports(self) -> None:
        for scheme in "http", "socks5h", "socks5":
            self.refused(scheme, Host(TARGET.name, 22), AddressGuard(ports=frozenset({443})))

    def test_resolved_here(self) -> None:
        """With socks5 what a name resolves to is checked, and that is what is asked for."""
        self.network.names["inside.example.test"] = ["10.0.0.9", "8.8.8.8"]
        parent = self.parent("socks5")
        self.echo(Host("inside.example.test"))
        self.assertEqual(parent.asked, [("8.8.8.8", 443)])
        self.network.names["inside.example.test"] = ["10.0.0.9"]
        self.network.dialled.clear()
        self.refused("socks5", Host("inside.example.test"))

    def test_private_registry(self) -> None:
        """Its name may be one of a private network."""
        self.network.names["db"] = ["8.8.8.8"]
        parent = self.parent("http")
        self.echo(Host("db"), AddressGuard.private_allowed())
        self.assertEqual(parent.asked, [("db", 443)])

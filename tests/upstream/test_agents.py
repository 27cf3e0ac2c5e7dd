"""Tests for :mod:`regproxy.upstream.agents`. Requests through them: test_client."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent

from regproxy.config.model import (
    Config,
    RegistryLimits,
    RegistrySection,
    RelaySection,
    TagSource,
)
from regproxy.config.wayout import Family, ParentProxy, Trust
from regproxy.oci.names import Host
from regproxy.tls.client import VerifyingPolicy
from regproxy.upstream import agents
from regproxy.upstream.agents import Agents
from regproxy.upstream.errors import AddressRefused
from regproxy.upstream.ways_out import WaysOut
from tests.support.memory_network import MemoryNetwork

PLAIN = RegistrySection()
HOST = Host("registry.example.test")


class AgentsTests(SynchronousTestCase):
    """:class:`Agents`: who shares what."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.asked: list[Trust] = []
        self.agents = self.make(())

    def make(self, allow: tuple[str, ...]) -> Agents:
        config = Config(Path("data"), relay=RelaySection(allow))
        ways_out = WaysOut(self.network, self.network.nameResolver, self.policy_for)
        return Agents(ways_out, config)

    def policy_for(self, trust: Trust) -> VerifyingPolicy:
        self.asked.append(trust)
        return VerifyingPolicy(insecure=True)

    def test_kept(self) -> None:
        """The same registry and principal have the same agent, others have others."""
        seen: set[IAgent] = set()
        for host in (HOST, Host("registry.example.test", 5000)):
            for principal in (None, b"", b"Bearer a", b"Bearer b"):
                agent = self.agents.agent(host, PLAIN, principal)
                self.assertIs(agent, self.agents.agent(host, PLAIN, principal))
                self.assertNotIn(agent, seen)
                seen.add(agent)

    def test_not_shared(self) -> None:
        """Connections of one host are apart by line, TLS and guard, and by nothing else."""
        parent = RegistrySection(proxy=ParentProxy("http://10.0.0.1:3128"))
        sections = [
            PLAIN,
            parent,
            RegistrySection(limits=RegistryLimits(connect=3.0)),
            RegistrySection(family=Family.IPV4),
            RegistrySection(source_address=("192.0.2.9",)),
            RegistrySection(insecure=True),
            RegistrySection(client_cert=Path("/a"), client_key=Path("/b")),
            RegistrySection(relay_private=True),
        ]
        agents = [self.agents.agent(HOST, section, None) for section in sections]
        self.assertEqual(len(set(agents)), len(sections))
        same = evolve(parent, username="team", password="geheim", tag_source=TagSource.FIRST)
        self.assertIs(self.agents.agent(HOST, same, None), agents[1])

    def test_bounded(self) -> None:
        """The agent used longest ago goes."""
        self.patch(agents, "POOL_LIMIT", 2)
        first = self.agents.agent(HOST, PLAIN, b"1")
        second = self.agents.agent(HOST, PLAIN, b"2")
        self.assertIs(self.agents.agent(HOST, PLAIN, b"1"), first)
        self.agents.agent(HOST, PLAIN, b"3")
        self.assertIs(self.agents.agent(HOST, PLAIN, b"1"), first)
        self.assertIsNot(self.agents.agent(HOST, PLAIN, b"2"), second)

    def test_one_policy(self) -> None:
        """A TLS policy is made once for what decides about it."""
        for principal in (b"1", b"2"):
            self.agents.agent(HOST, PLAIN, principal)
            self.agents.agent(Host("other.example.test"), PLAIN, principal)
            self.agents.agent(HOST, RegistrySection(insecure=True), principal + b"x")
        self.assertEqual(self.asked, [Trust(), Trust(insecure=True)])

    def test_guards(self) -> None:
        """Public addresses, private ones of a private registry, and what is allowed."""
        self.network.names["x"] = ["10.0.0.7"]
        cases: list[tuple[RegistrySection, tuple[str, ...], bool]] = []
        cases += [(PLAIN, (), False), (RegistrySection(relay_private=True), (), True)]
        cases += [(PLAIN, ("10.0.0.7",), True), (PLAIN, ("10.0.0.7:80",), False)]
        for section, allow, dialled in cases:
            self.network.dialled.clear()
            agent = self.make(allow).agent(HOST, section, None)
            asking = agent.request(b"GET", b"https://x/")
            self.assertEqual(self.network.dialled, [("10.0.0.7", 443)] if dialled else [])
            if not dialled:
                self.failureResultOf(asking, AddressRefused)

    def test_own(self) -> None:
        """The proxy itself is dialled for no registry."""
        config = Config(Path("data"))
        ways_out = WaysOut(self.network, self.network.nameResolver, self.policy_for)
        agents = Agents(ways_out, config, lambda address, port: address == "10.0.0.5")
        self.network.names.update({"x": ["10.0.0.5"], "y": ["10.0.0.5", "10.0.0.6"]})
        private = RegistrySection(relay_private=True)
        for host, section in (HOST, PLAIN), (Host("private.example.test"), private):
            agent = agents.agent(host, section, None)
            asking = agent.request(b"GET", b"https://x/")
            failure = self.failureResultOf(asking, AddressRefused)
            self.assertIn("10.0.0.5 is this proxy itself", failure.value.message)
        agent.request(b"GET", b"https://y/")
        self.assertEqual(self.network.dialled, [("10.0.0.6", 443)])

    def test_address_literal(self) -> None:
        """IPv6 addresses stand in brackets in the URL and without them when dialled."""
        agent = self.agents.agent(HOST, PLAIN, None)
        agent.request(b"GET", b"http://[2606:4700::1]:5000/")
        self.assertEqual(self.network.dialled, [("2606:4700::1", 5000)])

    def test_bad_entry(self) -> None:
        """An entry of the configuration that is none shows at once."""
        self.assertRaises(ValueError, self.make, ("host",))

    def test_nothing_to_close(self) -> None:
        self.successResultOf(self.agents.close())

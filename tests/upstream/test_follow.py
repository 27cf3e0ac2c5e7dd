"""Tests for :mod:`regproxy.upstream.follow`. Redirects as clients meet them: test_client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regproxy.config.model import Config, LimitsSection, RegistryLimits, RegistrySection
from regproxy.config.wayout import ParentProxy, Trust, UpstreamSection
from regproxy.oci.names import Host
from regproxy.tls.client import VerifyingPolicy
from regproxy.upstream.agents import Agents
from regproxy.upstream.auth import Answer
from regproxy.upstream.errors import UpstreamTimeout
from regproxy.upstream.follow import Follower, Request
from regproxy.upstream.ledger import Figures
from regproxy.upstream.redirects import URL
from regproxy.upstream.servers import servers
from regproxy.upstream.ways_out import WaysOut
from tests.support.memory_network import MemoryNetwork
from tests.support.parents import HTTPParent
from tests.support.scripted_site import Asked, Say, ScriptedSite, redirect

REGISTRY = Host("registry.example.test")
PARENT = ParentProxy("http://10.0.0.1:3128")
FIGURES = Figures(lambda: 0.0)


class FollowerTests(SynchronousTestCase):
    """Follower"""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.figures = Figures(self.network.seconds)

    def follow(
        self,
        section: RegistrySection = RegistrySection(),  # noqa: B008 -- frozen
        upstream: UpstreamSection = UpstreamSection(),  # noqa: B008
        method: bytes = b"GET",
    ) -> Deferred[Answer]:
        config = Config(
            Path("/data"),
            registries={REGISTRY: section},
            upstream=upstream,
            limits=LimitsSection(connect=10.0, upstream_head=25.0),
        )
        ways_out = WaysOut(self.network, self.network.nameResolver, self.policy_for)
        follower = Follower(self.network, config, Agents(ways_out, config), lambda *answer: None)
        (server,) = servers(config, REGISTRY)
        request = Request(method, Headers(), self.figures).by(b"me", b"Bearer mine")
        url = URL("https", REGISTRY, "/v2/").under(server.base)
        following = Deferred.fromCoroutine(follower.follow(request, server, url))
        self.network.flush()
        return following

    def policy_for(self, trust: Trust) -> VerifyingPolicy:
        return VerifyingPolicy(insecure=True)

    def site(self, name: str, address: str, says: Any) -> ScriptedSite:
        site = ScriptedSite(self.network, says)
        self.network.serve(name, address, 443, site, tls=True)
        return site

    def test_own_answer(self) -> None:
        """Of the registry, or of another that it has named."""
        self.site(REGISTRY.name, "8.8.8.8", Say(401))
        self.assertTrue(self.successResultOf(self.follow()).from_registry)
        self.site(REGISTRY.name, "8.8.8.8", redirect(b"https://cdn.example.net/x"))
        self.site("cdn.example.net", "8.8.4.4", Say(401))
        self.assertFalse(self.successResultOf(self.follow()).from_registry)

    def test_the_same_line(self) -> None:
        """What a registry redirects to is reached through the registry's parent, too."""
        for common, own, asked in (
            (UpstreamSection(), PARENT, [REGISTRY.name, "cdn.example.net"]),
            (UpstreamSection(proxy=PARENT), None, [REGISTRY.name, "cdn.example.net"]),
            (UpstreamSection(proxy=PARENT, no_proxy=("example.net",)), None, [REGISTRY.name]),
            # A registry's own proxy is meant for it, whatever the exceptions are.
            (
                UpstreamSection(no_proxy=("*",)),
                PARENT,
                [REGISTRY.name, "cdn.example.net"],
            ),
            (UpstreamSection(proxy=PARENT), ParentProxy("direct"), []),
        ):
            self.setUp()
            parent = HTTPParent(self.network)
            self.network.serve("parent", "10.0.0.1", 3128, parent)
            self.site(REGISTRY.name, "8.8.8.8", redirect(b"https://cdn.example.net/x"))
            cdn = self.site("cdn.example.net", "8.8.4.4", Say(200, {}, b"blob"))
            answer = self.successResultOf(self.follow(RegistrySection(proxy=own), common))
            self.assertEqual(answer.response.code, 200)
            self.assertEqual([host for host, _ in parent.asked], asked)
            self.assertIsNone(cdn.asked[0].header(b"authorization"))

    def test_limits(self) -> None:
        """A registry may have more time than others, or less, and so its CDN."""
        silent = Factory.forProtocol(Protocol)
        self.network.serve(REGISTRY.name, "8.8.8.8", 443, silent, tls=True)
        for limits, seconds in (RegistryLimits(), 25), (RegistryLimits(upstream_head=3.0), 3):
            following = self.follow(RegistrySection(limits=limits))
            self.network.pass_time(seconds - 1)
            self.assertNoResult(following)
            self.network.pass_time(1)
            self.failureResultOf(following, UpstreamTimeout)
        self.site(REGISTRY.name, "8.8.8.8", redirect(b"https://cdn.example.net/x"))
        self.network.serve("cdn.example.net", "8.8.4.4", 443, silent, tls=True)
        following = self.follow(RegistrySection(limits=RegistryLimits(upstream_head=3.0)))
        self.network.pass_time(3)
        self.failureResultOf(following, UpstreamTimeout)

    def test_connect_limit(self) -> None:
        self.site(REGISTRY.name, "8.8.8.8", Say())
        self.network.silent.add("8.8.8.8")
        following = self.follow(RegistrySection(limits=RegistryLimits(connect=2.0)))
        self.network.pass_time(2)
        self.failureResultOf(following, UpstreamTimeout)

    def test_each_answer(self) -> None:
        """Of a redirect, and of what it leads to."""
        self.site(REGISTRY.name, "8.8.8.8", redirect(b"https://cdn.example.net/x"))
        self.site("cdn.example.net", "8.8.4.4", Say(200, {}, b"blob"))
        self.successResultOf(self.follow())
        self.assertEqual(sum(self.figures.first_byte.counts), 2)

    def test_slow(self) -> None:
        """It is the time that the registry took."""
        site = self.site(REGISTRY.name, "8.8.8.8", Say())

        def slowly(asked: Asked) -> Say:
            self.network.advance(3)
            return Say()

        site.answerer = slowly
        self.successResultOf(self.follow())
        self.successResultOf(self.follow(method=b"HEAD"))
        self.assertEqual(self.figures.latency, 3.0)
        self.assertEqual(self.figures.first_byte.sum, 6.0)

    def test_uploads(self) -> None:
        """How long a registry takes to store a layer says nothing of others."""
        self.site(REGISTRY.name, "8.8.8.8", Say(201))
        self.successResultOf(self.follow(method=b"PUT"))
        self.assertIsNone(self.figures.latency)


class RequestTests(SynchronousTestCase):
    """Request"""

    def test_repeatable(self) -> None:
        for method, repeatable in (b"GET", True), (b"HEAD", True), (b"PUT", False):
            self.assertEqual(Request(method, Headers(), FIGURES).repeatable, repeatable)

    def test_by(self) -> None:
        """Who asks, and nothing of whoever asked before."""
        request = Request(b"GET", Headers(), FIGURES).by(b"me", b"Bearer mine")
        self.assertEqual((request.principal, request.authorization), (b"me", b"Bearer mine"))
        self.assertEqual(request.by(None), Request(b"GET", Headers(), FIGURES))

"""HTTP agents of registries: which TLS, which addresses, which connections."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final, cast

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from regproxy.config.model import Config, RegistrySection
from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard, AllowEntry, LeadsBack, nowhere
from regproxy.upstream.dial import DialReactor, GuardedEndpoint
from regproxy.upstream.pool import MeteredPool
from regproxy.upstream.secure import TLSEndpoint

PolicyFor = Callable[[RegistrySection], IPolicyForHTTPS]

# Each holds idle connections for less than a minute; the one used longest ago goes.
POOL_LIMIT: Final = 128


@implementer(IAgentEndpointFactory)
@frozen
class _Endpoints:
    """Connects to URIs through the guard, with the registry's TLS."""

    reactor: DialReactor
    guard: AddressGuard
    policy: IPolicyForHTTPS
    timeout: float

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint = GuardedEndpoint(
            self.reactor, uri.host.decode("ascii"), uri.port, self.guard, self.timeout
        )
        if uri.scheme == b"http":
            return endpoint
        creator = self.policy.creatorForNetloc(uri.host, uri.port)
        return TLSEndpoint(endpoint, creator, cast(IReactorTime, self.reactor))


class Agents:
    """Makes the agent for a request and keeps it for the next one.

    There is a pool of connections for each registry and principal: a connection that
    carried one client's credentials never carries another's request, so a server
    that ties a login to the connection (NTLM does) gives nothing away.
    """

    def __init__(
        self,
        reactor: DialReactor,
        config: Config,
        policy_for: PolicyFor,
        own: LeadsBack = nowhere,
    ) -> None:
        self._reactor = reactor
        self._limits = config.limits
        self._policy_for = policy_for
        allow = tuple(map(AllowEntry.parse, config.relay.allow))
        self._public = AddressGuard(allow, own=own)
        self._private = AddressGuard.private_allowed(allow, own)
        self._policies: dict[tuple[Path | None, bool], IPolicyForHTTPS] = {}
        self._agents: OrderedDict[tuple[Host, bytes], tuple[IAgent, MeteredPool]] = OrderedDict()

    def agent(self, registry: Host, section: RegistrySection, principal: bytes | None) -> IAgent:
        """The agent for requests to *registry* on behalf of *principal*.

        Args:
            principal: what tells apart whose credentials go along; None without any.
        """
        # Only a digest is kept: the principal may be a client's Authorization.
        key = registry, b"" if principal is None else sha256(principal).digest()
        found = self._agents.get(key)
        if found is None:
            found = self._agents[key] = self._make(section)
            if len(self._agents) > POOL_LIMIT:
                _, (_, pool) = self._agents.popitem(last=False)
                pool.closeCachedConnections()
        self._agents.move_to_end(key)
        return found[0]

    def close(self) -> Deferred[object]:
        """Close all idle connections; fires when they are gone."""
        pools = [pool for _, pool in self._agents.values()]
        self._agents.clear()
        closing = gatherResults([pool.closeCachedConnections() for pool in pools])
        return cast("Deferred[object]", closing)

    def _make(self, section: RegistrySection) -> tuple[IAgent, MeteredPool]:
        pool = MeteredPool(cast(IReactorTime, self._reactor), self._limits.upstream_head_size)
        endpoints = _Endpoints(
            self._reactor,
            self._private if section.relay_private else self._public,
            self._policy(section),
            self._limits.connect,
        )
        return Agent.usingEndpointFactory(self._reactor, endpoints, pool), pool

    def _policy(self, section: RegistrySection) -> IPolicyForHTTPS:
        # Loading the platform's trust store takes tens of milliseconds.
        key = section.ca_file, section.insecure
        if key not in self._policies:
            self._policies[key] = self._policy_for(section)
        return self._policies[key]

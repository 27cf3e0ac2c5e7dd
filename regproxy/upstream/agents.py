"""HTTP agents of registries: which TLS, which addresses, which connections."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Final, cast

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from regproxy.config.model import Config, RegistrySection
from regproxy.config.wayout import Line, Trust
from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard, AllowEntry, LeadsBack, nowhere
from regproxy.upstream.pool import MeteredPool
from regproxy.upstream.secure import TLSEndpoint
from regproxy.upstream.ways_out import WaysOut

# What connections must have in common to be shared: host, line, TLS, whether private
# addresses are permitted, and a digest of whose credentials go along.
_Key = tuple[Host, Line, Trust, bool, bytes]

# Each holds idle connections for less than a minute; the one used longest ago goes.
POOL_LIMIT: Final = 128


@implementer(IAgentEndpointFactory)
@frozen
class _Endpoints:
    """Connects to URIs through the guard, with the registry's TLS."""

    ways_out: WaysOut
    guard: AddressGuard
    policy: IPolicyForHTTPS
    line: Line

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = Host(uri.host.decode("ascii"), uri.port)
        endpoint = self.ways_out.endpoint(host, self.guard, self.line)
        if uri.scheme == b"http":
            return endpoint
        creator = self.policy.creatorForNetloc(uri.host, uri.port)
        return TLSEndpoint(endpoint, creator, cast(IReactorTime, self.ways_out.reactor))


class Agents:
    """Makes the agent for a request and keeps it for the next one.

    There is a pool of connections for each registry and principal: a connection that
    carried one client's credentials never carries another's request, so a server
    that ties a login to the connection (NTLM does) gives nothing away.
    """

    def __init__(self, ways_out: WaysOut, config: Config, own: LeadsBack = nowhere) -> None:
        self._ways_out = ways_out
        self._config = config
        allow = tuple(map(AllowEntry.parse, config.relay.allow))
        self._public = AddressGuard.relaying(config.relay, None, own)
        self._private = AddressGuard.private_allowed(allow, own)
        self._agents: OrderedDict[_Key, tuple[IAgent, MeteredPool]] = OrderedDict()

    def agent(self, registry: Host, section: RegistrySection, principal: bytes | None) -> IAgent:
        """The agent for requests to *registry* on behalf of *principal*.

        Args:
            principal: what tells apart whose credentials go along; None without any.
        """
        # Only a digest is kept: the principal may be a client's Authorization.
        line = self._config.line(section)
        whose = b"" if principal is None else sha256(principal).digest()
        key = registry, line, section.trust, section.relay_private, whose
        found = self._agents.get(key)
        if found is None:
            found = self._agents[key] = self._make(section, line)
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

    def _make(self, section: RegistrySection, line: Line) -> tuple[IAgent, MeteredPool]:
        reactor = self._ways_out.reactor
        pool = MeteredPool(cast(IReactorTime, reactor), self._config.limits.upstream_head_size)
        guard = self._private if section.relay_private else self._public
        endpoints = _Endpoints(self._ways_out, guard, self._ways_out.policy(section.trust), line)
        return Agent.usingEndpointFactory(reactor, endpoints, pool), pool

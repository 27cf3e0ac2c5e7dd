"""Which object is given to which: the whole graph in one place. No rules.

What lasts for the life of the process (the CA, the store, what is known about
logins and registries) is apart from what a configuration determines, so that a reload builds the
second anew over the first.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from attrs import frozen
from cryptography.hazmat.primitives import hashes
from twisted.internet.interfaces import (
    IHostnameResolver,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.threadpool import ThreadPool
from twisted.web.resource import IResource

from regproxy.config.model import CASection, Config, RegistrySection
from regproxy.config.wayout import Trust
from regproxy.dns.cache import AnswerCache
from regproxy.listeners.connect import ConnectFactory
from regproxy.listeners.dns import NameService
from regproxy.listeners.mirror import MirrorDoor, MirrorResource, MirrorSite
from regproxy.listeners.plain import PlainResource
from regproxy.listeners.redirect import RedirectResource
from regproxy.listeners.relay import RelayResource
from regproxy.listeners.sni import HelloFactory
from regproxy.listeners.tunnel import Outcome, TunnelRecord, Tunnels
from regproxy.management.access import Guard
from regproxy.management.ca import Authority
from regproxy.management.ca_api import operations as ca_operations
from regproxy.management.connections import Connections
from regproxy.management.events import Events
from regproxy.management.history import History, Totals
from regproxy.management.loop_delay import LoopDelay
from regproxy.management.metrics import Metrics, Sources
from regproxy.management.overview import Rooms
from regproxy.management.pages.rendering import MANAGEMENT, PROXY, Pages
from regproxy.management.pages.sources import Sources as PageSources
from regproxy.management.parts import Parts
from regproxy.management.probe import ReadyResource
from regproxy.management.resource import ApiResource
from regproxy.management.setup.facts import Facts
from regproxy.management.setup.resource import SetupResource
from regproxy.management.site import ManagementSite, OpenSite
from regproxy.management.tally import Served, Traffic
from regproxy.oci.errors import OwnFailure, RegistryError
from regproxy.oci.kinds import RequestKind
from regproxy.oci.names import HTTPS_PORT, Host
from regproxy.policy.addresses import AddressGuard, LeadsBack
from regproxy.policy.filling import FillRules
from regproxy.policy.interception import Intercept, decide, decide_by_name
from regproxy.policy.resolution import ResolutionRules, ServerAddress
from regproxy.registry.backoff import BackOff, ConsiderateUpstream
from regproxy.registry.content import ContentService
from regproxy.registry.grants import Grants
from regproxy.registry.guests import Guests, OpenUpstream
from regproxy.registry.permissions import Permissions
from regproxy.registry.prefetch import Prefetch
from regproxy.registry.resource import RegistryResource
from regproxy.registry.service import RegistryService
from regproxy.registry.tags import TagService
from regproxy.registry.tokens import ClientFirst, TokenKey
from regproxy.registry.visibility import Visibility
from regproxy.store.disk import BlobDirectory, ThreadWorkers
from regproxy.store.housekeeping import Housekeeping
from regproxy.store.index import Index
from regproxy.store.store import Store
from regproxy.tls.client import VerifyingPolicy
from regproxy.tls.errors import CAError
from regproxy.tls.leaves import LeafCache
from regproxy.tls.rotation import RotatingAuthority
from regproxy.tls.server import Handshakes, ServerTLS
from regproxy.upstream.client import Upstream
from regproxy.upstream.credentials import Credentials
from regproxy.upstream.ledger import Ledger
from regproxy.upstream.loops import OwnPlaces
from regproxy.upstream.name_servers import NameServers, NetworkExchange
from regproxy.upstream.rate_limits import RateLimits
from regproxy.upstream.resolver import NameServerResolver
from regproxy.upstream.ways_out import WaysOut
from regproxy.web.access_log import AccessLog, AccessRecord, UnderWay
from regproxy.web.site import Entry, Limits, StrictSite

# Threads that read and write blobs: enough to keep a disk busy. The index has one
# of its own, as SQLite has one writer.
DISK_THREADS: Final = 8


@frozen
class Foundation:
    """What lasts for the life of the process."""

    reactor: Any
    authority: RotatingAuthority
    leaves: LeafCache
    handshakes: Handshakes
    connections: Connections
    directory: BlobDirectory
    disk_pool: ThreadPool
    index_pool: ThreadPool
    index: Index
    store: Store
    housekeeping: Housekeeping
    grants: Grants
    token_key: TokenKey
    access_log: AccessLog
    backoff: BackOff
    rate_limits: RateLimits
    ledger: Ledger
    traffic: Traffic
    events: Events
    history: History
    loop_delay: LoopDelay
    places: OwnPlaces
    system_resolver: IHostnameResolver
    ca: Authority
    parts: Parts

    @classmethod
    def lay(cls, reactor: Any, config: Config) -> Foundation:
        """Load or make the CA, and prepare the store without opening it.

        Raises:
            CAError: the CA cannot be used.
        """
        authority = RotatingAuthority.load(config.ca_directory, _passphrase(config.ca), _now)
        directory = BlobDirectory(config.cache_directory)
        disk_pool = ThreadPool(0, DISK_THREADS, "disk")
        index_pool = ThreadPool(0, 1, "index")
        index = Index(
            directory.root / "index.sqlite3", ThreadWorkers(reactor, index_pool), time.time
        )
        workers = ThreadWorkers(reactor, disk_pool)
        store = Store(directory, index, workers, reactor, time.time)
        under_way: set[UnderWay] = set()
        traffic, events = Traffic(config, under_way), Events(time.time())
        ledger = Ledger(traffic.name_of, time.time)
        history = History(partial(_totals, traffic, ledger), time.time, time.monotonic)
        connections = Connections()
        ca = Authority(authority, workers)
        rooms = Rooms(
            traffic=traffic,
            ledger=ledger,
            rate_limits=RateLimits(reactor),
            backoff=BackOff(reactor, time.time),
            store=store,
            housekeeping=Housekeeping(store, directory, workers, reactor, time.time, config.cache),
            loop_delay=LoopDelay(reactor, time.monotonic),
            connections=connections.open.total,
            ca=ca.state,
        )
        return cls(
            reactor=reactor,
            authority=authority,
            leaves=LeafCache(authority, _now),
            handshakes=Handshakes(),
            connections=connections,
            directory=directory,
            disk_pool=disk_pool,
            index_pool=index_pool,
            index=index,
            store=store,
            housekeeping=rooms.housekeeping,
            grants=Grants(reactor),
            token_key=TokenKey(config.data / "tokens.key"),
            access_log=AccessLog(reactor, partial(_count, traffic, events), under_way),
            backoff=rooms.backoff,
            rate_limits=rooms.rate_limits,
            ledger=ledger,
            traffic=traffic,
            events=events,
            history=history,
            loop_delay=rooms.loop_delay,
            places=OwnPlaces(),
            system_resolver=reactor.nameResolver,
            ca=ca,
            parts=Parts.over(
                rooms, events, history, config, directory, workers, reactor, time.time
            ),
        )


@frozen
class House:
    """What one configuration determines: a factory for each way in, and the way out.

    Attributes:
        names: the name server.
        resolver: what the way out has to look names up with.
        own: where this proxy itself is.
        prefetch: fetches images that no client has asked for.
    """

    config: Config
    upstream: Upstream
    ways: dict[str, IProtocolFactory]
    names: NameService
    resolver: IHostnameResolver
    own: LeadsBack
    prefetch: Prefetch

    @classmethod
    def build(cls, foundation: Foundation, config: Config) -> House:
        """Build it on *foundation*."""
        reactor = foundation.reactor
        credentials = Credentials(reactor, config.credentials, os.environ)
        own = partial(_is_own, foundation.places, frozenset(map(ip_address, config.dns.addresses)))
        resolver = foundation.system_resolver
        if config.dns.upstream_resolvers:
            resolver = NameServerResolver(_name_servers(reactor, config.dns.upstream_resolvers))
        ways_out = WaysOut(reactor, resolver, _tls_policy)
        upstream = Upstream(
            ways_out,
            config,
            credentials,
            foundation.rate_limits,
            foundation.ledger,
            time.time,
            own,
        )
        patient = ConsiderateUpstream(upstream, foundation.backoff, config.limits.rate_limit_wait)
        way_out = OpenUpstream(patient)
        visibility = Visibility(
            foundation.index, way_out, reactor, time.time, config.freshness.stale_if_error
        )
        permissions = Permissions(foundation.index, way_out, foundation.grants, visibility)
        content = ContentService(
            foundation.store,
            way_out,
            permissions,
            config.limits,
            FillRules(finish_abandoned=config.cache.finish_abandoned),
            reactor,
        )
        tags = TagService(
            content,
            permissions,
            foundation.store,
            way_out,
            foundation.backoff,
            config.freshness,
            config.limits,
            reactor,
            time.time,
        )
        service = ClientFirst(
            RegistryService(content, tags, way_out, time.time),
            config,
            foundation.token_key,
            time.time,
        )
        registries = RegistryResource(service, config, reactor)
        guests = Guests(service)
        mirrored = RegistryResource(guests, config, reactor, MirrorDoor(config))

        def site(
            resource: IResource, entry: Entry, kind: type[StrictSite] = StrictSite
        ) -> StrictSite:
            limits = config.limits
            return kind(
                resource,
                entry,
                Limits(limits.request_head, limits.client_idle, limits.client_stall),
                reactor,
                foundation.access_log,
            )

        intercepted = site(registries, Entry("tls", impersonated=True))

        def secured(names: tuple[str, ...], inner: IProtocolFactory) -> IProtocolFactory:
            return TLSMemoryBIOFactory(_tls(foundation, names), False, inner, reactor)

        def enter(host: Host) -> IProtocolFactory:
            entry = Entry("connect", host, impersonated=True)
            return secured((host.name,), intercepted.entered_by(entry))

        def enter_by_name(decision: Intercept) -> IProtocolFactory:
            host = None if decision.any_port else decision.host
            entry = Entry("tls", host, impersonated=True)
            return secured((decision.host.name,), intercepted.entered_by(entry))

        def tunnels(way: str, method: str) -> Tunnels:
            return Tunnels(
                reactor,
                partial(_tunnel_endpoint, ways_out, config, own),
                config.limits,
                partial(_log_tunnel, foundation.access_log, way, method),
            )

        connect = partial(
            ConnectFactory,
            reactor,
            config.limits,
            decide=partial(decide, config),
            intercepted=enter,
            plain=site(
                PlainResource(
                    _welcome(foundation, config),
                    registries,
                    RelayResource(ways_out, config, own),
                    config,
                ),
                Entry("proxy"),
            ),
            tunnels=tunnels("connect", "CONNECT"),
        )
        own_names = config.proxy.tls_names
        ways: dict[str, IProtocolFactory] = {
            # In the proxy's own TLS there is no second one of its own.
            "proxy": connect(secure=partial(secured, own_names, connect()) if own_names else None),
            "tls": HelloFactory(
                reactor,
                config.limits,
                decide=partial(decide_by_name, config),
                intercepted=enter_by_name,
                tunnels=tunnels("tls", ""),
                log_refusal=partial(_log_refusal, foundation.access_log),
            ),
            "http": site(RedirectResource(registries, config), Entry("http")),
            "mirror": site(MirrorResource(mirrored), Entry("mirror"), MirrorSite),
            "management": site(_management(foundation, config), Entry("management")),
        }
        names = NameService(
            ResolutionRules.of(config),
            int(config.dns.ttl),
            _name_servers(reactor, config.dns.forward_to),
        )
        prefetch = Prefetch(guests, config, foundation.store)
        return cls(config, upstream, ways, names, resolver, own, prefetch)


def _count(traffic: Traffic, events: Events, record: AccessRecord) -> None:
    traffic.record(record)
    events.record(record)


def _totals(traffic: Traffic, ledger: Ledger) -> Totals:
    served = sum(traffic.served().values(), start=Served())
    return Totals(served.bytes, ledger.bytes, served.requests, served.hits)


def _passphrase(section: CASection) -> bytes | None:
    if section.passphrase_file is not None:
        return section.passphrase_file.read_bytes().strip()
    return None if section.passphrase is None else section.passphrase.encode()


def _now() -> datetime:
    return datetime.now(UTC)


def _tls_policy(trust: Trust) -> VerifyingPolicy:
    identity = None
    if trust.client_cert is not None and trust.client_key is not None:
        identity = trust.client_cert, trust.client_key
    return VerifyingPolicy(trust.ca_file, trust.insecure, identity)


def fingerprint(foundation: Foundation) -> str:
    """The SHA-256 fingerprint of the root that clients have to trust, as people compare it."""
    return foundation.authority.chain[-1].fingerprint(hashes.SHA256()).hex(":").upper()


def _welcome(foundation: Foundation, config: Config) -> OpenSite:
    pages, facts = Pages(PROXY, _now), Facts.of(config)
    setup = SetupResource(facts, foundation.ca.pem, pages.render, at_proxy_port=True)
    return OpenSite(pages, foundation.ca, facts, {"setup": setup})


def _management(foundation: Foundation, config: Config) -> ManagementSite:
    reactor, parts = foundation.reactor, foundation.parts
    # A guard takes no more than two of the threads at a time.
    workers = ThreadWorkers(reactor, foundation.disk_pool)
    guard = Guard(config.management, workers, reactor, parts.bad_logins)
    sources = PageSources(
        overview=parts.overview,
        fills=parts.fills,
        events=parts.events,
        history=parts.history,
        images=parts.images,
        jobs=parts.jobs,
        authority=foundation.ca,
    )
    pages, facts = Pages(MANAGEMENT, _now), Facts.of(config)
    others = {
        "api": ApiResource((*parts.operations(), *ca_operations(foundation.ca)), guard),
        "readyz": ReadyResource(parts.readiness),
        "setup": SetupResource(facts, foundation.ca.pem, pages.render, at_proxy_port=False),
    }
    return ManagementSite(pages, sources, guard, _metrics(foundation), facts, others, _now)


def _metrics(foundation: Foundation) -> Metrics:
    sources = Sources(
        traffic=foundation.traffic,
        ledger=foundation.ledger,
        rate_limits=foundation.rate_limits,
        backoff=foundation.backoff,
        store=foundation.store,
        housekeeping=foundation.housekeeping,
        connections=foundation.connections,
        handshakes=foundation.handshakes,
        leaves=foundation.leaves,
        loop_delay=foundation.loop_delay,
        ca_expires=lambda: min(each.not_valid_after_utc for each in foundation.authority.chain),
    )
    return Metrics(sources, foundation.reactor)


def _tunnel_endpoint(
    ways_out: WaysOut, config: Config, own: LeadsBack, host: Host
) -> IStreamClientEndpoint:
    ports = None if config.relay.any_port else frozenset({HTTPS_PORT})
    guard = AddressGuard.relaying(config.relay, ports, own)
    return ways_out.endpoint(host, guard, config.line(RegistrySection()))


def _name_servers(reactor: Any, servers: tuple[str, ...]) -> NameServers:
    return NameServers(
        NetworkExchange(reactor),
        tuple(map(ServerAddress.parse, servers)),
        AnswerCache(reactor.seconds),
        reactor,
    )


def _is_own(
    places: OwnPlaces,
    names_lead_to: frozenset[IPv4Address | IPv6Address],
    address: str,
    port: int,
) -> bool:
    """Whether this process listens there, or clients are sent there."""
    led_here = port == HTTPS_PORT and ip_address(address) in names_lead_to
    return led_here or places.holds(address, port)


def _tls(foundation: Foundation, names: tuple[str, ...]) -> ServerTLS:
    try:
        return ServerTLS(foundation.leaves.context(*names), foundation.handshakes)
    except CAError as error:
        raise OwnFailure(str(error)) from error


def _log_refusal(
    access_log: AccessLog, client: str, name: str | None, error: RegistryError
) -> None:
    access_log.record(
        AccessRecord(
            time=time.time(),
            client=client,
            way="tls",
            method="",
            registry=name,
            repository=None,
            reference=None,
            status=int(error.status),
            bytes=0,
            duration=0.0,
            cache="none",
            reason=error.message,
        )
    )


def _log_tunnel(access_log: AccessLog, way: str, method: str, record: TunnelRecord) -> None:
    access_log.record(
        AccessRecord(
            time=time.time() - record.duration,
            client=record.client,
            way=way,
            method=method,
            registry=str(record.host),
            repository=None,
            reference=None,
            status=record.status,
            bytes=record.bytes_down,
            duration=record.duration,
            cache="tunnel" if record.outcome is Outcome.TUNNEL else "none",
            reason=record.reason,
            kind=RequestKind.TUNNEL,
        )
    )

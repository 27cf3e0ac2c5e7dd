"""The configuration as frozen values. Plain data: any floor may read it.

One section of the file is one class; the attribute is the key. Durations are
seconds, sizes are bytes. What a key means to a user is told in
``docs/reference/configuration.md``.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

from attrs import Factory, asdict, evolve, field, frozen

from regproxy.config.wayout import (
    DEFAULT_UPSTREAM,
    Family,
    Line,
    ParentProxy,
    Trust,
    UpstreamSection,
)
from regproxy.oci.errors import HostInvalid
from regproxy.oci.names import DOCKER_HUB, HTTPS_PORT, Host

MiB: Final = 1 << 20
GiB: Final = 1 << 30
MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


class Auth(StrEnum):
    """Who authenticates at the upstream."""

    FORWARD = "forward"
    INJECT = "inject"
    CLIENT_FIRST = "client-first"


class Access(StrEnum):
    """Who may read what is stored of a registry."""

    PUBLIC = "public"
    SHARED = "shared"
    VERIFY = "verify"


class Push(StrEnum):
    """What happens to a push."""

    FORWARD = "forward"
    DENY = "deny"


class TagSource(StrEnum):
    """Whose word counts about tags."""

    ORIGIN = "origin"
    FIRST = "first"


@frozen
class HostPattern:
    """``host``, ``host:port`` or ``*.suffix``, possibly with stars inside the suffix.

    A star stands for one or more characters of the name, dots included. A
    pattern without a port means port 443.
    """

    text: str
    port: int = 443

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Read a pattern.

        Raises:
            ValueError: it is no pattern; the message says what one is.
        """
        if "*" not in text:
            try:
                host = Host.parse(text)
            except HostInvalid:
                raise ValueError("expected a host, host:port or *.suffix") from None
            return cls(host.name, host.port)
        name, colon, port = text.lower().partition(":")
        if not re.fullmatch(r"[a-z0-9.*_-]+", name) or name.strip("*.") == "":
            raise ValueError("expected a host, host:port or *.suffix")
        if colon and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
            raise ValueError("expected a port from 1 to 65535 after the colon")
        return cls(name, int(port) if colon else 443)

    def matches(self, host: Host) -> bool:
        """Whether *host* is one of these."""
        return host.port == self.port and _regex(self.text).fullmatch(host.name) is not None

    def __str__(self) -> str:
        return str(Host(self.text, self.port))


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(".+".join(re.escape(part) for part in pattern.split("*")))


DEFAULT_HOSTS: Final = tuple(
    HostPattern.parse(text)
    for text in (
        "registry-1.docker.io",
        "docker.io",
        "index.docker.io",
        "auth.docker.io",
        "ghcr.io",
        "quay.io",
        "registry.k8s.io",
        "gcr.io",
        "*.gcr.io",
        "*-docker.pkg.dev",
        "mcr.microsoft.com",
        "public.ecr.aws",
        "*.dkr.ecr.*.amazonaws.com",
        "registry.gitlab.com",
        "nvcr.io",
        "docker.elastic.co",
        "lscr.io",
    )
)

# What dockerd takes its registry-mirrors to be mirrors of.
DEFAULT_REGISTRY: Final = Host(DOCKER_HUB)


@frozen
class ProxySection:
    """``[proxy]``: the HTTP proxy that clients name in HTTPS_PROXY.

    With ``tls_names``, host names and addresses of the proxy itself, it speaks TLS on the
    same ports, to clients that begin with it.
    """

    listen: tuple[str, ...] = ("tcp:3128",)
    tls_names: tuple[str, ...] = ()


@frozen
class TLSSection:
    """``[tls]``: TLS straight to a registry's name. Off unless it listens somewhere.

    What is not intercepted is passed on to the name's own server with ``passthrough``, and
    otherwise refused; a client that names no server gets ``default_registry``, if there is
    one. ``http_listen`` is for clients that try plain HTTP at the registry's name.
    """

    listen: tuple[str, ...] = ()
    passthrough: bool = False
    default_registry: Host | None = None
    http_listen: tuple[str, ...] = ()


@frozen
class MirrorSection:
    """``[mirror]``: a mirror of all registries under a name of its own.

    Off unless it listens somewhere. A request that names no registry is for
    ``default_registry``.
    """

    listen: tuple[str, ...] = ()
    default_registry: Host = DEFAULT_REGISTRY


#: This machine, and the networks that are nobody's on the Internet (RFC 1918, RFC 4193).
PRIVATE_NETWORKS: Final = (
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
)


@frozen
class DNSSection:
    """``[dns]``: a name server whose clients come here for what is intercepted.

    Addresses of name servers have a port if it is not 53: ``10.0.0.5``, ``[fd00::5]:5353``.
    ``ttl`` is in seconds. ``upstream_resolvers`` are for this proxy's own look-ups; without any
    it asks as the system does.
    """

    listen: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    forward_to: tuple[str, ...] = ()
    authoritative: bool = False
    ttl: float = 60.0
    clients: tuple[str, ...] = PRIVATE_NETWORKS
    upstream_resolvers: tuple[str, ...] = ()


@frozen
class ManagementSection:
    """``[management]``: the site for people and machines.

    Clients in the networks ``read_from`` may look at everything but content. To change something
    takes the token in ``token_file`` or a login of ``htpasswd_file``; without either, it takes
    a client on this machine.
    """

    listen: tuple[str, ...] = ("tcp:8080:interface=127.0.0.1",)
    read_from: tuple[str, ...] = PRIVATE_NETWORKS
    token_file: Path | None = None
    htpasswd_file: Path | None = None


@frozen
class InterceptionSection:
    """``[interception]``: whose TLS is ended here, besides the hosts of ``[registries]``."""

    hosts: tuple[HostPattern, ...] = DEFAULT_HOSTS


@frozen
class RelaySection:
    """``[relay]``: exceptions from what may be relayed.

    Each entry of ``allow`` is an address, a network, or either with a port:
    ``10.0.0.0/8``, ``192.0.2.7:8443``, ``[2001:db8::]/32``. Entries without a
    port open port 443 only. With ``allow_private`` private addresses count as public
    ones, with ``any_port`` tunnels go to all ports. ``allow_http`` also relays requests
    for http URLs, to port 80.
    """

    allow: tuple[str, ...] = ()
    allow_private: bool = False
    any_port: bool = False
    allow_http: bool = False


@frozen
class CacheSection:
    """``[cache]``: the store. ``directory`` defaults to ``data``/cache.

    Of the least recently used, as much goes as ``max_size`` and ``min_free`` (bytes
    free on the file system; 0 for no such bound) ask for, and everything that was
    ``inactive`` for so many seconds. What was not verified for ``verify`` seconds is read
    again; 0 for never.
    """

    directory: Path | None = None
    # Content up to this size is fetched to the end when all its clients have left;
    # of larger content more than half has to be here.
    finish_abandoned: int = GiB
    max_size: int = 32 * GiB
    inactive: float = 60 * DAY
    min_free: int = 0
    verify: float = 30 * DAY


@frozen
class CASection:
    """``[ca]``: the certificate authority. ``directory`` defaults to ``data``/ca."""

    directory: Path | None = None
    # Not in the repr: it would reach logs and tracebacks.
    passphrase: str | None = field(default=None, repr=False)
    passphrase_file: Path | None = None


@frozen
class CredentialsSection:
    """``[credentials]``: where logins are besides the sections of registries.

    Files in the format of Docker's ``config.json``; the first that has a login for a
    registry counts.
    """

    docker_config: tuple[Path, ...] = ()


@frozen
class FreshnessRule:
    """``[[freshness.rule]]``: tags that ``match`` stay fresh for ``max_age`` seconds."""

    match: re.Pattern[str]
    max_age: float


@frozen
class FreshnessSection:
    """``[freshness]``: how long a tag is answered without asking upstream.

    ``not_found`` is for the answer that there is no such tag. By default each client
    sees a tag as soon as it is there, whoever pushes it and by which way.
    """

    default: float = 0.0
    stale_if_error: float = 7 * DAY
    not_found: float = 0.0
    rule: tuple[FreshnessRule, ...] = ()


@frozen
class LimitsSection:
    """``[limits]``: bounds on clients and upstreams. Durations in seconds."""

    # A client has this long to send one request head, however it drips.
    request_head: float = 30.0
    # An idle connection is closed after this long.
    client_idle: float = 5 * MINUTE
    # A client that takes no byte of a response for this long is cut off.
    client_stall: float = 5 * MINUTE
    # Both directions of a tunnel silent for this long, and its whole life.
    tunnel_idle: float = 10 * MINUTE
    tunnel_total: float = 1 * DAY
    connect: float = 10.0
    # containerd 2.3 gives up when response headers take 30 s.
    upstream_head: float = 25.0
    upstream_idle: float = 60.0
    # A registry verifies a layer, and may copy it, before it answers an upload.
    upstream_upload: float = 15 * MINUTE
    # Bytes a second, over upstream_idle seconds, below which a body counts as stalled.
    upstream_rate: int = 512
    # Requests wait this long for a registry that limits their rate; then they get a 429.
    rate_limit_wait: float = 10.0
    upstream_head_size: int = 64 * 1024
    # The distribution specification asks registries to take manifests of at
    # least 4 MiB; Docker's client reads no more than that.
    manifest_size: int = 4 * MiB
    # Docker kills what has not ended 10 s after it was asked to.
    drain: float = 8.0


@frozen
class RegistryLimits:
    """``[registries."HOST".limits]``: what ``[limits]`` says, for one registry."""

    connect: float | None = None
    upstream_head: float | None = None
    upstream_idle: float | None = None
    upstream_rate: int | None = None

    def over(self, limits: LimitsSection) -> LimitsSection:
        """*limits* with what is said here."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        return evolve(limits, **said)


@frozen
class RegistrySection:
    """``[registries."HOST"]``: how one registry is reached and who may read it.

    ``upstream`` names mirrors, and the registry's own address last. ``proxy``,
    ``source_address`` and ``family`` of None are those of ``[upstream]``. ``auth`` and
    ``access`` of None mean the defaults, which depend on whether there are credentials: see
    :attr:`effective_auth`, :attr:`effective_access`. Where ``[credentials]`` has a login,
    ``auth`` is filled in when the configuration is loaded.
    """

    upstream: tuple[str, ...] = ()
    tag_source: TagSource = TagSource.ORIGIN
    auth: Auth | None = None
    username: str | None = None
    # Not in the repr: it would reach logs and tracebacks.
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    access: Access | None = None
    push: Push = Push.FORWARD
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    insecure: bool = False
    plain_http: bool = False
    relay_private: bool = False
    proxy: ParentProxy | None = None
    source_address: tuple[str, ...] | None = None
    family: Family | None = None
    limits: RegistryLimits = RegistryLimits()

    @property
    def has_mirrors(self) -> bool:
        """Whether anybody besides the registry itself has its content."""
        return len(self.upstream) > 1

    @property
    def trust(self) -> Trust:
        """What decides about TLS with its servers."""
        return Trust(self.ca_file, self.insecure, self.client_cert, self.client_key)

    @property
    def for_strangers(self) -> RegistrySection:
        """The section of a host that a server of this one names, and that has none itself.

        It is reached in the same way, and trusted with nothing.
        """
        return RegistrySection(
            proxy=self.proxy,
            source_address=self.source_address,
            family=self.family,
            limits=self.limits,
        )

    @property
    def effective_auth(self) -> Auth:
        """``inject`` when there are credentials, else ``forward``."""
        if self.auth is not None:
            return self.auth
        return Auth.INJECT if self.username is not None else Auth.FORWARD

    @property
    def effective_access(self) -> Access:
        """``shared`` with ``inject``, else ``verify``."""
        if self.access is not None:
            return self.access
        return Access.SHARED if self.effective_auth is Auth.INJECT else Access.VERIFY


_DEFAULTS: Final = RegistrySection()


@frozen
class Config:
    """A whole configuration file, with the defaults filled in."""

    data: Path
    proxy: ProxySection = ProxySection()
    tls: TLSSection = TLSSection()
    mirror: MirrorSection = MirrorSection()
    dns: DNSSection = DNSSection()
    management: ManagementSection = ManagementSection()
    interception: InterceptionSection = InterceptionSection()
    relay: RelaySection = RelaySection()
    upstream: UpstreamSection = DEFAULT_UPSTREAM
    cache: CacheSection = CacheSection()
    ca: CASection = CASection()
    freshness: FreshnessSection = FreshnessSection()
    limits: LimitsSection = LimitsSection()
    credentials: CredentialsSection = CredentialsSection()
    registries: dict[Host, RegistrySection] = Factory(dict)

    @property
    def cache_directory(self) -> Path:
        """Where the store is."""
        return self.cache.directory or self.data / "cache"

    @property
    def ca_directory(self) -> Path:
        """Where ``ca.crt`` and ``ca.key`` are."""
        return self.ca.directory or self.data / "ca"

    def intercepts(self, host: Host) -> bool:
        """Whether connections to *host* are intercepted."""
        return host.canonical in self.registries or any(
            pattern.matches(host) for pattern in self.interception.hosts
        )

    def intercepts_name(self, name: str) -> bool:
        """Whether connections to *name* are intercepted at any port."""
        ports = {HTTPS_PORT}
        ports |= {host.port for host in self.registries}
        ports |= {pattern.port for pattern in self.interception.hosts}
        return any(self.intercepts(Host(name, port)) for port in ports)

    def registry(self, host: Host) -> RegistrySection:
        """The section of *host*, with ``upstream`` filled in.

        A host without a section gets the defaults, whether it is intercepted or not.
        """
        host = host.canonical
        section = self.registries.get(host, _DEFAULTS)
        if section.upstream:
            return section
        scheme = "http" if section.plain_http else "https"
        return evolve(section, upstream=(f"{scheme}://{host}",))

    def line(self, section: RegistrySection) -> Line:
        """How connections to the servers of *section* go out.

        The exceptions of ``[upstream]`` are from its own proxy: a section that names one
        means it.
        """
        common = self.upstream
        return Line(
            proxy=section.proxy or common.proxy,
            exempt=common.no_proxy if section.proxy is None else (),
            source_address=(
                common.source_address if section.source_address is None else section.source_address
            ),
            family=section.family or common.family,
            connect=section.limits.over(self.limits).connect,
        )

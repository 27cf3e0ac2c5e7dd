"""The servers behind a registry's name, and what holds for each of them. Pure.

What a registry is trusted with (logins, client certificates) is for its own host, which is
the last of its upstreams. A mirror on another host is trusted with nothing of it. What
the mirror itself needs stands in a section of its own.
"""

from __future__ import annotations

from attrs import evolve, frozen

from regproxy.config.model import Auth, Config, RegistrySection
from regproxy.oci.names import Host
from regproxy.upstream.redirects import URL


@frozen
class Server:
    """One server.

    Attributes:
        owner: the identity whose section holds. Credentials do not go from one owner to another.
        section: its ``upstream`` is this server alone.
    """

    owner: Host
    section: RegistrySection

    @property
    def base(self) -> URL:
        """Where it is."""
        return URL.parse(self.section.upstream[-1])


def servers(config: Config, host: Host) -> tuple[Server, ...]:
    """The servers of the registry *host*: its mirrors, then its origin.

    Args:
        host: canonical.
    """
    section = config.registry(host)
    *mirrors, origin = map(URL.parse, section.upstream)
    own = Server(host, _at(origin, section))
    return (*(_mirror(config, own, base) for base in mirrors), own)


def _mirror(config: Config, own: Server, base: URL) -> Server:
    host = base.host.canonical
    if base.origin == own.base.origin or host == own.owner:
        return Server(own.owner, _at(base, own.section))
    if host in config.registries:
        section = config.registry(host)
        return Server(host, _at(base.under(_origin(section)), section))
    bare = evolve(
        own.section,
        auth=Auth.FORWARD,
        username=None,
        password=None,
        password_file=None,
        client_cert=None,
        client_key=None,
    )
    return Server(host, _at(base, bare))


def named(config: Config, server: Server, url: URL) -> tuple[Server, URL]:
    """The server that *url* leads to, which *server* has named, and what is asked of it.

    A host with a section of its own is reached as that says.
    """
    if url.origin == server.base.origin:
        return server, url
    owner = url.host.canonical
    if owner in config.registries:
        section = config.registry(owner)
        origin = _origin(section)
        return Server(owner, _at(origin, section)), url.under(origin)
    root = URL(url.scheme, url.host, "/")
    return Server(url.host, _at(root, server.section.for_strangers)), url


def _origin(section: RegistrySection) -> URL:
    return URL.parse(section.upstream[-1])


def _at(base: URL, section: RegistrySection) -> RegistrySection:
    return evolve(section, upstream=(str(base),))

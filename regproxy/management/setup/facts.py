"""What scripts need to know of this proxy: a configuration, seen from its clients."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from attrs import frozen

from regproxy.config.model import Config
from regproxy.oci.names import DOCKER_HUB, HTTPS_PORT, Host
from regproxy.policy.resolution import DNS_PORT, ServerAddress

_PORT: Final = re.compile(r"(?:\b(?:tcp6?|ssl):|:port=)([0-9]+)")
#: Where ``[proxy]`` listens unless the configuration says otherwise.
PROXY_PORT: Final = 3128


@frozen
class Door:
    """A listener as its clients write it in a URL, but for the name."""

    scheme: str
    port: int


@frozen
class Facts:
    """What holds for all clients.

    Attributes:
        proxy_port: of the ``[proxy]`` listener, if possible one that others than this machine
            can reach.
        mirror: the ``[mirror]`` listener; None when there is none.
        name_server: the address of the ``[dns]`` listener, if it is at port 53; None when
            there is none.
        registries: hosts that are intercepted, as references to images have them. Patterns
            with stars are not among them.
        plain_http: requests for http URLs, too, are for the proxy.
        tls_ports: those of ``[proxy]`` listeners that take nothing but TLS.
    """

    proxy_port: int
    mirror: Door | None
    name_server: str | None
    registries: tuple[Host, ...]
    plain_http: bool
    tls_ports: frozenset[int] = frozenset()

    @classmethod
    def of(cls, config: Config) -> Facts:
        """Those of *config*."""
        exact = [
            Host(pattern.text, pattern.port)
            for pattern in config.interception.hosts
            if "*" not in pattern.text
        ]
        # Of Docker Hub's names, references to images have the short one.
        hosts = dict.fromkeys(
            Host("docker.io") if host.canonical == Host(DOCKER_HUB) else host
            for host in (*config.registries, *exact)
        )
        listen = sorted(config.proxy.listen, key=lambda each: "interface=127." in each)
        return cls(
            proxy_port=port_of(listen) or PROXY_PORT,
            mirror=_door(config.mirror.listen),
            name_server=_name_server(config),
            registries=tuple(hosts),
            plain_http=config.relay.allow_http
            or any(section.plain_http for section in config.registries.values()),
            tls_ports=frozenset(
                port for each in listen if "ssl:" in each and (port := port_of([each]))
            ),
        )

    def url(self, proxy: Host) -> str:
        """The URL of the proxy that is reached as *proxy*."""
        scheme = "https" if proxy.port in self.tls_ports else "http"
        return f"{scheme}://{proxy.authority}"

    @property
    def probe(self) -> str | None:
        """The registry that a client asks to see that all is well; None without a fit one."""
        fit = [host for host in self.registries if host.port == HTTPS_PORT and not host.is_address]
        # The one that scripts are most wanted for; the name that images have is not its server.
        if Host("docker.io") in fit:
            return DOCKER_HUB
        return str(fit[0]) if fit else None


def port_of(listen: Iterable[str]) -> int | None:
    """The TCP port of the first description that has one."""
    return next((int(match[1]) for each in listen if (match := _PORT.search(each))), None)


def _door(listen: tuple[str, ...]) -> Door | None:
    for description in listen:
        if match := _PORT.search(description):
            return Door("https" if "ssl:" in description else "http", int(match[1]))
    return None


def _name_server(config: Config) -> str | None:
    for each in map(ServerAddress.parse, config.dns.listen):
        if each.port == DNS_PORT:
            if ip_address(each.address).is_unspecified:
                return config.dns.addresses[0]
            return each.address
    return None

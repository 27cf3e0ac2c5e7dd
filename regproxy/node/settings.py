"""What is wanted of a machine, read from the environment of the container."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from attrs import frozen

from regproxy.node.errors import SettingsInvalid
from regproxy.oci.errors import HostInvalid
from regproxy.oci.names import DOCKER_HUB, Host

#: What containerd takes for all registries that have no directory of their own.
ALL: Final = "_default"
# The values are written into files of systemd, of shells and in TOML: nothing in them may
# mean anything there.
_URL: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")
_NO_PROXY: Final = re.compile(r"[A-Za-z0-9.,:/*\[\]_-]*")


class Mode(StrEnum):
    """How the machine comes to the proxy."""

    PROXY = "proxy"
    MIRROR = "mirror"
    DNS = "dns"
    UNDO = "undo"


@frozen
class Settings:
    """What is wanted.

    Attributes:
        proxy, mirror: URLs of the listeners, as the machine reaches them; empty if not used.
        no_proxy: what is not for the proxy, as Docker and containerd read ``NO_PROXY``.
        servers: addresses of the ``[dns]`` listeners.
        hosts: registries as people name them, or :data:`ALL`.
        ca: the CA's certificate, PEM; empty where none is needed.
    """

    mode: Mode
    proxy: str = ""
    no_proxy: str = ""
    mirror: str = ""
    servers: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    ca: bytes = b""

    @classmethod
    def read(cls, environ: Mapping[str, str], ca_file: Path) -> Self:
        """Read the variables ``NODE_*``, and the CA's certificate where the mode needs it.

        Raises:
            SettingsInvalid: with the variable, what was found and what is allowed.
        """
        text = environ.get("NODE_MODE", "")
        try:
            mode = Mode(text)
        except ValueError:
            raise SettingsInvalid(
                f"NODE_MODE is {text!r}: expected one of {', '.join(Mode)}"
            ) from None
        if mode is Mode.UNDO:
            return cls(mode)
        hosts = tuple(map(_host, environ.get("NODE_HOSTS", "").split()))
        if not hosts:
            raise SettingsInvalid("NODE_HOSTS is empty: expected names of registries")
        if mode is not Mode.MIRROR and ALL in hosts:
            raise SettingsInvalid(f"NODE_HOSTS has {ALL}, which is for mirrors only")
        if mode is Mode.MIRROR:
            return cls(mode, mirror=_url(environ, "NODE_MIRROR"), hosts=hosts)
        ca = _certificate(ca_file)
        if mode is Mode.PROXY:
            no_proxy = environ.get("NODE_NO_PROXY", "")
            if not _NO_PROXY.fullmatch(no_proxy):
                raise SettingsInvalid(f"NODE_NO_PROXY is {no_proxy!r}: expected hosts and networks")
            proxy = _url(environ, "NODE_PROXY")
            return cls(mode, proxy=proxy, no_proxy=no_proxy, hosts=hosts, ca=ca)
        return cls(mode, servers=_addresses(environ, "NODE_DNS"), hosts=hosts, ca=ca)

    @property
    def registries(self) -> tuple[str, ...]:
        """The hosts that are one registry each."""
        return tuple(host for host in self.hosts if host != ALL)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that clients look up for these registries."""
        names = dict.fromkeys(server(host).name for host in self.registries)
        if DOCKER_HUB in names:
            names["auth.docker.io"] = None
        return tuple(names)


def server(host: str) -> Host:
    """Where clients connect to for the registry *host*."""
    return Host.parse(host).canonical


def _host(text: str) -> str:
    try:
        return text if text == ALL else str(Host.parse(text))
    except HostInvalid:
        raise SettingsInvalid(
            f"NODE_HOSTS has {text!r}: expected a host, host:port, or {ALL}"
        ) from None


def _url(environ: Mapping[str, str], name: str) -> str:
    text = environ.get(name, "").rstrip("/")
    try:
        good = bool(_URL.fullmatch(text) and urlsplit(text).hostname and urlsplit(text).port)
    except ValueError:
        good = False
    if not good:
        raise SettingsInvalid(f"{name} is {text!r}: expected http://HOST:PORT or https://HOST:PORT")
    return text


def _addresses(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    texts = environ.get(name, "").split()
    try:
        addresses = tuple(str(ip_address(text)) for text in texts)
    except ValueError as error:
        raise SettingsInvalid(f"{name}: {error}") from None
    if not addresses:
        raise SettingsInvalid(f"{name} is empty: expected addresses of name servers")
    return addresses


def _certificate(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}: expected the CA's certificate") from None
    if b"PRIVATE KEY-----" in content:
        raise SettingsInvalid(f"{file} holds a private key, which no machine must have")
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise SettingsInvalid(f"{file}: expected a certificate, PEM")
    return content

"""A configuration file becomes a :class:`~regproxy.config.model.Config`, and back."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import tomli_w
from attrs import evolve, fields
from cattrs import BaseValidationError

from regproxy.config.check_management import finish_management
from regproxy.config.check_wayout import (
    ReadFile,
    certificates,
    content,
    finish_proxy,
    finish_upstream,
    login_problems,
    password,
    registry_problems,
)
from regproxy.config.model import (
    Auth,
    CacheSection,
    CASection,
    Config,
    DNSSection,
    FreshnessSection,
    LimitsSection,
    ManagementSection,
    MirrorSection,
    ProxySection,
    RegistryLimits,
    RegistrySection,
    RelaySection,
    TLSSection,
)
from regproxy.config.name_server import finish_dns
from regproxy.config.structure import (
    KeyPath,
    Problem,
    Problems,
    make_converter,
    path_text,
    problems,
)
from regproxy.config.units import format_duration
from regproxy.config.wayout import ParentProxy, UpstreamSection
from regproxy.oci.errors import HostInvalid, shown
from regproxy.oci.names import HTTPS_PORT, Host
from regproxy.policy.addresses import AllowEntry
from regproxy.upstream.docker_config import DockerConfigInvalid, parse_docker_config

MASK: Final = "********"
# Seconds. Who has just pushed a tag by another way does not wait for long.
NOT_FOUND_MAX: Final = 10.0

_Section = TypeVar("_Section")
_Listening = TypeVar("_Listening", ProxySection, TLSSection, MirrorSection, ManagementSection)
_Login = TypeVar("_Login", RegistrySection, ParentProxy)

_UPSTREAM_EXPECTED: Final = "expected http(s)://HOST[:PORT][/PREFIX]"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# The prefix has segments of unreserved characters (RFC 3986 section 2.3) that are
# neither "." nor "..".
_UPSTREAM: Final = re.compile(
    r"(https?)://([^/?#@\s]+)((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*)/?", re.IGNORECASE
)


class ConfigError(Exception):
    """A configuration that cannot be used.

    Attributes:
        problems: one line for each, with the key path; never a password.
    """

    def __init__(self, filename: str, lines: list[str]) -> None:
        super().__init__("\n".join(f"{filename}: {line}" for line in lines))
        self.problems = tuple(lines)


def load(
    path: Path | None,
    *,
    environ: Mapping[str, str] = os.environ,
    uid: int | None = None,
) -> Config:
    """Read the file at *path*; None stands for all defaults.

    Relative paths in it start at its directory. *environ* and *uid* (default: the
    process's) decide the default of ``data``.

    Raises:
        ConfigError: the file or what it says cannot be used.
    """
    data = default_data(os.geteuid() if uid is None else uid, environ)
    if path is None:
        return loads("", "default configuration", data=data)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"not UTF-8 at octet {error.start}"]) from None
    return loads(text, str(path), data=data, directory=path.absolute().parent)


def loads(
    text: str,
    filename: str,
    *,
    data: Path | None,
    directory: Path = Path("/"),
    read: ReadFile = Path.read_bytes,
) -> Config:
    """Read a configuration.

    Args:
        text: TOML.

    Others, and Raises:
        see :func:`from_table`.
    """
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        # Most are TOMLDecodeError; a number of thousands of digits is not.
        raise ConfigError(filename, [f"not TOML: {error}"]) from None
    except RecursionError:
        raise ConfigError(filename, ["not TOML: nested too deeply"]) from None
    return from_table(table, filename, data=data, directory=directory, read=read)


def from_table(
    table: dict[str, Any],
    filename: str,
    *,
    data: Path | None,
    directory: Path = Path("/"),
    read: ReadFile = Path.read_bytes,
) -> Config:
    """Make a configuration of what TOML has.

    Args:
        filename: for messages.
        data: the default of ``data``; None if there is none.
        directory: where relative paths start.
        read: gives the content of the files that are named, or raises OSError.

    Raises:
        ConfigError: with all problems at once.
    """
    if data is not None:
        table = {"data": str(data), **table}
    converter = make_converter(
        directory,
        {
            ProxySection: _finish_proxy,
            TLSSection: partial(_finish_listening, keys=("listen", "http_listen")),
            MirrorSection: _finish_listening,
            ManagementSection: lambda section: finish_management(read, _finish_listening(section)),
            DNSSection: finish_dns,
            RelaySection: _finish_relay,
            CacheSection: partial(_finish_positive, ("max_size", "inactive")),
            FreshnessSection: _finish_freshness,
            LimitsSection: partial(_finish_positive, [a.name for a in fields(LimitsSection)]),
            CASection: partial(_finish_ca, read),
            ParentProxy: partial(finish_proxy, read),
            UpstreamSection: finish_upstream,
            RegistryLimits: partial(_finish_positive, [a.name for a in fields(RegistryLimits)]),
            RegistrySection: partial(_finish_registry, read),
            Config: partial(_finish_config, read),
        },
    )
    try:
        config = converter.structure(table, Config)
    except (BaseValidationError, Problems) as error:
        lines = [f"{path_text(path)}: {message}" for path, message in problems(error)]
        raise ConfigError(filename, lines) from None
    return resolved(config)


def resolved(config: Config) -> Config:
    """*config* with every default that depends on other keys filled in."""
    registries = {}
    for host in config.registries:
        section = config.registry(host)
        registries[host] = evolve(
            section,
            upstream=tuple(_upstream(url, section.plain_http) for url in section.upstream),
            auth=section.effective_auth,
            access=section.effective_access,
        )
    return evolve(
        config,
        cache=evolve(config.cache, directory=config.cache_directory),
        ca=evolve(config.ca, directory=config.ca_directory),
        registries=registries,
    )


def effective(config: Config) -> str:
    """*config* as TOML that :func:`loads` reads again, with passwords masked."""
    config = resolved(config)
    masked = evolve(
        config,
        ca=evolve(config.ca, passphrase=None if config.ca.passphrase is None else MASK),
        registries={host: _masked(section) for host, section in config.registries.items()},
        upstream=evolve(config.upstream, proxy=_masked_login(config.upstream.proxy)),
    )
    table = make_converter(Path("/"), {}).unstructure(masked)
    return tomli_w.dumps(_without_none(table))


def default_data(uid: int, environ: Mapping[str, str]) -> Path | None:
    """Where data goes if nothing is said: the system's place for root, else the user's.

    None when the environment names no home. The user's place is that of the XDG base
    directory specification, which has relative paths ignored.
    """
    if uid == 0:
        return Path("/var/lib/regproxy")
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        return state / "regproxy"
    home = Path(environ.get("HOME", ""))
    return home / ".local/state/regproxy" if home.is_absolute() else None


def _finish_listening(section: _Listening, keys: Iterable[str] = ("listen",)) -> _Listening:
    _raise_any(
        ((key, index), 'expected an endpoint such as "tcp:3128", found an empty text')
        for key in keys
        for index, endpoint in enumerate(getattr(section, key))
        if not endpoint.strip()
    )
    return section


def _finish_proxy(section: ProxySection) -> ProxySection:
    found: list[Problem] = []
    names = []
    for index, text in enumerate(section.tls_names):
        try:
            host = Host.parse(text)
        except HostInvalid:
            host = None
        if host is None or host.port != HTTPS_PORT:
            message = f"expected a host name or an address, found {shown(text)}"
            found.append((("tls_names", index), message))
        else:
            names.append(host.name)
    _raise_any(found)
    return _finish_listening(evolve(section, tls_names=tuple(names)))


def _finish_relay(section: RelaySection) -> RelaySection:
    def found() -> Iterator[Problem]:
        for index, entry in enumerate(section.allow):
            try:
                AllowEntry.parse(entry)
            except ValueError as error:
                yield ("allow", index), f"{error}, found {shown(entry)}"

    _raise_any(found())
    return section


def _finish_positive(keys: Iterable[str], section: _Section) -> _Section:
    _raise_any(
        ((key,), "expected more than 0, found 0") for key in keys if getattr(section, key) == 0
    )
    return section


def _finish_freshness(section: FreshnessSection) -> FreshnessSection:
    if section.not_found > NOT_FOUND_MAX:
        allowed, found = map(format_duration, (NOT_FOUND_MAX, section.not_found))
        raise Problems([(("not_found",), f"expected at most {allowed}, found {found}")])
    return section


def _finish_ca(read: ReadFile, section: CASection) -> CASection:
    found: list[Problem] = []
    if section.passphrase_file is not None:
        content(read, ("passphrase_file",), section.passphrase_file, found)
        if section.passphrase is not None:
            found.append((("passphrase_file",), "not together with passphrase: give one of them"))
    _raise_any(found)
    return section


def _finish_registry(read: ReadFile, section: RegistrySection) -> RegistrySection:
    found = list(login_problems(section.username, section.password, section.password_file))
    secret = password(read, section.password, section.password_file, found)
    if section.ca_file is not None:
        certificates(read, ("ca_file",), section.ca_file, found)
    found.extend(registry_problems(read, section))
    upstream = []
    for index, url in enumerate(section.upstream):
        try:
            upstream.append(_upstream(url, section.plain_http))
        except ValueError as error:
            found.append((("upstream", index), str(error)))
    _raise_any(found)
    return evolve(section, password=secret, upstream=tuple(upstream))


def _finish_config(read: ReadFile, config: Config) -> Config:
    """Fill in ``auth`` of the registries for which ``[credentials]`` has a login."""
    found: list[Problem] = []
    default = config.tls.default_registry
    if default is not None and not config.intercepts(default):
        message = f"not a registry of this proxy: add {default} to [registries]"
        found.append((("tls", "default_registry"), message))
    logins = _docker_logins(read, config.credentials.docker_config, found)
    _raise_any(found)
    registries = dict(config.registries)
    # Other hosts are tunnelled: their entries are not used.
    for host in sorted(filter(config.intercepts, logins)):
        section = registries.get(host, RegistrySection())
        registries[host] = evolve(section, auth=section.auth or Auth.INJECT)
    for host, section in registries.items():
        has_login = section.username is not None or host in logins
        if section.effective_auth is not Auth.FORWARD and not has_login:
            found.append(
                (
                    ("registries", str(host), "auth"),
                    f'"{section.auth}" needs username and password_file or password,'
                    " or a login in credentials.docker_config",
                )
            )
    _raise_any(found)
    return evolve(config, registries=registries)


def _docker_logins(
    read: ReadFile, files: tuple[Path, ...], found: list[Problem]
) -> frozenset[Host]:
    """The registries for which one of the files has a login."""
    logins: set[Host] = set()
    for index, file in enumerate(files):
        before = len(found)
        # A single one is written without a list.
        key: KeyPath = ("credentials", "docker_config", *((index,) if len(files) > 1 else ()))
        config = content(read, key, file, found)
        if len(found) > before:
            continue
        try:
            logins |= parse_docker_config(config).keys()
        except DockerConfigInvalid as error:
            found.extend((key, f"{shown(str(file), 200)}: {line}") for line in error.problems)
    return frozenset(logins)


def _upstream(text: str, plain_http: bool) -> str:
    """The canonical form of an upstream's address, without a slash at its end."""
    match = _UPSTREAM.fullmatch(text)
    if match is None:
        # It may hold a password or a signature: not repeated.
        raise ValueError(f"{_UPSTREAM_EXPECTED}, without credentials, query or fragment")
    scheme, authority, prefix = match[1].lower(), match[2], match[3]
    if scheme == "http" and not plain_http:
        raise ValueError(f"http:// needs plain_http = true, found {shown(text)}")
    default = _DEFAULT_PORTS[scheme]
    try:
        host = Host.parse(authority, default)
    except HostInvalid as error:
        raise ValueError(f"{_UPSTREAM_EXPECTED}: {error.message}") from None
    return f"{scheme}://{host.authority.removesuffix(f':{default}')}{prefix}"


def _masked(section: RegistrySection) -> RegistrySection:
    proxy = None if section.proxy is None else _masked_login(section.proxy)
    return _masked_login(evolve(section, proxy=proxy))


def _masked_login(section: _Login) -> _Login:
    hidden = section.password is not None and section.password_file is None
    return evolve(section, password=MASK if hidden else None)


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: a key that is not set is not there."""
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def _raise_any(found: Iterable[Problem]) -> None:
    if problems_found := tuple(found):
        raise Problems(problems_found)

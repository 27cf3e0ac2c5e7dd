"""The environment of docker-registry-proxy becomes a configuration.

Its users change the name of the image and nothing else. What the variables mean comes from its
``Dockerfile`` (the defaults), ``entrypoint.sh``, ``create_ca_cert.sh`` and ``nginx.conf``.
Where it went on with something else than what was said, this stops.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen
from twisted.logger import Logger

from regproxy.config.check_wayout import ReadFile
from regproxy.config.load import ConfigError, default_data, from_table
from regproxy.config.model import Auth, Config, HostPattern, Push
from regproxy.config.units import format_duration, format_size, parse_duration, parse_size
from regproxy.config.wayout import Family
from regproxy.oci.errors import HostInvalid, shown
from regproxy.oci.names import DOCKER_HUB, Host
from regproxy.upstream.auth import same_domain

_log = Logger()

CA_DIRECTORY: Final = Path("/ca")
CACHE_DIRECTORY: Final = Path("/docker_mirror_cache")
#: With which it encrypts the key of the CA that it makes.
PASSPHRASE: Final = "foobar"
#: For messages, in place of the name of a file.
SOURCE: Final = "environment"

# Intercepted whatever REGISTRIES says.
_ALWAYS: Final = (DOCKER_HUB, "docker.io", "index.docker.io", "auth.docker.io")
# It lists this name for its own use.
_ITSELF: Final = "docker.caching.proxy.internal"
# It gives a login to the host that hands out tokens; here it belongs to the registry.
_TOKEN_HOSTS: Final = {
    Host("auth.docker.io"): Host(DOCKER_HUB),
    Host("gitlab.com"): Host("registry.gitlab.com"),
}

# ngx_parse_time() of nginx: units are told apart by their case, M is a month.
_TIME: Final = re.compile(
    r"(?=\d)(?:(\d+)y *)?(?:(\d+)M *)?(?:(\d+)w *)?(?:(\d+)d *)?(?:(\d+)h *)?(?:(\d+)m *)?"
    r"(?:(\d+)s?)?",
    re.ASCII,
)
_TIME_UNITS: Final = (365 * 86400, 30 * 86400, 7 * 86400, 86400, 3600, 60, 1)
_TIME_MAX_LENGTH: Final = 40


@frozen
class DropIn:
    """What an environment stands for.

    Attributes:
        table: a configuration, as TOML has it.
        remarks: a line for each variable that is set: what it has become.
    """

    # Not in the repr: it has passwords.
    table: dict[str, Any] = field(repr=False)
    remarks: tuple[str, ...]


def _tell(remark: str) -> None:
    _log.info("{remark}", remark=remark)


def load(
    tell: Callable[[str], None] = _tell,
    *,
    environ: Mapping[str, str] = os.environ,
    read: ReadFile = Path.read_bytes,
) -> Config:
    """The configuration that the environment stands for.

    Args:
        tell: is given each of the remarks.

    Raises:
        ConfigError: a variable cannot be understood.
    """
    found = translate(environ, encrypted=_is_encrypted(read))
    data = default_data(os.geteuid(), environ)
    config = from_table(found.table, SOURCE, data=data, read=read)
    for remark in found.remarks:
        tell(remark)
    return config


def translate(environ: Mapping[str, str], *, encrypted: bool) -> DropIn:
    """What *environ* stands for.

    Args:
        encrypted: whether the key of the CA is; then it is with the passphrase that
            docker-registry-proxy has for all.

    Raises:
        ConfigError: with all variables that cannot be understood.
    """
    draft = _Draft(environ)
    problems, remarks = [], []
    for name, row in ROWS.items():
        said = environ.get(name)
        text = row.default if said is None or (said == "" and not row.empty) else said
        if text is None:
            continue
        try:
            became = row.become(draft, text)
        except ValueError as error:
            problems.append(f"{name}: {error}")
        else:
            if said is not None:
                remarks.append(f"{name}: {became}")
    if problems:
        raise ConfigError(SOURCE, problems)
    if idle := [name for name in IDLE if name in environ]:
        remarks.append(f"{', '.join(idle)}: without meaning here, not used")
    return DropIn(draft.finished(encrypted), tuple(remarks))


def _is_encrypted(read: ReadFile) -> bool:
    try:
        return b"ENCRYPTED" in read(CA_DIRECTORY / "ca.key")
    except OSError:
        # There is none yet; or whoever loads the CA tells what is wrong with it.
        return False


@define
class _Draft:
    """A configuration that is being made.

    Attributes:
        patterns: what is intercepted without being one registry.
        registries: sections by host.
        every: what all of them have.
        tiers: rules for tags, by the name that their variables have.
        table: everything else.
    """

    environ: Mapping[str, str]
    patterns: list[str] = field(factory=lambda: [*_ALWAYS])
    registries: dict[Host, dict[str, Any]] = field(factory=dict)
    every: dict[str, Any] = field(factory=dict)
    keeps_manifests: bool = False
    tiers: dict[str, dict[str, Any]] = field(factory=dict)
    table: dict[str, dict[str, Any]] = field(factory=dict)

    def put(self, section: str, key: str, value: Any) -> None:
        """Set a key."""
        self.table.setdefault(section, {})[key] = value

    def finished(self, encrypted: bool) -> dict[str, Any]:
        """As TOML has it."""
        self.put("cache", "directory", str(CACHE_DIRECTORY))
        self.put("ca", "directory", str(CA_DIRECTORY))
        if encrypted:
            self.put("ca", "passphrase", PASSPHRASE)
        # Its CONNECT takes any address and any port.
        self.put("relay", "allow_private", True)
        self.put("relay", "any_port", True)
        self.put("interception", "hosts", self.patterns)
        # The image's own setting.
        self.put("management", "listen", ["tcp:8080"])
        if self.keeps_manifests:
            self.put("freshness", "rule", [rule for rule in self.tiers.values() if "match" in rule])
        for host, own in self.registries.items():
            self.put("registries", str(host), {**self.every, **own})
        return self.table


@frozen
class _Row:
    """What becomes of a variable.

    Attributes:
        become: takes the text of the variable, and says what it has become; or raises
            ValueError.
        default: the text if it is not set; None to leave it at that.
        empty: whether an empty text is other than none.
    """

    become: Callable[[_Draft, str], str]
    default: str | None = None
    empty: bool = False


def _registries(draft: _Draft, text: str) -> str:
    draft.registries[Host(DOCKER_HUB)] = {}
    names = [name for name in text.split() if name not in (_ITSELF, *_ALWAYS)]
    for name in names:
        try:
            pattern = HostPattern.parse(name)
        except ValueError as error:
            raise ValueError(f"{error}, found {shown(name)}") from None
        if "*" in name:
            draft.patterns.append(str(pattern))
        else:
            draft.registries[Host(pattern.text, pattern.port).canonical] = {}
    told = f"intercepted are {', '.join(['Docker Hub', *names])}"
    if any("*" in name for name in names):
        # What a section says is for one host.
        told += "; those with a star are verified and take pushes, whatever other variables say"
    return told


def _logins(draft: _Draft, text: str) -> str:
    between = draft.environ.get("AUTH_REGISTRIES_DELIMITER") or " "
    within = draft.environ.get("AUTH_REGISTRY_DELIMITER") or ":"
    told = []
    for number, entry in enumerate(filter(str.strip, text.split(between)), 1):
        # Nothing of it is repeated but the host: the rest may be a password.
        parts = entry.split(within)
        if len(parts) != 3 or not all(parts):
            raise ValueError(
                f"expected HOST{within}USER{within}PASSWORD, found something else in entry"
                f" {number}; what AUTH_REGISTRIES_DELIMITER and AUTH_REGISTRY_DELIMITER say"
                " must not occur in a user name or password"
            )
        try:
            named = Host.parse(parts[0].strip()).canonical
        except HostInvalid:
            raise ValueError(f"expected a host at the begin of entry {number}") from None
        host = _registry_of(draft, named)
        section = draft.registries.setdefault(host, {})
        if "username" in section:
            raise ValueError(f"there is a login for {host} already before entry {number}")
        section.update(username=parts[1], password=parts[2])
        told.append(str(host) if host == named else f"{host} (whose tokens are from {named})")
    return f"logins for {', '.join(told) or 'no registry'}"


def _registry_of(draft: _Draft, named: Host) -> Host:
    """The registry whose tokens *named* hands out, or *named* itself.

    "If you run GitLab on git.example.com and its registry on reg.example.com", says its README,
    "include both in REGISTRIES and use the primary domain for AUTH_REGISTRIES".
    """
    if named in _TOKEN_HOSTS:
        return _TOKEN_HOSTS[named]
    siblings = [host for host in draft.registries if host != named and same_domain(host, named)]
    if named in draft.registries and len(siblings) == 1 and named.name.startswith("git"):
        return siblings[0]
    return named


def _delimiter(draft: _Draft, text: str) -> str:
    return f"AUTH_REGISTRIES is divided at {shown(text)}"


def _flag(then: Callable[[_Draft, bool], str]) -> Callable[[_Draft, str], str]:
    """True or false. It takes all but "true" for false, "True" in VERIFY_SSL included."""

    def become(draft: _Draft, text: str) -> str:
        if text not in ("true", "false"):
            raise ValueError(f"expected true or false, found {shown(text)}")
        return then(draft, text == "true")

    return become


def _verify(draft: _Draft, on: bool) -> str:
    if not on:
        draft.every["insecure"] = True
    return f"certificates of registries are {'verified' if on else 'NOT verified'}"


def _push(draft: _Draft, on: bool) -> str:
    draft.every["push"] = str(Push.FORWARD if on else Push.DENY)
    return f"pushes are {'passed on, with the login of the client' if on else 'refused'}"


def _push_with_own_login(draft: _Draft, on: bool) -> str:
    return _push(draft, True) if on else "as ALLOW_PUSH says"


def _own_login(draft: _Draft, on: bool) -> str:
    for section in draft.registries.values():
        if on and "username" in section:
            section["auth"] = str(Auth.CLIENT_FIRST)
    return f"logins of clients {'go before' if on else 'are replaced by'} those of the proxy"


def _no_ipv6(draft: _Draft, on: bool) -> str:
    family = Family.IPV4 if on else Family.ANY
    draft.put("upstream", "family", str(family))
    return f"upstream.family = {family}"


def _manifests(draft: _Draft, on: bool) -> str:
    draft.keeps_manifests = on
    if on:
        return "tags are fresh for as long as the MANIFEST_CACHE variables say"
    return "each tag is checked when it is pulled, by HEAD, which Docker Hub does not count"


def _tier_match(tier: str) -> Callable[[_Draft, str], str]:
    """nginx binds the expression to where the tag begins, and not to its end."""

    def become(draft: _Draft, text: str) -> str:
        rule = draft.tiers.setdefault(tier, {})
        if not text:
            return "no such rule"
        match = f"^(?:{text})"
        try:
            re.compile(match)
        except (re.error, OverflowError, RecursionError) as error:
            message = f"expected a regular expression, found {shown(text)}: {error}"
            raise ValueError(message) from None
        rule["match"] = match
        return f"a rule in freshness.rule for {shown(match)}" + _only_with_manifests(draft)

    return become


def _tier_age(tier: str) -> Callable[[_Draft, str], str]:
    def become(draft: _Draft, text: str) -> str:
        age = draft.tiers.setdefault(tier, {})["max_age"] = _seconds(text)
        return f"max_age = {format_duration(age)} of that rule" + _only_with_manifests(draft)

    return become


def _default_age(draft: _Draft, text: str) -> str:
    age = _seconds(text)
    if draft.keeps_manifests:
        draft.put("freshness", "default", age)
    return f"freshness.default = {format_duration(age)}" + _only_with_manifests(draft)


def _only_with_manifests(draft: _Draft) -> str:
    return "" if draft.keeps_manifests else "; not used without ENABLE_MANIFEST_CACHE=true"


def _seconds(text: str) -> float:
    match = _TIME.fullmatch(text.strip())
    if match is None or len(text) > _TIME_MAX_LENGTH:
        raise ValueError(f'expected a time such as "90s", "1h30m" or "60d", found {shown(text)}')
    parts = zip(match.groups("0"), _TIME_UNITS, strict=True)
    return parse_duration(sum(int(number) * unit for number, unit in parts))


def _time(section: str, key: str) -> Callable[[_Draft, str], str]:
    """A duration. Of several variables for one key the longest counts."""

    def become(draft: _Draft, text: str) -> str:
        seconds = _seconds(text)
        if not seconds:
            raise ValueError("expected more than 0, found 0")
        longest = max(seconds, draft.table.get(section, {}).get(key, 0.0))
        draft.put(section, key, longest)
        return f"{section}.{key} = {format_duration(longest)}"

    return become


def _size(draft: _Draft, text: str) -> str:
    try:
        size = parse_size(text.strip())
    except ValueError as error:
        raise ValueError(f"{error}, found {shown(text)}") from None
    if not size:
        raise ValueError("expected more than 0, found 0")
    draft.put("cache", "max_size", size)
    return f"cache.max_size = {format_size(size)}"


#: What becomes of each variable, in this order.
ROWS: Final = {
    "REGISTRIES": _Row(
        _registries,
        "k8s.gcr.io gcr.io asia.gcr.io eu.gcr.io us.gcr.io quay.io ghcr.io docker.pkg.github.com",
        empty=True,
    ),
    "AUTH_REGISTRIES_DELIMITER": _Row(_delimiter),
    "AUTH_REGISTRY_DELIMITER": _Row(_delimiter),
    "AUTH_REGISTRIES": _Row(_logins),
    "ALLOW_OWN_AUTH": _Row(_flag(_own_login)),
    "ALLOW_PUSH": _Row(_flag(_push), "false"),
    "ALLOW_PUSH_WITH_OWN_AUTH": _Row(_flag(_push_with_own_login)),
    "VERIFY_SSL": _Row(_flag(_verify), "true"),
    "DISABLE_IPV6": _Row(_flag(_no_ipv6)),
    "CACHE_MAX_SIZE": _Row(_size),
    "CACHE_INACTIVE": _Row(_time("cache", "inactive")),
    "ENABLE_MANIFEST_CACHE": _Row(_flag(_manifests), "false"),
    "MANIFEST_CACHE_PRIMARY_REGEX": _Row(
        _tier_match("primary"), "(stable|nightly|production|test)", empty=True
    ),
    "MANIFEST_CACHE_PRIMARY_TIME": _Row(_tier_age("primary"), "10m"),
    "MANIFEST_CACHE_SECONDARY_REGEX": _Row(
        _tier_match("secondary"), r"(.*)(\d|\.)+(.*)(\d|\.)+(.*)(\d|\.)+", empty=True
    ),
    "MANIFEST_CACHE_SECONDARY_TIME": _Row(_tier_age("secondary"), "60d"),
    "MANIFEST_CACHE_DEFAULT_TIME": _Row(_default_age, "1h"),
    "CLIENT_HEADER_TIMEOUT": _Row(_time("limits", "request_head")),
    "KEEPALIVE_TIMEOUT": _Row(_time("limits", "client_idle")),
    "CLIENT_BODY_TIMEOUT": _Row(_time("limits", "client_stall")),
    "SEND_TIMEOUT": _Row(_time("limits", "client_stall")),
    "PROXY_CONNECT_TIMEOUT": _Row(_time("limits", "connect")),
    "PROXY_CONNECT_CONNECT_TIMEOUT": _Row(_time("limits", "connect")),
    "PROXY_READ_TIMEOUT": _Row(_time("limits", "upstream_idle")),
    "PROXY_SEND_TIMEOUT": _Row(_time("limits", "upstream_idle")),
    "PROXY_CONNECT_READ_TIMEOUT": _Row(_time("limits", "tunnel_idle")),
    "PROXY_CONNECT_SEND_TIMEOUT": _Row(_time("limits", "tunnel_idle")),
}

#: Uploads are never buffered, and there is no nginx and no mitmproxy to debug.
IDLE: Final = (
    "PROXY_REQUEST_BUFFERING",
    "DEBUG",
    "DEBUG_HUB",
    "DEBUG_NGINX",
    "DEBUG_CA_CERT",
)

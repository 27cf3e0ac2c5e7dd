"""What a client asked for: its query and the name it came by, checked.

Both are in the hands of whoever sends the request, and end up in scripts that root runs. So they
are read into types that have no other characters than those of hosts, addresses and networks,
and the scripts quote them besides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Final, TypeVar

from attrs import frozen

from regproxy.management.setup.facts import Facts
from regproxy.management.setup.kinds import IN_CLOUDS, KINDS, Cloud, Kind, Mode
from regproxy.oci.errors import HostInvalid, shown
from regproxy.oci.names import Host
from regproxy.policy.no_proxy import Exempt

#: What never goes through the proxy: this machine, the networks of clusters and their names, and
#: what tells a machine in a cloud about itself.
NEVER_BY_PROXY: Final = (
    *("localhost", "127.0.0.0/8", "::1"),
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    *(".svc", ".cluster.local"),
    *("169.254.169.254", "metadata.google.internal"),
)
#: The same in one cloud: its metadata, and names that only lead somewhere inside of it.
NEVER_IN: Final[Mapping[Cloud, tuple[str, ...]]] = {
    Cloud.GCP: (".internal",),
    # Aliyun's own registries and stores answer at addresses of the provider's network.
    Cloud.ALIYUN: ("100.64.0.0/10", "100.100.100.200", ".aliyuncs.com"),
    Cloud.AWS: (".internal",),
    Cloud.PLAIN: (),
}
#: Entries that a client may add, and the length of all of them: what fits into a URL.
MOST_ADDITIONS: Final = 100
_LONGEST: Final = 4000
_ENTRY: Final = re.compile(r"[A-Za-z0-9.:/_*\[\]-]+")

Choice = TypeVar("Choice", bound=StrEnum)


@frozen
class BadChoice(Exception):
    """There is no such script. The message is for people, and may repeat what they asked for."""

    message: str
    status: HTTPStatus = HTTPStatus.BAD_REQUEST


@frozen
class Choices:
    """A script, and what is to be filled in.

    Attributes:
        proxy: the proxy as the client reaches it.
        no_proxy: what is not for it.
        undo: the script takes back what it did.
    """

    kind: Kind
    mode: Mode
    proxy: Host
    no_proxy: tuple[str, ...]
    undo: bool = False

    @classmethod
    def read(cls, kind: Kind, query: Mapping[str, str], at: Host, facts: Facts) -> Choices:
        """Read the *query* of a request for a script.

        Args:
            at: where the request found the proxy.

        Raises:
            BadChoice: it asks for something that there is not.
        """
        _only(query, {"mode", "no_proxy", "proxy", "undo"})
        return cls(
            kind=kind,
            mode=_mode(query, kind.modes, facts),
            proxy=_proxy(query, at),
            no_proxy=(*NEVER_BY_PROXY, *_additions(query)),
            undo=_flag(query, "undo"),
        )


@frozen
class CloudChoices:
    """User-data: for which cloud, and the script in it."""

    cloud: Cloud
    script: Choices

    @classmethod
    def read(cls, query: Mapping[str, str], at: Host, facts: Facts) -> CloudChoices:
        """Read the *query* of a request for user-data.

        Raises:
            BadChoice: it asks for something that there is not.
        """
        _only(query, {"cloud", "runtime", "mode", "no_proxy", "proxy"})
        cloud = _one_of(query, "cloud", tuple(Cloud), Cloud.PLAIN)
        runtime = query.get("runtime", IN_CLOUDS[0])
        if runtime not in IN_CLOUDS:
            raise BadChoice(f"runtime: expected {_or(IN_CLOUDS)}, found {shown(runtime)}")
        script = Choices(
            kind=KINDS[runtime],
            mode=_mode(query, (Mode.PROXY, Mode.DNS), facts),
            proxy=_proxy(query, at),
            no_proxy=(*NEVER_BY_PROXY, *NEVER_IN[cloud], *_additions(query)),
        )
        return cls(cloud, script)


def unusable(mode: Mode, facts: Facts) -> str | None:
    """Why pulls cannot come here like that; None when they can."""
    if mode is Mode.HOSTS and facts.mirror is None:
        return "mode=hosts needs a mirror, and this proxy has none: set listen in [mirror]"
    if mode is Mode.DNS and facts.name_server is None:
        return (
            "mode=dns needs a name server at port 53, and this proxy has none: set listen in [dns]"
        )
    if mode is Mode.DNS and facts.probe is None:
        return "mode=dns needs a registry without a star in its name: add one to [interception]"
    return None


def _only(query: Mapping[str, str], known: set[str]) -> None:
    for name in query.keys() - known:
        raise BadChoice(f"{shown(name)} is no parameter: there are {', '.join(sorted(known))}")


def _one_of(
    query: Mapping[str, str], name: str, choices: tuple[Choice, ...], default: Choice
) -> Choice:
    text = query.get(name, default.value)
    for choice in choices:
        if choice.value == text:
            return choice
    raise BadChoice(f"{name}: expected {_or(choices)}, found {shown(text)}")


def _or(choices: tuple[str, ...]) -> str:
    return " or ".join(choices)


def _mode(query: Mapping[str, str], modes: tuple[Mode, ...], facts: Facts) -> Mode:
    mode = _one_of(query, "mode", modes, modes[0])
    reason = unusable(mode, facts)
    if reason is not None:
        raise BadChoice(reason, HTTPStatus.CONFLICT)
    return mode


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "0")
    if text not in ("0", "1"):
        raise BadChoice(f"{name}: expected 0 or 1, found {shown(text)}")
    return text == "1"


def _proxy(query: Mapping[str, str], at: Host) -> Host:
    if "proxy" not in query:
        return at
    try:
        return Host.parse(query["proxy"], at.port)
    except HostInvalid:
        found = shown(query["proxy"])
        raise BadChoice(f"proxy: expected HOST or HOST:PORT, found {found}") from None


def _additions(query: Mapping[str, str]) -> tuple[str, ...]:
    text = query.get("no_proxy", "")
    if not text:
        return ()
    entries = [entry.strip(" ") for entry in text.split(",")]
    if len(entries) > MOST_ADDITIONS or len(text) > _LONGEST:
        raise BadChoice(f"no_proxy: expected at most {MOST_ADDITIONS} entries")
    for entry in entries:
        try:
            if not _ENTRY.fullmatch(entry) or entry == "*":
                raise ValueError("expected a host, .SUFFIX, an address or a network")
            Exempt.parse(entry)
        except ValueError as error:
            raise BadChoice(f"no_proxy: {error}, found {shown(entry)}") from None
    return tuple(dict.fromkeys(entry.lower() for entry in entries))

"""What the page at ``/setup`` shows: the commands for one runtime, to be copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self
from urllib.parse import urlencode

from attrs import frozen

from regproxy.management.setup.choices import BadChoice, Choices, unusable
from regproxy.management.setup.facts import Facts
from regproxy.management.setup.kinds import IN_CLOUDS, KINDS, Cloud, Kind, Mode
from regproxy.oci.names import Host

CLOUD_INIT: Final = "cloud-init"

#: What a mode is, for people.
MODES: Final[Mapping[Mode, str]] = {
    Mode.PROXY: "as its proxy",
    Mode.HOSTS: "as its mirror",
    Mode.DNS: "by its name server",
}


@frozen
class Offer:
    """What the page has for one runtime.

    Attributes:
        modes: each with its name for people, and why it cannot be used, if so.
        url: where the script is.
        undo_url: where the one is that takes everything back.
        no_proxy: what the reader has added.
        clouds: where user-data with the script is.
    """

    kind: Kind
    mode: Mode
    modes: tuple[tuple[Mode, str, str | None], ...]
    url: str
    undo_url: str
    no_proxy: str
    clouds: tuple[tuple[Cloud, str], ...]

    @classmethod
    def read(cls, query: Mapping[str, str], at: Host, facts: Facts) -> Self:
        """What a reader gets who asked for the page with this *query*, and found it *at*.

        Raises:
            BadChoice: the query asks for something that there is not.
        """
        # An empty field of the form is not filled in.
        asked = {key: text for key, text in query.items() if text}
        name = asked.pop("runtime", "docker")
        if name not in KINDS:
            raise BadChoice(f"runtime: expected one of {', '.join(KINDS)}")
        kind = KINDS[name]
        choices = Choices.read(kind, asked, at, facts)
        kept = {} if choices.mode is kind.modes[0] else {"mode": choices.mode.value}
        if "no_proxy" in asked:
            kept["no_proxy"] = asked["no_proxy"]
        script = f"{facts.url(choices.proxy)}/setup/{name}"
        in_clouds = name in IN_CLOUDS and choices.mode is not Mode.HOSTS
        return cls(
            kind=kind,
            mode=choices.mode,
            modes=tuple((mode, MODES[mode], unusable(mode, facts)) for mode in kind.modes),
            url=_url(script, **kept),
            undo_url=_url(script, **kept, undo="1"),
            no_proxy=kept.get("no_proxy", ""),
            clouds=tuple(
                (cloud, _url(f"/setup/{CLOUD_INIT}", cloud=cloud.value, runtime=name, **kept))
                for cloud in Cloud
                if in_clouds
            ),
        )


def _url(path: str, **query: str) -> str:
    # Quotes are escaped in it: it can stand between single quotes in a shell.
    return f"{path}?{urlencode(query, safe=',/:')}" if query else path

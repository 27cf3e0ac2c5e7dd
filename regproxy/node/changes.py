"""What is to be in a file, and how that is taken out again.

A file of our own is written as a whole. One that others write, too, gets as little as
possible, in a way that can be found again: a block between two marks, or a value in a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

from attrs import frozen

from regproxy.node.errors import Refused

_BEGIN: Final = "# begin: written by regproxy, which removes it again"
_END: Final = "# end: written by regproxy"
_WAS: Final = "# was: "
_BLOCK: Final = re.compile(
    rf"^{re.escape(_BEGIN)}\n(?:(?!{re.escape(_END)}$).*\n)*{re.escape(_END)}\n?", re.MULTILINE
)
_MIRRORS: Final = "registry-mirrors"


class Kind(StrEnum):
    """How a change is taken out of a file that somebody else has changed since."""

    FILE = "file"  # what was there before is put back
    BLOCK = "block"  # the block goes
    JSON_LIST = "json-list"  # the value goes from dockerd's list of mirrors
    NAME_SERVERS = "name-servers"  # the block goes, and lines that name one of the values


@frozen
class Change:
    """What is to be in one file.

    Attributes:
        make: from the content without us, None for no file, the wanted one. It may return
            what it got: then nothing is to be done. Raises Refused when it cannot be done.
        then: what has to be done when the file has changed: see :mod:`regproxy.node.actions`.
        values: for the kinds that have some.
    """

    path: str
    make: Callable[[bytes | None], bytes | None]
    then: tuple[str, ...] = ()
    kind: Kind = Kind.FILE
    values: tuple[str, ...] = ()


def text_of(content: bytes | None) -> str:
    """A file of others as text: of whatever encoding, as long as ASCII is part of it."""
    return (content or b"").decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """The same the other way round, to the byte."""
    return text.encode("utf-8", "surrogateescape")


def whole(path: str, content: str, then: Sequence[str] = ()) -> Change:
    """A file of our own; what was at its place is put back in the end."""
    return Change(path, lambda _: content.encode(), tuple(then))


def unless_there(path: str, content: str, then: Sequence[str] = ()) -> Change:
    """A file, if nobody else has one there."""
    return Change(path, lambda base: content.encode() if base is None else base, tuple(then))


def block(path: str, lines: Sequence[str], then: Sequence[str] = ()) -> Change:
    """A block at the end of a file."""
    return Change(path, lambda base: append(base, lines), tuple(then), Kind.BLOCK)


def block_of(lines: Sequence[str], was: str | None = None) -> str:
    """A block of *lines*; *was* is the line that it stands in for."""
    kept = [] if was is None else [_WAS + was]
    return "\n".join([_BEGIN, *lines, *kept, _END]) + "\n"


def append(base: bytes | None, lines: Sequence[str]) -> bytes:
    """*base* with a block at its end."""
    text = text_of(base)
    new = block_of(lines)
    if new in text:
        return bytes_of(text)
    return bytes_of(text + ("\n" if text and not text.endswith("\n") else "") + new)


def name_servers(path: str, servers: Sequence[str]) -> Change:
    """Name servers before all others of a ``resolv.conf``, and no others with them."""

    def make(base: bytes | None) -> bytes:
        text = text_of(base)
        # A block at the front is what resolver(5) asks first, whatever comes behind.
        if nameservers(text)[: len(servers)] == list(servers):
            return bytes_of(text)
        return bytes_of(block_of([f"nameserver {server}" for server in servers]) + text)

    return Change(path, make, (), Kind.NAME_SERVERS, tuple(servers))


def nameservers(text: str) -> list[str]:
    """The name servers of a ``resolv.conf``."""
    return re.findall(r"^nameserver[ \t]+(\S+)", text, re.MULTILINE)


def docker_mirror(path: str, url: str, then: Sequence[str] = ()) -> Change:
    """A mirror before all others of dockerd's ``daemon.json``."""

    def make(base: bytes | None) -> bytes:
        table = _json(path, base)
        mirrors = table.get(_MIRRORS, [])
        if base is not None and url in mirrors:
            return base
        return _dump(table | {_MIRRORS: [url, *mirrors]})

    return Change(path, make, tuple(then), Kind.JSON_LIST, (url,))


def without(kind: Kind, path: str, content: bytes, values: Sequence[str]) -> bytes:
    """*content* without what a change of this kind has put there.

    Raises:
        Refused: it cannot be read any more.
    """
    match kind:
        case Kind.FILE:
            return content
        case Kind.JSON_LIST:
            table = _json(path, content)
            mirrors = [url for url in table.get(_MIRRORS, []) if url not in values]
            if mirrors == table.get(_MIRRORS, []):
                return content
            rest = {key: value for key, value in table.items() if key != _MIRRORS}
            return _dump(rest | {_MIRRORS: mirrors} if mirrors else rest)
        case Kind.BLOCK | Kind.NAME_SERVERS:
            text = text_of(content)
            rest_of = _BLOCK.sub(_stood_in_for, text)
            if kind is Kind.NAME_SERVERS and rest_of == text:
                ours = "|".join(map(re.escape, values))
                rest_of = re.sub(rf"^nameserver[ \t]+(?:{ours})[ \t]*\n", "", text, flags=re.M)
            return bytes_of(rest_of)


def _stood_in_for(match: re.Match[str]) -> str:
    was = [line for line in match[0].splitlines() if line.startswith(_WAS)]
    return was[0].removeprefix(_WAS) + "\n" if was else ""


def _json(path: str, content: bytes | None) -> dict[str, Any]:
    try:
        table = json.loads(content or b"{}")
    except ValueError:
        raise Refused(f"{path} is not JSON") from None
    if not isinstance(table, dict) or not isinstance(table.get(_MIRRORS, []), list):
        raise Refused(f"{path} is not a configuration of dockerd")
    return table


def _dump(table: dict[str, Any]) -> bytes:
    return (json.dumps(table, indent=2) + "\n").encode()

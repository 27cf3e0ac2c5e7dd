"""What the faulty upstream is told and what it tells: scripts and log, as values."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from attrs import Factory as Default
from attrs import define, frozen

#: A Range with one range that has a first position, as the proxy sends them.
RANGE: Final = re.compile(r"bytes=([0-9]+)-([0-9]*)")


class Framing(StrEnum):
    """How a client learns where a body ends (RFC 9112 section 6)."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class End(StrEnum):
    """What happens where an answer stops early."""

    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"


@frozen
class Turn:
    """How one request is answered. Without arguments: rightly, but with nothing.

    Positions are those of the content, in the answer to a range as well.

    Attributes:
        content: the name of a file.
        framing: how the end of the body is told; HEAD and errors have a length always.
        announced: a Content-Length other than the right one.
        ranges: whether a Range is understood; if not it is answered with 200.
        rate: bytes of the body per second.
        stop: where the body stops early; -1 is before the head.
        end: what happens there.
        flip: the position of a byte of which one bit is wrong.
        surplus: bytes after the end of the content.
        padding: bytes of further header fields.
        interim: how many interim responses come first; -1 for no end of them.
    """

    content: str = ""
    status: int = 200
    headers: dict[str, str] = Default(dict)
    framing: Framing = Framing.LENGTH
    announced: int | None = None
    ranges: bool = True
    rate: float | None = None
    stop: int | None = None
    end: End = End.CLOSE
    flip: int | None = None
    surplus: int = 0
    padding: int = 0
    interim: int = 0


@frozen
class Script:
    """How the requests for one target are answered.

    Attributes:
        turns: for one request after the other; the last one for all that follow.
        accepted: the values of Authorization that are let in; None for everybody.
        refusal: what is answered to others.
    """

    turns: tuple[Turn, ...]
    accepted: tuple[str, ...] | None = None
    refusal: int = 401


@define
class Entry:
    """One request, as the log has it.

    Attributes:
        bytes: of the body, as far as they were written.
        first: when the first of them was, on the monotonic clock; None for none.
        ended: when the answer was over, be it whole or not; None while it is not.
    """

    method: str
    target: str
    range: str | None
    status: int = 0
    bytes: int = 0
    first: float | None = None
    ended: float | None = None

    @property
    def start(self) -> int:
        """The first byte that was asked for."""
        match = RANGE.fullmatch(self.range or "")
        return int(match[1]) if match else 0


def key(method: str, target: str) -> str:
    """Under what the script for *target* is filed.

    Without a script of its own HEAD is answered like the last GET of GET's.
    """
    return f"{method} {target}"

"""dig (BIND's), and what it prints."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from attrs import frozen

from tests.support.process import Result, environment, run
from tests.support.programs import program

#: Runs a program by its name, with arguments.
Run = Callable[..., Result]

_OPTIONS: Final = ("+tries=1", "+time=10")


@frozen
class Dig:
    """An answer as dig saw it.

    Attributes:
        status: the name of the rcode; None when there was no answer.
        flags: of the head, in dig's letters.
        answers, authorities: records: name, TTL, class, type, data.
        edns: the line about it.
        size: bytes.
        output: all of it.
    """

    status: str | None
    flags: frozenset[str]
    answers: list[list[str]]
    authorities: list[list[str]]
    edns: str | None
    size: int
    output: str

    @classmethod
    def parse(cls, output: str) -> Dig:
        """Read what dig printed."""

        def found(pattern: str) -> str | None:
            match = re.search(pattern, output, re.MULTILINE)
            return match[1] if match else None

        def section(name: str) -> list[list[str]]:
            lines = found(rf"^;; {name} SECTION:\n((?:[^;\n].*\n)*)") or ""
            return [line.split(maxsplit=4) for line in lines.splitlines()]

        return cls(
            found("status: ([A-Z]+)"),
            frozenset((found("^;; flags: ([a-z ]*);") or "").split()),
            section("ANSWER"),
            section("AUTHORITY"),
            found("^; (EDNS: .*)$"),
            int(found("MSG SIZE  rcvd: ([0-9]+)") or 0),
            output,
        )

    @property
    def data(self) -> list[str]:
        """What the answers say."""
        return [record[4] for record in self.answers]


def dig(server: str, *arguments: str, runner: Run | None = None) -> Dig:
    """Ask the *server* ``ADDRESS`` or ``ADDRESS:PORT``, once.

    Args:
        runner: how to run it; by default on this machine.
    """
    address, port = re.fullmatch(r"\[?(.*?)\]?(?::([0-9]+))?", server).groups()  # type: ignore[union-attr]
    line = (f"@{address}", "-p", port or "53", *_OPTIONS, *arguments)
    result = runner("dig", *line) if runner else run(program("dig"), *line, env=environment())
    return Dig.parse(result.output)

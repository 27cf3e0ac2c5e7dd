"""Two forms of what a command has to say: text for people, JSON for programs.

People sit at a terminal. Whatever is not one gets JSON, unless ``--text`` asks otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from regproxy.cli.errors import plain

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")
_WIDE: Final = 1000
_SPANS: Final = (
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
    ("second", timedelta(seconds=1)),
)


class Output:
    """Where a command puts what it has to say.

    Attributes:
        json: whether it is JSON.
        console: for text; it has colours at a terminal only, and where ``NO_COLOR`` is not set.
        remarks: for what is not the result: progress, and what people are to know.
    """

    def __init__(self, json: bool | None = None) -> None:
        self.json = not sys.stdout.isatty() if json is None else json
        # Elsewhere than at a terminal lines end where they end.
        width = None if sys.stdout.isatty() else _WIDE
        self.console = Console(highlight=False, width=width)
        self.remarks = Console(stderr=True, highlight=False)

    def value(self, value: Any) -> None:
        """Print *value* as JSON."""
        click.echo(json.dumps(value, indent=2))

    def lines(self, values: Iterable[Any]) -> None:
        """Print *values* as JSON, each on a line of its own as soon as it is there."""
        for value in values:
            click.echo(json.dumps(value))

    def text(self, text: str) -> None:
        """Print *text* on a line."""
        click.echo(plain(text))

    def remark(self, text: str) -> None:
        """Tell people something beside the result."""
        click.echo(plain(text), err=True)


def styled(text: str, style: str = "") -> Text:
    """*text* of others as the console may have it: no markup, no control characters."""
    return Text(plain(text), style=style)


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table; the columns in *right* are for numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = column in right
        made.add_column(column, justify="right" if number else "left", no_wrap=number)
    return made


def facts(*rows: tuple[str, str | Text]) -> Table:
    """Names and what they are, without a heading."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, value)
    return made


def size_text(size: float) -> str:
    """*size* in bytes, with the unit that leaves at most four digits before the point."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in _UNITS:
        size /= 1024
        if size < 1024 or unit == _UNITS[-1]:
            break
    return f"{size:.1f} {unit}"


def ratio_text(part: float, whole: float) -> str:
    """*part* of *whole* in per cent; a dash when there is no whole."""
    return f"{part / whole:.1%}" if whole else "-"


def span_text(span: timedelta) -> str:
    """About how long *span* is, in one unit."""
    for name, unit in _SPANS:
        count = span // unit
        if count:
            return f"{count} {name}{'s' if count != 1 else ''}"
    return "0 seconds"


def ago_text(time: datetime, now: datetime) -> str:
    """How long ago *time* was; clocks that differ make nothing of the future."""
    return f"{span_text(max(now - time, timedelta()))} ago"

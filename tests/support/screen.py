"""What rich would print."""

from __future__ import annotations

import io

from rich.color import Color
from rich.console import Console, RenderableType


def lines_of(what: RenderableType, width: int = 100) -> list[str]:
    """The lines of *what* in a console without colours, without the spaces at their ends."""
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(what)
    return [line.rstrip() for line in captured.get().splitlines()]


def red(what: RenderableType, width: int = 100) -> str:
    """What of *what* is red."""
    console = Console(file=io.StringIO(), width=width)
    return "".join(
        segment.text
        for segment in console.render(what)
        if segment.style is not None and segment.style.color == Color.parse("red")
    )

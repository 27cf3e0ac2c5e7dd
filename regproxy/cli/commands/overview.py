"""``status`` and ``top``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial

import click
from rich.console import RenderableType
from rich.live import Live

from regproxy.cli import overview
from regproxy.cli.client import Client
from regproxy.cli.output import Output
from regproxy.cli.session import Session, output_option, pass_session
from regproxy.cli.values import Fill, Registry, Stats, read


@click.command()
@output_option
@pass_session
def status(session: Session, output: Output) -> None:
    """Show how the proxy is doing."""
    stats = session.client.get("stats")
    if output.json:
        output.value(stats)
    else:
        output.console.print(overview.status(read(Stats, stats), datetime.now(UTC)))


@click.command()
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Time between two looks.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many looks.")
@output_option
@pass_session
def top(session: Session, interval: float, count: int | None, output: Output) -> None:
    """Watch what goes on: speeds, registries, transfers.

    Ends with Ctrl-C. As JSON, each look is an object on a line of its own.
    """
    looks = _looks(session.client, interval, count)
    # Ctrl-C is how this ends.
    with suppress(KeyboardInterrupt), _screen(output) as show:
        if output.json:
            output.lines(looks)
            return
        before: overview.Look | None = None
        for seen in looks:
            look = overview.Look(
                time.monotonic(),
                read(Stats, seen["stats"]),
                read(tuple[Fill, ...], seen["fills"]),
                read(tuple[Registry, ...], seen["registries"]),
            )
            show(overview.top(look, before))
            before = look


def _looks(client: Client, interval: float, count: int | None) -> Iterator[dict[str, object]]:
    for number in itertools.count(1):
        yield {
            "stats": client.get("stats"),
            "fills": list(client.items("fills")),
            "registries": list(client.items("registries")),
        }
        if number == count:
            return
        time.sleep(interval)


@contextmanager
def _screen(output: Output) -> Iterator[Callable[[RenderableType], object]]:
    """Shows a look: at a terminal each in place of the one before, elsewhere one by one."""
    if output.json or not output.console.is_terminal:
        yield output.console.print
        return
    with Live(console=output.console, auto_refresh=False, screen=True) as live:
        yield partial(live.update, refresh=True)

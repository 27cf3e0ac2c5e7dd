"""How the proxy is doing, as ``status`` and ``top`` show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from attrs import frozen
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from regproxy.cli.output import facts, ratio_text, size_text, span_text, styled, table
from regproxy.cli.values import CA, Fill, Registry, Stats

# Beyond it people have to do something about the certificate authority.
_SOON_DAYS = 60


def status(stats: Stats, now: datetime) -> RenderableType:
    """The proxy in a screenful."""
    rows: list[tuple[str, str | Text]] = [
        ("Version", styled(stats.version)),
        ("Running for", span_text(now - stats.started_at)),
        ("Requests", f"{stats.requests:,}"),
        ("Hits", _hits(stats)),
        ("To clients", size_text(stats.bytes_to_clients)),
        ("From upstream", size_text(stats.bytes_from_upstream)),
        ("Saved", size_text(stats.bytes_saved)),
        ("Connections", f"{stats.connections:,}"),
        ("Transfers", f"{stats.fills:,}"),
        *_store(stats),
        ("CA", _ca(stats.ca, now)),
    ]
    if stats.loop_delay_p99 is not None:
        rows.append(("Loop delay", f"{stats.loop_delay_p99 * 1000:.1f} ms (99th percentile)"))
    if not stats.rate_limits:
        return facts(*rows)
    return Group(facts(*rows), "", _rate_limits(stats))


def _hits(stats: Stats) -> str:
    ratio = "no requests yet" if stats.hit_ratio is None else f"{stats.hit_ratio:.1%}"
    return f"{stats.hits:,} ({ratio})"


def _store(stats: Stats) -> Iterable[tuple[str, str | Text]]:
    store = stats.store
    if store is None:
        yield "Store", Text("does not answer in time", style="red")
        return
    yield (
        "Store",
        f"{size_text(store.bytes)} of {size_text(store.limit)}"
        f" ({ratio_text(store.bytes, store.limit)}), {store.blobs:,} blobs,"
        f" {size_text(store.free)} free on the disk",
    )
    yield "Evicted", f"{store.evicted:,} blobs, {size_text(store.evicted_bytes)}"
    if store.quarantined:
        yield "Damaged", Text(f"{store.quarantined:,} files set aside", style="red")
    if store.disk_full:
        yield "Disk full", Text(f"{store.disk_full:,} times", style="red")


def _ca(ca: CA, now: datetime) -> Text:
    left = ca.not_after - now
    style = "red" if left.days < _SOON_DAYS else ""
    return styled(f"{ca.subject}, valid for {span_text(left)}, SHA-256 {ca.fingerprint}", style)


def _rate_limits(stats: Stats) -> Table:
    made = table("Registry", "Login", "Pulls left", "Limit", right=("Pulls left", "Limit"))
    for each in stats.rate_limits:
        limit = "" if each.limit is None else f"{each.limit:,}"
        low = each.limit is not None and each.remaining * 10 < each.limit
        left = Text(f"{each.remaining:,}", style="red" if low else "")
        made.add_row(styled(each.registry), styled(each.login), left, limit)
    return made


@frozen
class Look:
    """What ``top`` sees at one time.

    Attributes:
        at: when, in seconds of a clock that is not set.
    """

    at: float
    stats: Stats
    fills: Sequence[Fill]
    registries: Sequence[Registry]


def top(look: Look, before: Look | None) -> RenderableType:
    """What goes on now; speeds are since *before*."""
    return Group(_summary(look, before), "", _registries(look), "", _fills(look))


def _summary(look: Look, before: Look | None) -> Table:
    stats = look.stats
    return facts(
        ("Requests", f"{stats.requests:,}{_rate(look, before, 'requests')}"),
        ("Hits", _hits(stats)),
        ("To clients", _flow(look, before, "bytes_to_clients")),
        ("From upstream", _flow(look, before, "bytes_from_upstream")),
        ("Connections", f"{stats.connections:,}"),
        next(iter(_store(stats))),
    )


def _flow(look: Look, before: Look | None, name: str) -> str:
    total = size_text(getattr(look.stats, name))
    speed = _speed(look, before, name)
    return total if speed is None else f"{total}, {size_text(speed)}/s"


def _rate(look: Look, before: Look | None, name: str) -> str:
    speed = _speed(look, before, name)
    return "" if speed is None else f", {speed:.1f}/s"


def _speed(look: Look, before: Look | None, name: str) -> float | None:
    """How much a count has grown in a second; None while that is not known."""
    if before is None or before.stats.started_at != look.stats.started_at:
        return None
    grown: float = getattr(look.stats, name) - getattr(before.stats, name)
    return grown / (look.at - before.at)


def _registries(look: Look) -> Table:
    numbers = ("Requests", "Hits", "To clients", "From upstream", "Errors")
    made = table("Registry", *numbers, "State", right=numbers)
    for each in sorted(look.registries, key=lambda each: -each.requests):
        made.add_row(
            styled(each.name),
            f"{each.requests:,}",
            ratio_text(each.hits, each.requests),
            size_text(each.bytes_to_clients),
            size_text(each.bytes_from_upstream),
            f"{each.errors:,}",
            _state(each),
        )
    return made


def _state(registry: Registry) -> Text:
    if registry.backoff_seconds > 0:
        return Text(f"left alone for {registry.backoff_seconds:.0f} s", style="yellow")
    return Text() if registry.last_error is None else styled(registry.last_error, "red")


def _fills(look: Look) -> RenderableType:
    if not look.fills:
        return Text("No transfers now.", style="dim")
    made = table("Transfer", "Clients", "", "Size", "Speed", right=("Clients", "Size", "Speed"))
    for each in look.fills:
        made.add_row(
            styled(f"{each.registry}/{each.repository} {each.kind} {each.digest[:19]}"),
            f"{each.readers}",
            ProgressBar(total=each.size, completed=each.stored, width=20, pulse=each.size is None),
            size_text(each.stored if each.size is None else each.size),
            f"{size_text(each.bytes_per_second)}/s",
        )
    return made

"""What has to leave the store, and when: the least recently used first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from attrs import frozen

from regproxy.config.model import CacheSection
from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord

#: A store over a bound goes down to this share of it, so that the next commit does not
#: begin anew.
MARGIN: Final = 0.95


@frozen
class Usage:
    """How full it is.

    Attributes:
        stored: bytes of all content.
        free: bytes that the file system still takes.
    """

    stored: int
    free: int


def excess(rules: CacheSection, usage: Usage, wanted: int | None = None) -> int:
    """How many bytes have to go.

    Args:
        wanted: the disk had no room for so many bytes. Room is made for them, unless there
            is too little with the whole store gone; and some room in any case.
    """
    over = usage.stored - int(rules.max_size * MARGIN) if usage.stored > rules.max_size else 0
    short = int(rules.min_free / MARGIN) - usage.free if usage.free < rules.min_free else 0
    return max(over, short, 0 if wanted is None else _room(usage, wanted) - usage.free, 0)


def choose(
    oldest: Iterable[ContentRecord],
    in_use: Callable[[Digest], bool],
    excess: int,
    inactive_before: float,
) -> list[ContentRecord]:
    """Which of *oldest*, least recently used first, go.

    Args:
        in_use: whether content is being served, or was used after the index was told.
        excess: bytes that have to go.
        inactive_before: what was last used earlier than this goes in any case.
    """
    chosen = []
    for record in oldest:
        if excess <= 0 and record.last_access >= inactive_before:
            break
        if not in_use(record.digest):
            chosen.append(record)
            excess -= record.size
    return chosen


def _room(usage: Usage, wanted: int) -> int:
    """How many bytes are to be free after *wanted* ones found no room."""
    disk = usage.stored + usage.free
    return max(wanted if wanted <= disk else 0, disk - int(disk * MARGIN))

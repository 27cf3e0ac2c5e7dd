"""Sets of byte positions, kept as disjoint spans."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Spans:
    """A set of byte positions.

    Spans are half-open, ``(start, end)`` as Python slices have it; they are kept in order,
    and none touches the next.
    """

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add the positions from *start* up to but without *end*."""
        if start >= end:
            return
        # All spans that overlap or touch the new one become one with it.
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def run(self, offset: int) -> int:
        """The end of the span that *offset* is in; *offset* itself when it is in none."""
        index = bisect_right(self._starts, offset) - 1
        return max(offset, self._ends[index]) if index >= 0 else offset

    def gap(self, offset: int) -> tuple[int, int | None]:
        """The first gap at or after *offset*; its end is None when nothing follows it."""
        start = self.run(offset)
        index = bisect_right(self._starts, start)
        return start, self._starts[index] if index < len(self._starts) else None

    def missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The gaps between *start* and *end*, in order."""
        while start < end:
            start, gap_end = self.gap(start)
            stop = end if gap_end is None else min(gap_end, end)
            if start < stop:
                yield start, stop
            start = stop if gap_end is None else max(stop, gap_end)

    @property
    def total(self) -> int:
        """How many positions are in the set."""
        return sum(self._ends) - sum(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Spans({list(self)})"

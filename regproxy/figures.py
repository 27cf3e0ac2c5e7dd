"""What every room counts with: plain numbers, read by whoever wants to see them."""

from __future__ import annotations

from bisect import bisect_left


class Histogram:
    """How many values there were of which size.

    Attributes:
        bounds: the largest value of each bucket, in rising order.
        counts: values in each bucket; the last has what is larger than all bounds.
        sum: of all values.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def include(self, other: Histogram) -> None:
        """All values of *other*, whose bounds are the same."""
        self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum


def reason_of(error: object) -> str:
    """The reason that *error* is counted under: what its class says in an attribute *reason*."""
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, str) else "other"

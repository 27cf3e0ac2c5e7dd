"""The lines of the throughput chart. Pure: what comes out are numbers and SVG points.

The drawing is stretched to whatever room the page gives it, so it holds no text: the
scales are HTML beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from attrs import frozen

from regproxy.management.values import Sample

#: Seconds that the chart shows.
HOUR: Final = 3600
#: Seconds of one point: a half minute is as fine as a line on a screen is.
STEP: Final = 30
#: Seconds of one row of the table that says the same in figures.
ROW: Final = 300
#: The drawing's own units.
WIDTH: Final = HOUR // STEP
HEIGHT: Final = 100


@frozen
class Row:
    """A span of the hour in figures: sums of seconds, bytes and requests."""

    time: datetime
    seconds: float
    bytes_to_clients: int
    bytes_from_upstream: int
    requests: int
    hits: int


@frozen
class Chart:
    """What there is to draw.

    Attributes:
        top: the rate at the upper edge, in bytes a second.
        to_clients, from_upstream: points of lines, as SVG takes them.
        area: the points of the surface below ``to_clients``.
        peak: the highest rate to clients, in bytes a second, over one step.
        total: of the whole hour.
        rows: the same in figures, the oldest first.
    """

    top: float
    to_clients: str
    from_upstream: str
    area: str
    peak: float
    total: Row
    rows: Sequence[Row]

    @classmethod
    def of(cls, samples: Sequence[Sample], now: datetime) -> Chart:
        """Draw the *samples*, the oldest first, of the hour before *now*."""
        begin = now - timedelta(seconds=HOUR)
        recent = [each for each in samples if begin < each.time <= now]
        steps = _summed(recent, STEP)
        places = [(each.time - begin) / timedelta(seconds=STEP) for each in steps]
        sent = [each.bytes_to_clients / each.seconds for each in steps]
        fetched = [each.bytes_from_upstream / each.seconds for each in steps]
        top = ceiling(max((*sent, *fetched), default=0))

        def line(rates: Sequence[float]) -> str:
            points = zip(places, rates, strict=True)
            return " ".join(f"{x:.2f},{HEIGHT * (1 - rate / top):.1f}" for x, rate in points)

        area = ""
        if steps:
            area = f"{places[0]:.2f},{HEIGHT} {line(sent)} {places[-1]:.2f},{HEIGHT}"
        return cls(
            top,
            line(sent),
            line(fetched),
            area,
            max(sent, default=0),
            _sum(begin, recent),
            _summed(recent, ROW),
        )


def ceiling(rate: float) -> float:
    """The next round rate, in bytes a second: 1, 2, 5, 10, 20 ... 500 MiB, GiB.

    What is less than 1 MiB shall look like the little that it is.
    """
    unit = 1024.0**2
    while True:
        for factor in (1, 2, 5, 10, 20, 50, 100, 200, 500):
            if rate <= factor * unit:
                return factor * unit
        unit *= 1024


def _summed(samples: Sequence[Sample], seconds: int) -> list[Row]:
    """The sums over spans of *seconds*, which begin where the clock shows a multiple of it."""
    spans = groupby(samples, lambda each: each.time.timestamp() // seconds)
    return [
        _sum(datetime.fromtimestamp(number * seconds, samples[0].time.tzinfo), list(each))
        for number, each in spans
    ]


def _sum(time: datetime, samples: Sequence[Sample]) -> Row:
    return Row(
        time,
        sum(each.seconds for each in samples),
        sum(each.bytes_to_clients for each in samples),
        sum(each.bytes_from_upstream for each in samples),
        sum(each.requests for each in samples),
        sum(each.hits for each in samples),
    )

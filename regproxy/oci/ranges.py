"""Byte ranges: RFC 9110 section 14, and If-Range (section 13.1.5).

A pair of offsets is ``(start, end)``, the end exclusive, as Python slices have it; the
header fields count inclusively.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from attrs import frozen

# Section 14.2 lets a server ignore many or overlapping ranges, as answering them
# costs more than asking. containers/image is the one registry client that sends
# several at all.
MAX_RANGES: Final = 64
# Enough for MAX_RANGES of the largest offsets, and below what int() takes.
_MAX_LENGTH: Final = 4096

_SPECIFIER: Final = re.compile(rb"bytes=(.*)", re.IGNORECASE)
_SPEC: Final = re.compile(rb"([0-9]+)-([0-9]*)|-([0-9]+)")
_CONTENT_RANGE: Final = re.compile(
    rb"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE
)


@frozen
class Whole:
    """Answer as if there were no Range: 200 and everything."""


@frozen
class Satisfiable:
    """Answer 206 with these ranges, in the order asked for; none is empty, none overlap."""

    ranges: tuple[tuple[int, int], ...]


@frozen
class Unsatisfiable:
    """Answer 416: no range begins inside the content."""


def parse_range(header: bytes | None, size: int) -> Whole | Satisfiable | Unsatisfiable:
    """What a Range field asks of content of *size* bytes.

    A field that is malformed, has another unit, or asks for too much is ignored, as
    section 14.2 wants it.
    """
    if header is None or len(header) > _MAX_LENGTH:
        return Whole()
    specifier = _SPECIFIER.fullmatch(header.strip(b" \t"))
    if specifier is None:
        return Whole()
    # Section 5.6.1.2: empty members of a list do not count.
    specs = [spec for part in specifier[1].split(b",") if (spec := part.strip(b" \t"))]
    if not 0 < len(specs) <= MAX_RANGES:
        return Whole()
    ranges = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None:
            return Whole()
        first, last, suffix = match.groups()
        if suffix is not None:
            if int(suffix) == 0:
                continue
            if size == 0:
                # Satisfiable by section 14.1.2, but Content-Range cannot say "no bytes".
                return Whole()
            start, end = max(0, size - int(suffix)), size
        else:
            start, end = int(first), int(last) + 1 if last else max(size, int(first) + 1)
            if end <= start:
                return Whole()
        if start < size:
            ranges.append((start, min(end, size)))
    if not ranges:
        return Unsatisfiable()
    if any(end > start for (_, end), (start, _) in pairwise(sorted(ranges))):
        return Whole()
    return Satisfiable(tuple(ranges))


def range_of(start: int, end: int | None) -> bytes:
    """The Range that asks for the bytes from *start* up to but without *end*, None for all."""
    return b"bytes=%d-" % start if end is None else b"bytes=%d-%d" % (start, end - 1)


def content_range(start: int, end: int, size: int) -> bytes:
    """The Content-Range of a 206 with the bytes from *start* up to but without *end*."""
    return b"bytes %d-%d/%d" % (start, end - 1, size)


def unsatisfied_range(size: int) -> bytes:
    """The Content-Range of a 416 (section 15.5.17)."""
    return b"bytes */%d" % size


@frozen
class ContentRange:
    """The part of the content that a 206 holds; ``size`` of the whole may be unknown."""

    start: int
    end: int
    size: int | None


def parse_content_range(value: bytes) -> ContentRange:
    """Read the Content-Range of an upstream's 206.

    Raises:
        ValueError: it is malformed or contradicts itself (section 14.4).
    """
    match = _CONTENT_RANGE.fullmatch(value.strip(b" \t"))
    if match is None:
        raise ValueError(f"malformed Content-Range {value[:80]!r}")
    start, end = int(match[1]), int(match[2]) + 1
    size = None if match[3] == b"*" else int(match[3])
    if end <= start or (size is not None and end > size):
        raise ValueError(f"contradictory Content-Range {value[:80]!r}")
    return ContentRange(start, end, size)


def if_range_matches(header: bytes | None, etag: bytes) -> bool:
    """Whether Range counts in spite of this If-Range; without one it does.

    *etag* is a strong entity tag, and only the same strong one matches. A date never
    does: content that is named by its digest has no date.
    """
    return header is None or header.strip(b" \t") == etag

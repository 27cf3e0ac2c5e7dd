"""How numbers, sizes and times are written for people. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from regproxy.oci.names import DOCKER_HUB

#: In the place of what is not known.
UNKNOWN: Final = "\N{EN DASH}"

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# Of the OCI image specification, and docker's own, each with what it is compressed with.
_LAYER: Final = re.compile(
    r"application/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1|docker\.image\.rootfs"
    r"(?:\.foreign)?\.diff)\.tar(?:[+.](\w+))?"
)
# Seconds of each, the largest first; more than a year ago is told in days.
_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def count(value: float) -> str:
    """A number of things: ``12,345``."""
    return f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes with three digits that count: ``1.21 GiB``."""
    if value is None:
        return UNKNOWN
    unit = 0
    # What would be written as 1000 or more goes to the next unit: no fourth digit.
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{_three_digits(value) if unit else round(value)} {_UNITS[unit]}"


def _three_digits(value: float) -> str:
    for digits, below in ((2, 9.995), (1, 99.95)):
        if value < below:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Bytes in a second: ``34.2 MiB/s``."""
    return UNKNOWN if value is None else f"{size(value)}/s"


def tick(value: float) -> str:
    """A round rate at a scale: ``500 KiB/s``."""
    unit = 0
    while value >= 1024:
        value /= 1024
        unit += 1
    return f"{value:g} {_UNITS[unit]}/s"


def percent(ratio: float | None) -> str:
    """A part of 1: ``94.2%``. Never 100% for what is less."""
    if ratio is None:
        return UNKNOWN
    if ratio < 1:
        ratio = min(ratio, 0.999)
    return f"{ratio:.0%}" if ratio in (0, 1) else f"{ratio:.1%}"


def span(seconds: float | None) -> str:
    """A duration by its largest unit: ``350 ms``, ``4.2 s``, ``12 min``, ``3 d``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 9.95 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    for length, unit in _SPANS:
        if seconds >= length:
            return f"{int(seconds // length):,} {unit}"
    raise AssertionError(seconds)


def ago(time: datetime | None, now: datetime) -> str:
    """How long before *now*: ``now``, ``45 s ago``, ``3 d ago``; or ``in 3 d``."""
    if time is None:
        return "never"
    past = (now - time).total_seconds()
    if abs(past) < 1:
        return "now"
    # Of a time gone by, parts of a second say nothing.
    past = int(past)
    return f"{span(past)} ago" if past > 0 else f"in {span(-past)}"


def day(time: datetime) -> str:
    """A date: ``9 March 2036``."""
    return f"{time.day} {time:%B %Y}"


def moment(time: datetime) -> str:
    """A time to the second: ``2026-03-09 17:04:11 UTC``."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def days_left(until: datetime, now: datetime) -> int:
    """Whole days before *until*; negative when it has passed."""
    return (until - now) // timedelta(days=1)


def short(digest: str) -> str:
    """A digest by its first twelve digits, as docker shows it."""
    return digest.rpartition(":")[2][:12]


def sentence(text: str) -> str:
    """What errors say, as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def known_as(host: str) -> str:
    """A registry as people call it, in the names of images."""
    return "docker.io" if host == DOCKER_HUB else host


def layer(media_type: str) -> str:
    """What a layer is: ``layer, gzip``; what is none is told by its media type."""
    match = _LAYER.fullmatch(media_type)
    if match is None:
        return media_type
    return f"layer, {match[1] or 'not compressed'}"


def platform(name: str | None) -> str:
    """A platform as an image's index names it: ``linux/arm64/v8``."""
    match name:
        case None:
            return "no platform"
        case "unknown/unknown":
            # What BuildKit calls the manifests of its provenance and SBOM.
            return "attestation"
    return name

"""Sizes and durations as they stand in the configuration, both ways."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_SIZE: Final = re.compile(r"([0-9]{1,19}) *(?:([kmg])(?:ib)?)?", re.IGNORECASE)
_SIZE_UNITS: Final = {"g": 1 << 30, "m": 1 << 20, "k": 1 << 10}
_SIZE_MAX: Final = (1 << 63) - 1
_SIZE_EXPECTED: Final = 'expected a size such as "32GiB", "512MiB", "64k" or a number of bytes'

_NUMBER: Final = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
_DURATION: Final = re.compile(
    rf"(?=.)(?:({_NUMBER})d)?(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s?)?", re.IGNORECASE
)
_DURATION_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
# A hundred years: beyond it clocks and time stamps overflow.
_DURATION_MAX: Final = 36525 * 86400
_DURATION_EXPECTED: Final = (
    'expected a duration such as "30s", "15m", "1h30m", "7d" or a number of seconds'
)


def parse_size(value: object) -> int:
    """Read a size in bytes: a whole number, alone or as text with a binary unit.

    Raises:
        ValueError: it is no size; the message says what one is.
    """
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        size = int(match[1]) * (_SIZE_UNITS[match[2].lower()] if match[2] else 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise ValueError(_SIZE_EXPECTED)
    if not 0 <= size <= _SIZE_MAX:
        raise ValueError(f"{_SIZE_EXPECTED}, from 0 to 2^63-1")
    return size


def format_size(size: int) -> str:
    """*size* with the largest unit that leaves a whole number."""
    for letter, unit in _SIZE_UNITS.items():
        if size and size % unit == 0:
            return f"{size // unit}{letter.upper()}iB"
    return str(size)


def parse_duration(value: object) -> float:
    """Read a duration in seconds: a number, alone or as text with units, largest first.

    Raises:
        ValueError: it is no duration; the message says what one is.
    """
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        parts = zip(match.groups(), _DURATION_UNITS.values(), strict=True)
        seconds = float(sum(Decimal(number) * unit for number, unit in parts if number))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(min(value, _DURATION_MAX + 1))
    else:
        raise ValueError(_DURATION_EXPECTED)
    # Also refuses NaN, which TOML can say.
    if not 0 <= seconds <= _DURATION_MAX:
        raise ValueError(f"{_DURATION_EXPECTED}, from 0 to 36525 days")
    return round(seconds, 9)


def format_duration(seconds: float) -> str:
    """*seconds* in whole units, or as a decimal fraction of seconds."""
    if seconds != int(seconds):
        # Never with an exponent, which parse_duration does not take.
        return f"{Decimal(repr(seconds)):f}s"
    rest = int(seconds)
    text = ""
    for letter, unit in _DURATION_UNITS.items():
        count, rest = divmod(rest, unit)
        if count:
            text += f"{count}{letter}"
    return text or "0s"

"""Retry-After: RFC 9110 section 10.2.3."""

from __future__ import annotations

from email.utils import parsedate_to_datetime


def parse_retry_after(value: bytes, now: float) -> float | None:
    """How many seconds from *now* (seconds since the epoch) to wait; None if it does not say."""
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        # More digits than any time has would be slow to read.
        return float(text[:12])
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - now)

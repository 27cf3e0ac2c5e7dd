"""How much a registry lets a client ask: the fields ratelimit-limit and ratelimit-remaining.

Docker Hub sends ``ratelimit-limit: 100;w=21600`` and ``ratelimit-remaining: 76;w=21600`` with
manifests, for a GET and for a HEAD (Docker's documentation, "Docker Hub pull usage and
limits"). The form is that of draft-ietf-httpapi-ratelimit-headers, up to version 06.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

# More digits than any limit has would be slow to read. The parameters are those of a
# structured field (RFC 8941 section 3.1.2); only "w" is of use.
_QUOTA: Final = re.compile(rb"[ \t]*([0-9]{1,15})[ \t]*(?:;[^,]*)?")
_WINDOW: Final = re.compile(rb";[ \t]*w=([0-9]{1,9})[ \t]*(?:;|\Z)")


@frozen
class Quota:
    """So many requests.

    Attributes:
        window: in so many seconds; None when it is not said.
    """

    count: int
    window: int | None = None


def parse_quota(value: bytes) -> Quota | None:
    """The quota in a field's value, the first if it lists several; None if it has none."""
    member = value.partition(b",")[0]
    match = _QUOTA.fullmatch(member)
    if match is None:
        return None
    window = _WINDOW.search(member)
    return Quota(int(match[1]), None if window is None else int(window[1]))

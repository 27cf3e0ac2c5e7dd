"""Entity tags and the preconditions on them: RFC 9110 sections 8.8.3 and 13.1.

The content's digest is its entity tag, so every tag made here is a strong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from regproxy.oci.names import Digest

# An entity tag may hold commas, so a list of them cannot just be split. Some clients
# send a digest without its quotes, and Docker's registry has always taken that.
# Possessive, or a long run of spaces would take quadratic time.
_MEMBER: Final = re.compile(
    rb'[ \t]*+(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*")|([^\s,"]*+))[ \t]*+(?:,|\Z)'
)


def etag_of(digest: Digest) -> bytes:
    """The entity tag of the content with this digest."""
    return b'"%s"' % str(digest).encode()


def none_match(values: Sequence[bytes], etag: bytes) -> bool:
    """Whether If-None-Match says that the client has this: answer 304 (section 13.1.2).

    *values* are the field's lines. The comparison is the weak one.
    """
    return any(tag in (b"*", etag) for _, tag in _members(values))


def match_failed(values: Sequence[bytes], etag: bytes) -> bool:
    """Whether If-Match is there and does not name this: answer 412 (section 13.1.1).

    *values* are the field's lines. The comparison is the strong one.
    """
    return bool(values) and not any(
        tag in (b"*", etag) and not weak for weak, tag in _members(values)
    )


def _members(values: Sequence[bytes]) -> Iterator[tuple[bool, bytes]]:
    """Weakness and opaque tag of each member, up to the first malformed one of a line."""
    for value in values:
        position = 0
        while position < len(value) and (match := _MEMBER.match(value, position)):
            weak, tag, bare = match.groups()
            if tag is not None:
                yield weak is not None, tag
            elif bare:
                yield False, bare if bare == b"*" else b'"%s"' % bare
            position = match.end()

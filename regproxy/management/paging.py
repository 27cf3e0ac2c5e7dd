"""Lists in parts: a cursor names the key after which the next part begins.

What is added or removed meanwhile shifts nothing: each item that is there all the time is seen
once.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from typing import Any, Final, TypeVar

from regproxy.management.values import Page

#: Items in a part, unless the reader says how many, and at most.
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000

#: What orders a list: texts and numbers, of the same kinds for each item.
Key = tuple[str | int | float, ...]

_T = TypeVar("_T")


class BadCursor(Exception):
    """A cursor that no part of this list has named."""

    def __init__(self) -> None:
        super().__init__("the cursor is none of this list")


def cursor_of(key: Key) -> str:
    """The cursor that stands for *key*."""
    text = json.dumps(key, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def key_of(cursor: str, *kinds: type[Any]) -> Key:
    """The key that *cursor* stands for.

    Args:
        kinds: the types of its parts, each str, int or float.

    Raises:
        BadCursor: it stands for none such.
    """
    try:
        key = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        # JSON can have halves of characters, and no key has.
        json.dumps(key, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise BadCursor from None
    if not isinstance(key, list) or [type(part) for part in key] != list(kinds):
        raise BadCursor
    return tuple(key)


def page_of(
    items: Iterable[_T], key: Callable[[_T], Key], limit: int, cursor: str | None
) -> Page[_T]:
    """The part of *items* in the order of *key* that *cursor* names, None for the first.

    For lists that are in memory; no two items have the same key.

    Raises:
        BadCursor: *cursor* is none of this list.
    """
    keyed = [(key(item), item) for item in items]
    if cursor is not None:
        if not keyed:
            return Page(())
        after = key_of(cursor, *map(type, keyed[0][0]))
        keyed = [each for each in keyed if each[0] > after]
    return cut(nsmallest(limit + 1, keyed, key=lambda each: each[0]), limit)


def cut(keyed: Sequence[tuple[Key, _T]], limit: int) -> Page[_T]:
    """The first *limit* of *keyed*, which holds one more if there is more."""
    shown = keyed[:limit]
    more = len(keyed) > limit and shown
    return Page(tuple(item for _, item in shown), cursor_of(shown[-1][0]) if more else None)

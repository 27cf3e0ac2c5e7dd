"""From what a page was asked for to a URL that asks for the same. Pure."""

from __future__ import annotations

from urllib.parse import urlencode

from attrs import AttrsInstance, asdict


def url(path: str, asked: AttrsInstance) -> str:
    """*path*, with those attributes of *asked* that are not None as its query."""
    fields = {name: str(each) for name, each in asdict(asked).items() if each is not None}
    return f"{path}?{urlencode(fields)}" if fields else path

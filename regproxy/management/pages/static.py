"""Style, script and icon: package data, held in memory.

Their URLs carry a part of the hash of their content, so that browsers keep them for ever and
still never use an old one.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from typing import Final

from attrs import frozen

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@frozen
class Static:
    """One file.

    Attributes:
        version: what its URL has as its query.
    """

    media_type: str
    content: bytes
    version: str


class Statics:
    """The files by their names."""

    def __init__(self) -> None:
        self.files: dict[str, Static] = {}
        for file in files("regproxy.management").joinpath("static").iterdir():
            content = file.read_bytes()
            version = sha256(content).hexdigest()[:12]
            media_type = _TYPES[file.name.rpartition(".")[2]]
            self.files[file.name] = Static(media_type, content, version)

    def path(self, name: str) -> str:
        """The URL of the file *name*, without a host."""
        return f"/static/{name}?{self.files[name].version}"

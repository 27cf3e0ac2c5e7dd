"""Access logs of real servers, read to know what an upstream was asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from attrs import field, frozen

# The "combined" format of Apache httpd, which docker-registry and Twisted write.
_LINE: Final = re.compile(
    r'^\S+ \S+ \S+ \[[^]]*\] "(?P<method>[A-Z]+) (?P<target>\S+) HTTP/[0-9.]+"'
    r' (?P<status>[0-9]{3}) (?P<size>\S+)(?: "[^"]*" "(?P<agent>[^"]*)")?'
)


@frozen
class Request:
    """One line: a request that the server has answered."""

    method: str
    target: str
    status: int
    size: int
    agent: str

    def __str__(self) -> str:
        return f"{self.method} {self.target} {self.status} {self.size} {self.agent!r}"


def parse(text: str) -> Iterator[Request]:
    """The requests in *text*. Lines of other kinds are left out."""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            size = match["size"]
            yield Request(
                match["method"],
                match["target"],
                int(match["status"]),
                int(size) if size.isdigit() else 0,
                match["agent"] or "",
            )


@frozen
class Traffic:
    """The requests of one stretch of a test. Its text form is for messages of failed tests."""

    requests: tuple[Request, ...] = field(converter=tuple[Request, ...])

    def gets(self, kind: str, repository: str = "") -> Counter[str]:
        """How often each object of *kind* was fetched with GET and given: by what follows the kind.

        *kind* is ``blobs`` or ``manifests``; *repository* narrows the count to one.
        """
        found: Counter[str] = Counter()
        for request in self.requests:
            path = request.target.partition("?")[0]
            name, slash, reference = path.removeprefix("/v2/").rpartition(f"/{kind}/")
            given = request.method == "GET" and 200 <= request.status < 300
            if slash and given and repository in ("", name):
                found[reference] += 1
        return found

    def __str__(self) -> str:
        return "\n".join(str(request) for request in self.requests) or "(no requests)"

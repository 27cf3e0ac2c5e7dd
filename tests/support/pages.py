"""The management site over fake parts, in memory; and what a page that it gave consists of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource

from regproxy.config.model import Config, ManagementSection
from regproxy.management.access import Guard
from regproxy.management.metrics import Metrics
from regproxy.management.pages.rendering import MANAGEMENT, Pages
from regproxy.management.setup.facts import Facts
from regproxy.management.site import ManagementSite
from regproxy.policy.visitors import BadLogins
from regproxy.web.site import Entry
from tests.support.management import NOW, FakeSources
from tests.support.sites import House, Response
from tests.support.workers import Now

TOKEN: Final = "a-token-of-some-length"

# Have no end tag (the HTML standard, "void elements").
_VOID = {"input", "link", "meta", "wbr", "path", "polygon", "polyline", "rect"}


@define
class Element:
    """An element of a page."""

    name: str
    attributes: Mapping[str, str | None]
    children: list[Element | str] = field(factory=list)

    def __iter__(self) -> Iterator[Element]:
        """It, and all that are inside, in order."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child

    def all(self, name: str, **attributes: str) -> list[Element]:
        """Those of that *name* that have the *attributes*."""
        return [
            each
            for each in self
            if each.name == name
            and all(each.attributes.get(key) == value for key, value in attributes.items())
        ]

    def one(self, name: str, **attributes: str) -> Element:
        """The only one."""
        found = self.all(name, **attributes)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} of {name} {attributes}")
        return found[0]

    def by_id(self, id: str) -> Element:
        """The one with that id."""
        (found,) = (each for each in self if each.attributes.get("id") == id)
        return found

    @property
    def text(self) -> str:
        """What is to be read, with single spaces."""
        return " ".join(self._characters().split())

    def _characters(self) -> str:
        return "".join(
            each if isinstance(each, str) else each._characters() for each in self.children
        )

    def rows(self) -> list[list[str]]:
        """The texts of the cells of a table's body."""
        cells = ("td", "th")
        return [
            [cell.text for cell in row if cell.name in cells]
            for row in self.all("tr")
            if row.all("td")
        ]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            raise AssertionError(f"{tag} has an attribute twice")
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        element = self.open.pop()
        if element.name != tag:
            raise AssertionError(f"</{tag}> where </{element.name}> was due")

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(page: bytes) -> Element:
    """The elements of *page*, which has to be well formed."""
    parser = _Parser()
    parser.feed(page.decode())
    parser.close()
    if len(parser.open) != 1:
        raise AssertionError(f"{parser.open[-1].name} was not closed")
    return parser.open[0].one("html")


class GivenMetrics(Metrics):
    """Metrics whose page the test gives."""

    def __init__(self, page: Deferred[bytes] | None = None) -> None:
        self.given = page or succeed(b"x 1\n")
        self.asked: list[str] = []

    async def page(self, accept: str) -> tuple[str, bytes]:
        self.asked.append(accept)
        return "text/plain; version=0.0.4", await self.given


class PagesCase(SynchronousTestCase):
    """A management site that has nothing, unless a test puts something there."""

    section = ManagementSection(token_file=Path("token"))
    facts = Facts.of(Config(data=Path("/nowhere")))
    #: Of each request.
    authorization = f"Bearer {TOKEN}"

    def setUp(self) -> None:
        self.fake = FakeSources()
        self.metrics = GivenMetrics()
        self.others: dict[str, IResource] = {}

    def house(self) -> House:
        """The site, as it is served."""
        clock = Clock()
        tree = ManagementSite(
            Pages(MANAGEMENT, lambda: NOW),
            self.fake.sources(),
            Guard(self.section, Now(), clock, BadLogins(), lambda path: TOKEN.encode()),
            self.metrics,
            self.facts,
            self.others,
            lambda: NOW,
        )
        return House(tree, entry=Entry("management"), clock=clock)

    def ask(
        self, target: str, method: str = "GET", *fields: str, body: bytes = b"", host: str = ""
    ) -> Response:
        """What one request of a browser gets."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host or 'localhost:8080'}"]
        lines += ["Accept: text/html,*/*;q=0.8", f"Content-Length: {len(body)}", *fields]
        if self.authorization:
            lines.append(f"Authorization: {self.authorization}")
        answer = self.house().ask("\r\n".join([*lines, "", ""]).encode() + body)
        head, _, content = answer.partition(b"\r\n\r\n")
        status, *rest = head.decode().split("\r\n")
        headers = {}
        for line in rest:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return Response(int(status.split()[1]), headers, content)

    def page(self, target: str) -> Element:
        """The page at *target*."""
        answer = self.ask(target)
        self.assertEqual(answer.status, 200, answer.body)
        return parse(answer.body)

    def post(self, path: str, *more: str, **form: str) -> Response:
        """What a form gets that is sent from a page of the site."""
        media_type = "Content-Type: application/x-www-form-urlencoded"
        origin = "Origin: http://localhost:8080"
        body = urlencode(form).encode()
        return self.ask(path, "POST", media_type, *(more or (origin,)), body=body)

"""Tests for :mod:`regproxy.management.pages.images`."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import urlencode

from attrs import evolve

from regproxy.management.values import ImageValue, ManifestNode, Page
from tests.support.management import (
    HUB,
    MIB,
    FakeImages,
    FakeOverview,
    busy,
    image,
    index,
    layer,
    manifest,
    registry,
)
from tests.support.pages import Element, PagesCase

#: What must never become a part of a page.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</title></textarea><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "a&amp;b&lt;",
    "\u202e\N{SNOWMAN}\u2028",
)


def urls(page: Element) -> list[str]:
    return [
        str(each.attributes[name])
        for each in page
        for name in ("href", "src", "action")
        if name in each.attributes
    ]


class Many(FakeImages):
    """As many as a test wants, each used a second before the one before."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    async def images(self, *, limit: int, cursor: str | None, **_: object) -> Page[ImageValue]:
        begin = int(cursor or 0)
        end = min(begin + limit, self._number)
        items = tuple(image(f"ghcr.io/acme/app-{n % 100}:{n}", used=n) for n in range(begin, end))
        return Page(items, str(end) if end < self._number else None)


class ListTests(PagesCase):
    """``/images``"""

    def names(self, page: Element) -> list[str]:
        return [row[0] for row in page.one("tbody").rows()]

    def test_empty(self) -> None:
        """Nothing is stored: how to begin."""
        page = self.page("/images")
        self.assertIn("No image is stored yet", page.one("tbody").text)
        self.assertIn("/setup", urls(page.one("tbody")))

    def test_nothing_fits(self) -> None:
        self.fake.images = FakeImages.of(image("ghcr.io/a/b:1"))
        page = self.page("/images?q=zzz")
        self.assertIn("No image fits", page.one("tbody").text)
        self.assertEqual(page.by_id("q").attributes["value"], "zzz")

    def test_row(self) -> None:
        self.fake.images = FakeImages.of(
            image("ghcr.io/a/b:1", bytes=9 * MIB, used=60, brought_by="10.0.0.9", pinned=True),
            image("ghcr.io/a/c:1", used=70, brought_by=None, complete=False),
        )
        first, second = self.page("/images").one("tbody").rows()
        self.assertEqual(first[:4], ["ghcr.io/a/b:1 pinned", "9.00 MiB", "1 min ago", "10.0.0.9"])
        self.assertIn("Unpin", first[4])
        self.assertEqual(second[0], "ghcr.io/a/c:1 in part")
        self.assertEqual(second[3], "\N{EN DASH}")

    def test_search(self) -> None:
        """The form sends unused fields empty."""
        self.fake.images = FakeImages.of(image("ghcr.io/a/b:1"), image("quay.io/a/c:1"))
        page = self.page("/images?q=&registry=quay.io&sort=reference")
        self.assertEqual(self.names(page), ["quay.io/a/c:1"])
        self.assertEqual(page.by_id("registry").attributes["value"], "quay.io")
        page = self.page("/images?registry=ghcr.io&repository=a/b")
        self.assertEqual(self.names(page), ["ghcr.io/a/b:1"])

    def test_registries(self) -> None:
        """Hosts are offered; of a pattern there are no images."""
        self.fake.overview = FakeOverview(
            known=[registry(name, 0, 0) for name in ("ghcr.io", HUB, "*-docker.pkg.dev")]
        )
        offered = self.page("/images").one("datalist").all("option")
        self.assertEqual([each.attributes["value"] for each in offered], ["docker.io", "ghcr.io"])

    def test_ten_thousand(self) -> None:
        """They come in parts, each of which leads to the next; no image is lost or twice."""
        self.fake.images = Many(10_000)
        target, names, pages = "/images", list[str](), 0
        while target:
            body = self.ask(target).body.decode()
            self.assertLess(len(body), 100_000)
            names += re.findall(r'<a href="/image\?reference=([^"]+)"', body)
            pages += 1
            following = re.search(r'<a href="([^"]+)" rel="next"', body)
            target = unescape(following[1]) if following else ""
        self.assertEqual((pages, len(names), len(set(names))), (200, 10_000, 10_000))

    def test_way_back(self) -> None:
        """From a later part, to the start of the same search."""
        self.fake.images = FakeImages.of(*(image(f"ghcr.io/a/b:{n}") for n in range(60)))
        page = self.page("/images?q=ghcr&sort=bytes")
        (following,) = page.all("a", rel="next")
        page = self.page(str(following.attributes["href"]))
        self.assertIn("/images?q=ghcr&sort=bytes", urls(page))
        self.assertEqual(page.all("a", rel="next"), [])

    def test_search_goes_on(self) -> None:
        """A search looks at so many images at a time, and none of them may fit."""

        class Far(FakeImages):
            async def images(self, **_: object) -> Page[ImageValue]:
                return Page((), "abc")

        self.fake.images = Far()
        page = self.page("/images?q=x")
        self.assertIn("None found so far", page.one("tbody").text)
        self.assertEqual(
            page.one("tbody").one("a").attributes["href"],
            page.one("a", rel="next").attributes["href"],
        )

    def test_hostile_names(self) -> None:
        """Whatever a name consists of, it is text."""
        self.fake.images = FakeImages(
            {
                text: evolve(
                    image("a/b:c"),
                    reference=text,
                    registry=text,
                    repository=text,
                    tag=text,
                    media_type=text,
                    brought_by=text,
                )
                for text in HOSTILE
            }
        )
        hostile = self.fake.images
        plain = FakeImages.of(image("a/b:c"), image("a/b:d", brought_by="x"))
        for path, query in (
            ("/images", "q"),
            ("/repositories", "q"),
            ("/image", "reference"),
            ("/images/purge", "reference"),
        ):
            self.fake.images = plain
            known = {each.name for each in self.page(f"{path}?{query}=a/b:c")}
            known |= {each.name for each in self.page("/images")}
            self.fake.images = hostile
            for text in HOSTILE:
                page = self.page(f"{path}?{urlencode({query: text})}")
                self.assertLessEqual({each.name for each in page}, known)
                names = {name for each in page for name in each.attributes}
                self.assertEqual({name for name in names if name.startswith("on")}, set())
                for found in urls(page):
                    self.assertTrue(found.startswith(("/", "#")), found)
                values = [str(value) for each in page for value in each.attributes.values()]
                self.assertIn(text, values)


class RepositoryTests(PagesCase):
    """``/repositories``"""

    def test_rows(self) -> None:
        self.fake.images = FakeImages.of(
            image("ghcr.io/a/b:1", bytes=MIB), image("ghcr.io/a/b:2", bytes=2 * MIB)
        )
        page = self.page("/repositories")
        self.assertEqual(
            page.one("tbody").rows(),
            [["ghcr.io/a/b", "2", "3.00 MiB", "1 min ago", "Purge ghcr.io/a/b"]],
        )
        self.assertIn("/images?registry=ghcr.io&repository=a%2Fb", urls(page))

    def test_empty(self) -> None:
        self.assertIn("Nothing is stored yet", self.page("/repositories").one("tbody").text)
        page = self.page("/repositories?q=zzz")
        self.assertIn("No repository fits", page.one("tbody").text)


class ImageTests(PagesCase):
    """``/image``"""

    name = "ghcr.io/acme/shop:2.14.0"

    def shown(self, tree: ManifestNode) -> Element:
        self.fake.images = FakeImages.of(image(self.name))
        self.fake.images.trees[self.name] = tree
        return self.page(f"/image?reference={self.name}")

    def test_index(self) -> None:
        """Platforms, and the layers of the one that is here, which is open."""
        self.fake = busy()
        page = self.page(f"/image?reference={self.name}")
        self.assertEqual(page.one("h1").text, self.name)
        titles = [each.text for each in page.all("h3")]
        self.assertEqual(titles, ["linux/amd64", "linux/arm64/v8", "attestation"])
        opened = ["open" in each.attributes for each in page.all("details")]
        self.assertEqual(opened, [True, False, False])
        rows = page.one("tbody").rows()
        self.assertEqual(len(rows), 6)
        self.assertEqual(rows[0][1:], ["configuration", "6.86 KiB", "stored", "no"])
        self.assertEqual(rows[1][1:], ["layer, gzip", "28.0 MiB", "stored", "7 manifests"])
        self.assertIn("its layers are not known", page.all("details")[1].text)

    def test_single(self) -> None:
        """An image without an index is its own only platform."""
        page = self.shown(manifest("m", None, [layer("a", MIB), layer("b", 0, stored=False)]))
        self.assertEqual([each.text for each in page.all("h3")], ["no platform"])
        self.assertIn("open", page.one("details").attributes)
        self.assertIn("not here", page.one("tbody").text)
        widths = [float(str(each.attributes["width"])) for each in page.all("rect")]
        self.assertEqual(len(widths), 2)
        self.assertGreater(widths[0], 99)

    def test_several(self) -> None:
        """With more platforms here, all are closed: the reader chooses."""
        page = self.shown(index("i", manifest("a", "linux/amd64", []), manifest("b", "x/y", [])))
        self.assertEqual([each for each in page.all("details") if "open" in each.attributes], [])

    def test_nested(self) -> None:
        """An index within an index is shown with what it names."""
        inner = index("inner", manifest("a", "linux/amd64", [layer("l", MIB)]))
        page = self.shown(index("outer", inner))
        (found,) = page.all("details")[0].all("h3")[1:]
        self.assertEqual(found.text, "linux/amd64")

    def test_notice(self) -> None:
        self.fake.images = FakeImages.of(image(self.name))
        page = self.page(f"/image?reference={self.name}&notice=pinned")
        self.assertIn("it is kept until", page.one("div", role="status").text)

    def test_unknown(self) -> None:
        for query, status in (("reference=a/b:c", 404), ("", 400), ("reference=", 400)):
            self.assertEqual(self.ask(f"/image?{query}").status, status)

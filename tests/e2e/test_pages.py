"""The pages in a real browser: with parts that are made up, and those of a real proxy."""

from __future__ import annotations

import atexit
import re
from functools import cache
from typing import Final

from playwright.sync_api import Response, expect
from twisted.trial.unittest import SynchronousTestCase

from tests.support.browser import NAME, PHONE, WIDE, Reader, reader
from tests.support.clients import Skopeo
from tests.support.demo_process import Demo
from tests.support.faults import PATIENT, FaultTestCase, KiB, MiB
from tests.support.pages import TOKEN
from tests.support.process import free_port
from tests.support.programs import needs
from tests.support.proxy import Proxy, Value
from tests.support.stage import TOKEN_HOST, EndToEndTestCase
from tests.support.turns import Turn

SHOP: Final = "ghcr.io/acme/shop:2.14.0"
#: All pages that there are.
PAGES: Final = (
    "/",
    "/images",
    "/images?q=nothing+is+called+so",
    "/repositories",
    f"/image?reference={SHOP}",
    f"/image?reference={SHOP}&notice=pinned",
    f"/images/purge?reference={SHOP}",
    f"/images/pull?reference={SHOP}",
    "/events",
    "/ca",
    "/setup",
    "/setup?runtime=containerd&no_proxy=.example.net",
    "/setup?runtime=kind",
)


@cache
def demo(*options: str) -> Demo:
    """One for all tests."""
    started = Demo(*options)
    atexit.register(started.stop)
    return started


def _is_look(response: Response) -> bool:
    """Whether it is for the script, which looks at the page again."""
    return response.request.resource_type == "fetch"


@needs("chromium")
class PageTests(SynchronousTestCase):
    """Every page, as people meet it."""

    maxDiff = None

    def check(self, reader: Reader, path: str) -> None:
        """Open it, and see that nothing is wrong with it."""
        reader.open(path)
        self.assertEqual(reader.barriers(), [], path)
        self.assertEqual(reader.wrongs(), [], path)
        self.assertLessEqual(reader.overflow(), 0, path)

    def test_light(self) -> None:
        with reader(demo().url) as somebody:
            for path in PAGES:
                self.check(somebody, path)

    def test_dark(self) -> None:
        with reader(demo().url, scheme="dark") as somebody:
            for path in PAGES:
                self.check(somebody, path)

    def test_phone(self) -> None:
        with reader(demo().url, PHONE, has_touch=True) as somebody:
            for path in PAGES:
                self.check(somebody, path)

    def test_empty(self) -> None:
        """Before anything was pulled."""
        with reader(demo("--empty").url) as somebody:
            for path in ("/", "/images", "/repositories", "/events"):
                self.check(somebody, path)

    def test_proxy_port(self) -> None:
        """What clients see who ask the proxy itself."""
        for size in WIDE, PHONE:
            with reader(demo().open_url, size) as somebody:
                self.check(somebody, "/")
                expect(somebody.page.get_by_role("link", name="Download")).to_be_visible()


@needs("chromium")
class HandTests(SynchronousTestCase):
    """What readers do."""

    def test_keyboard(self) -> None:
        """The first stop leads past the navigation; each stop can be seen."""
        with reader(demo().url) as somebody:
            page = somebody.page
            somebody.open("/images")
            page.keyboard.press("Tab")
            skip = page.get_by_role("link", name="Skip to the content")
            expect(skip).to_be_focused()
            expect(skip).to_be_in_viewport()
            page.keyboard.press("Enter")
            expect(page.locator("main")).to_be_focused()
            page.keyboard.press("Tab")
            expect(page.get_by_role("link", name="Images").last).to_be_focused()
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            self.assertEqual(outline, "solid")

    def test_moves(self) -> None:
        """A running pull is seen to go on, without anybody doing anything."""
        with reader(demo().url) as somebody:
            somebody.open("/")
            bar = somebody.page.locator("#fills progress").first
            first = bar.get_attribute("value")
            assert first is not None
            expect(bar).not_to_have_attribute("value", first)
            self.assertEqual(somebody.wrongs(), [])

    def test_pause(self) -> None:
        """What moves can be stopped, and the stream with it."""
        with reader(demo().url) as somebody:
            page = somebody.page
            with page.expect_request("**/api/v1/events") as asked:
                somebody.open("/")
            button = page.get_by_role("button", name="Live")
            expect(button).to_have_attribute("aria-pressed", "true")
            # The browser tells so when the script has closed the stream.
            with page.expect_event("requestfailed", lambda each: each == asked.value):
                button.press("Space")
            expect(button).to_have_attribute("aria-pressed", "false")
            expect(page.get_by_role("status")).to_have_text("Paused")
            with page.expect_request("**/api/v1/events"):
                button.press("Enter")
            expect(button).to_have_attribute("aria-pressed", "true")

    def test_focus_stays(self) -> None:
        """What a reader has the focus in does not change under his fingers; the rest does."""
        with reader(demo().url) as somebody:
            page = somebody.page
            somebody.open("/")
            link = page.locator("#top a").first
            link.focus()
            bar = page.locator("#fills progress").first
            expect(bar).not_to_have_attribute("value", bar.get_attribute("value") or "")
            expect(link).to_be_focused()

    def test_proxy_gone(self) -> None:
        """A page that is out of date says so; and is up to date when the proxy is back."""
        stage = Demo()
        self.addCleanup(stage.stop)
        with reader(stage.url) as somebody:
            state = somebody.page.get_by_role("status")
            somebody.open("/")
            expect(state).to_have_text("")
            stage.process.kill()
            expect(state).not_to_have_text("")
            stage.start()
            expect(state).to_have_text("")

    def test_no_stream(self) -> None:
        """Where too many follow what happens already, a page is looked at now and then."""
        with reader(demo().url) as somebody:
            page = somebody.page
            page.clock.install()
            page.route("**/api/v1/events", lambda route: route.fulfill(status=503))
            with page.expect_response(_is_look):
                somebody.open("/events")
            expect(page.get_by_role("status")).to_have_text("Updated every 30 s")
            with page.expect_response(_is_look):
                page.clock.fast_forward(30_000)

    def test_without_script(self) -> None:
        """The figures, the chart and what can be done are there all the same."""
        stage = Demo()
        self.addCleanup(stage.stop)
        with reader(stage.url, java_script_enabled=False) as somebody:
            page = somebody.page
            somebody.open("/")
            expect(page.locator("#figures")).to_contain_text("94.2%")
            expect(page.locator("#throughput polyline").first).to_be_visible()
            expect(page.locator("#fills progress").first).to_be_visible()
            expect(page.get_by_role("button", name="Live")).to_be_hidden()
            page.get_by_role("link", name="Images").click()
            page.get_by_label("Name contains").fill("shop")
            page.get_by_role("button", name="Show").click()
            expect(page.locator("tbody tr")).to_have_count(1)
            page.get_by_role("button", name="Unpin").click()
            expect(page.get_by_role("button", name=re.compile("^Pin"))).to_be_visible()
            page.get_by_role("button", name="Purge").click()
            page.get_by_role("button", name="Purge").click()
            expect(page.get_by_role("status")).to_contain_text("Purged")
            expect(page.get_by_role("link", name=SHOP)).to_have_count(0)
            page.get_by_role("button", name="Pull again").first.click()
            page.get_by_role("button", name="Pull again").click()
            expect(page.locator("#jobs tr").first).to_contain_text("Pull again")


@needs("chromium")
class RunningTests(FaultTestCase):
    """A real proxy while something happens."""

    def test_pull(self) -> None:
        """A pull that runs is seen to go on and to end; then it is among the requests."""
        url = f"http://127.0.0.1:{free_port()}"
        endpoint = f"tcp:{url.rpartition(':')[2]}:interface=127.0.0.1"
        self.new_proxy(limits=PATIENT, management={"listen": [endpoint]})
        blob = self.blob(6 * MiB, Turn(rate=MiB))
        with reader(url) as somebody:
            page = somebody.page
            somebody.open("/")
            expect(page.locator("#fills")).to_contain_text("Nothing is being pulled")
            response = self.get(blob)
            response.take(KiB)
            bar = page.locator("#fills progress")
            expect(bar).to_have_attribute("max", str(6 * MiB))
            self.assertEqual(somebody.barriers(), [])
            first = bar.get_attribute("value")
            assert first is not None
            expect(bar).not_to_have_attribute("value", first)
            self.assertGreater(int(bar.get_attribute("value") or 0), int(first))
            self.assert_whole(response.finish(), blob)
            expect(page.locator("#fills")).to_contain_text("Nothing is being pulled")
            somebody.open("/events")
            row = page.locator("#requests tr").first
            expect(row).to_contain_text("miss")
            expect(row).to_contain_text(f"{blob.host}/app@{blob.digest[7:19]}")
            # Who looks sees what comes next.
            self.assert_whole(self.fetch(blob), blob)
            expect(page.locator("#requests tr").first).to_contain_text("hit")
            self.assertEqual(somebody.wrongs(), [])

    def test_whole_site(self) -> None:
        """Every entry of the navigation, on both ports, leads to a page that is in order."""
        port = free_port()
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        proxy = self.new_proxy(management={"listen": [endpoint]})
        for url in f"http://127.0.0.1:{port}", proxy.url:
            for scheme in "light", "dark":
                with reader(url, scheme=scheme) as somebody:
                    page = somebody.page
                    somebody.open("/")
                    entries = page.get_by_role("navigation", name="Main").get_by_role("link")
                    names = entries.all_inner_texts()
                    self.assertIn("Set up", names)
                    for name in names:
                        entries.filter(has_text=name).click()
                        current = page.locator('nav [aria-current="page"]')
                        expect(current).to_have_text(name)
                        self.assertEqual(somebody.barriers(), [], (url, name))
                        self.assertEqual(somebody.wrongs(), [], (url, name))
                        self.assertLessEqual(somebody.overflow(), 0, (url, name))

    def test_next_certificate(self) -> None:
        """Who looks at the page sees the CA that is announced, and then that it is in use."""
        port = free_port()
        self.new_proxy(management={"listen": [f"tcp:{port}:interface=127.0.0.1"]})
        with reader(f"http://127.0.0.1:{port}") as somebody:
            page = somebody.page
            for operation, title in (("announce", "Announced"), ("rotate", "No longer in use")):
                page.request.post(f"{somebody.url}/api/v1/ca/{operation}")
                somebody.open("/ca")
                expect(page.get_by_role("heading", name=title)).to_be_visible()
                self.assertEqual(somebody.barriers(), [])


@needs("chromium", "docker-registry", "htpasswd", *Skopeo.programs)
class ImageTests(EndToEndTestCase):
    """Images that were really pulled."""

    def test_life(self) -> None:
        """Found, looked at, kept, purged after a question; the next pull comes from upstream."""
        directory, port = self.new_directory(), free_port()
        token = directory / "token"
        token.write_text(f"{TOKEN}\n")
        management: dict[str, Value] = {
            "listen": [f"tcp:{port}:interface=127.0.0.1"],
            "token_file": str(token),
        }
        proxy = Proxy(self.new_directory(), self.stage.registries() | {"management": management})
        self.addCleanup(proxy.process.stop)
        self.watch(proxy.process)
        skopeo = Skopeo(self.new_directory(), proxy.url, proxy.ca_file)
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository)
        name = f"{TOKEN_HOST}/{repository}:latest"
        skopeo.pull(name).check()
        login = {"username": "anybody", "password": TOKEN}
        with reader(f"http://{NAME}:{port}", http_credentials=login) as somebody:
            page = somebody.page
            somebody.open("/images")
            page.get_by_label("Name contains").fill(repository)
            page.keyboard.press("Enter")
            row = page.locator("tbody tr")
            expect(row).to_have_count(1)
            expect(row).to_contain_text("127.0.0.1")
            row.get_by_role("button", name="Pin").click()
            expect(row).to_contain_text("pinned")
            row.get_by_role("link").click()
            expect(page.locator("h1")).to_have_text(name)
            for blob in image.blobs:
                expect(page.locator("details")).to_contain_text(blob.digest[7:19])
            expect(page.get_by_text("complete")).to_be_visible()
            self.assertEqual(somebody.barriers(), [])

            page.get_by_role("button", name="Pull again").click()
            page.get_by_role("button", name="Pull again").click()
            expect(page.locator("#jobs tr").first).to_contain_text("done")

            somebody.open(f"/image?reference={name}")
            page.get_by_role("button", name="Purge").click()
            expect(page.locator("h1")).to_have_text("Purge this image?")
            page.get_by_role("button", name="Purge").click()
            expect(page.get_by_role("status")).to_contain_text("Purged")
            expect(page.get_by_role("link", name=name)).to_have_count(0)
            self.assertEqual(somebody.wrongs(), [])
        skopeo.clear()
        recording = self.stage.token_registry.record()
        skopeo.pull(name).check()
        self.assertEqual(
            set(recording.traffic().gets("blobs")), {each.digest for each in image.blobs}
        )

"""A real browser: Debian's Chromium without a screen, driven by Playwright."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.support.programs import program

#: Leads to this machine. What is sent to a name over plain HTTP is not what is sent to an address
#: of this machine: to browsers that is as good as TLS (W3C Secure Contexts, section 3.1).
NAME: Final = "regproxy.test"
WIDE: Final = (1280, 900)
PHONE: Final = (390, 844)

# What the browser is to tell of that is not in its console.
_WATCH: Final = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
});
"""


@cache
def chromium() -> Browser:
    """The browser, started once and closed when the interpreter ends."""
    playwright = sync_playwright().start()
    atexit.register(playwright.stop)
    # It cannot make its sandbox where tests run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    arguments.append(f"--host-resolver-rules=MAP {NAME} 127.0.0.1")
    browser = playwright.chromium.launch(
        executable_path=program("chromium"), args=arguments, timeout=60_000
    )
    atexit.register(browser.close)
    return browser


class Reader:
    """Somebody who looks at one site. What goes wrong in the browser is kept in ``complaints``.

    Attributes:
        page: the tab.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"{error}"))
        page.on("request", self._request)
        page.add_init_script(_WATCH)

    def open(self, path: str) -> None:
        """Go to a page of the site, and wait until all of it is there."""
        self.page.goto(self.url + path, wait_until="load")

    def barriers(self) -> list[str]:
        """What axe finds to be in the way of people, one line for each."""
        found: Any = Axe().run(self.page).response
        return [
            f"{each['id']}: {each['help']}: {node['html']} {node['failureSummary']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]

    def wrongs(self) -> list[str]:
        """What the browser complained of, and what the site's policy has kept it from."""
        violations: list[str] = self.page.evaluate("window.violations")
        return self.complaints + violations

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        width: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return width

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        asked, own = urlsplit(request.url), urlsplit(self.url)
        if asked.netloc != own.netloc:
            self.complaints.append(f"asks elsewhere: {request.url}")


@contextmanager
def reader(
    url: str, size: tuple[int, int] = WIDE, scheme: Any = "light", **more: Any
) -> Iterator[Reader]:
    """A reader of the site at *url*, without a trace of another.

    Args:
        size: of the window.
        scheme: ``light`` or ``dark``.
        more: of ``Browser.new_context``.
    """
    width, height = size
    context = chromium().new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion="reduce",
        **more,
    )
    context.set_default_timeout(20_000)
    try:
        yield Reader(context.new_page(), url)
    finally:
        context.close()

"""From a template and values to a page.

Templates are package data. Every page extends ``base.html``, which a page of another room may
extend as well: it needs ``here``, the path of its entry in the navigation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from regproxy import __version__
from regproxy.management.pages import words
from regproxy.management.pages.static import Statics

#: Paths and names of the entries of the navigation, on the management port.
MANAGEMENT: Final = (
    ("/", "Dashboard"),
    ("/images", "Images"),
    ("/events", "Requests"),
    ("/ca", "Certificate"),
    ("/setup", "Set up"),
)
#: The same on the proxy port, where everybody may read.
PROXY: Final = (("/", "Certificate"), ("/setup", "Set up"))


class Pages:
    """Renders templates.

    Args:
        navigation: paths and names of its entries.
        now: the time, in UTC.

    Attributes:
        statics: what the pages load.
    """

    def __init__(self, navigation: Sequence[tuple[str, str]], now: Callable[[], datetime]) -> None:
        self._navigation = navigation
        self._now = now
        self._environment, self.statics = _prepared()

    def render(self, template: str, here: str, **values: Any) -> bytes:
        """The page that *template* makes of the *values*.

        Args:
            template: its path below ``templates/``.
            here: the path of the entry of the navigation that the page belongs to, or "".
        """
        page = self._environment.get_template(template)
        common = {"here": here, "now": self._now(), "navigation": self._navigation}
        return page.render(common, **values).encode()


@cache
def _prepared() -> tuple[Environment, Statics]:
    """All templates, compiled, which takes longer than a request may; and what they load."""
    statics = Statics()
    environment = Environment(
        loader=PackageLoader("regproxy.management"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=-1,
    )
    for each in (
        words.count,
        words.size,
        words.rate,
        words.tick,
        words.percent,
        words.span,
        words.day,
        words.moment,
        words.sentence,
        words.known_as,
        words.platform,
        words.layer,
        words.short,
    ):
        environment.filters[each.__name__] = each
    environment.filters["ago"] = _ago
    environment.filters["days_left"] = _days_left
    environment.globals.update(static=statics.path, version=__version__, unknown=words.UNKNOWN)
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)
    return environment, statics


@pass_context
def _ago(context: Context, time: datetime | None) -> str:
    return words.ago(time, context["now"])


@pass_context
def _days_left(context: Context, until: datetime) -> int:
    return words.days_left(until, context["now"])

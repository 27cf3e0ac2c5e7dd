"""The pages with parts that are made up, as a process: ``python -m tests.support.demo PORT PORT``.

Nothing happens but that transfers go on while somebody looks. ``--empty`` has nothing at all.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import reactor as installed
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from regproxy.config.model import Config, ManagementSection
from regproxy.management.access import Guard
from regproxy.management.pages.rendering import MANAGEMENT, PROXY, Pages
from regproxy.management.setup.facts import Facts
from regproxy.management.setup.resource import SetupResource
from regproxy.management.site import ManagementSite, OpenSite
from regproxy.management.values import FillValue
from regproxy.policy.visitors import BadLogins
from regproxy.web.access_log import AccessLog
from regproxy.web.site import Entry, Limits, StrictRequest, StrictSite
from tests.support.certificates import make_ca
from tests.support.management import CA, MIB, NEXT_CA, NOW, FakeFills, FakeSources, busy
from tests.support.pages import GivenMetrics
from tests.support.workers import Now

reactor: Any = installed


class Transfers(FakeFills):
    """They grow by a part each time, and begin anew when they are whole."""

    def grow(self) -> None:
        """Some more of them is here."""
        self.given = [evolve(each, stored=_more(each)) for each in self.given]


def _more(fill: FillValue) -> int:
    stored = fill.stored + 7 * MIB
    return stored if fill.size is None or stored <= fill.size else 0


@implementer(IPushProducer)
class Changes(Resource):
    """``/api/v1/events``: tells each second that transfers go on."""

    isLeaf = True

    def __init__(self, transfers: Transfers) -> None:
        super().__init__()
        self._transfers = transfers

    def render(self, request: StrictRequest) -> int:
        """Tell until the reader leaves."""
        request.setHeader("Content-Type", "text/event-stream")
        request.registerProducer(self, True)
        telling = LoopingCall(self._tell, request)
        request.notifyFinish().addErrback(lambda _: telling.stop())
        telling.start(1.0)
        return NOT_DONE_YET

    def _tell(self, request: StrictRequest) -> None:
        self._transfers.grow()
        request.write(b"event: fill\ndata: {}\n\n")

    def pauseProducing(self) -> None:
        """Nothing: it is little."""

    def resumeProducing(self) -> None:
        """Nothing: see pauseProducing."""

    def stopProducing(self) -> None:
        """Nothing: its reader's leaving is seen."""


def sites(*, empty: bool) -> tuple[Resource, Resource]:
    """The sites of the management port and of the proxy port."""
    fake = FakeSources() if empty else busy()
    transfers = Transfers(fake.fills.given)
    fake.fills = transfers
    if not empty:
        fake.authority.value = evolve(CA, next=NEXT_CA)
    api, version = Resource(), Resource()
    api.putChild(b"v1", version)
    version.putChild(b"events", Changes(transfers))
    guard = Guard(ManagementSection(), Now(), reactor, BadLogins())
    pages = Pages(MANAGEMENT, now)
    facts = Facts.of(Config(data=Path("/nowhere")))
    pem = make_ca().certificate_pem
    setup = SetupResource(facts, lambda: pem, pages.render, at_proxy_port=False)
    others = {"api": api, "setup": setup}
    management = ManagementSite(pages, fake.sources(), guard, GivenMetrics(), facts, others, now)
    return management, OpenSite(Pages(PROXY, now), fake.authority, facts, {})


def now() -> datetime:
    """It is always the same time: pictures taken twice do not differ."""
    return NOW


def main() -> None:
    """The command."""
    management, proxy, *options = sys.argv[1:]
    ways = (("management", management), ("proxy", proxy))
    for (name, port), site in zip(ways, sites(empty="--empty" in options), strict=True):
        factory = StrictSite(site, Entry(name), Limits(30, 60, 60), reactor, AccessLog(reactor))
        reactor.listenTCP(int(port), factory, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()

"""Tests for :mod:`regproxy.registry.entrance`."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.errors import BadRequest, Misdirected, RegistryError
from regproxy.oci.names import Host
from regproxy.registry.entrance import Entrance, by_name
from regproxy.web.site import Entry
from regproxy.web.target import TargetForm

ONE, OTHER = Host("one.example.com"), Host("other.example.com")
MOVED = Host("one.example.com", 5000)
TARGET = b"/v2/app/tags/list?n=2"


@frozen
class _Request:
    """What of a request tells whom it is for."""

    entry: Entry
    authority: Host | None
    sni: str | None
    form: TargetForm

    def server_name(self) -> str | None:
        return self.sni


def enter(connect: Host | None, sni: str | None, host: Host | None, seen: bool = True) -> Entrance:
    form = TargetForm(TARGET, "https")
    request: Any = _Request(Entry("connect", connect, impersonated=seen), host, sni, form)
    return by_name(request)


class ByNameTests(SynchronousTestCase):
    """CONNECT, the TLS hello and Host, as far as there are any."""

    def test_agree(self) -> None:
        for connect, sni, host in (
            (ONE, ONE.name, ONE),
            (ONE, None, ONE),
            (None, ONE.name, ONE),
            (None, None, ONE),
            # HTTP/1.0 has no Host.
            (ONE, ONE.name, None),
        ):
            self.assertEqual(enter(connect, sni, host), Entrance(ONE, TARGET))
        self.assertEqual(enter(MOVED, MOVED.name, MOVED).host, MOVED)

    def test_disagree(self) -> None:
        for connect, sni, host in (
            (ONE, ONE.name, OTHER),
            (ONE, OTHER.name, ONE),
            (None, ONE.name, OTHER),
            (ONE, None, MOVED),
        ):
            with self.assertRaises(Misdirected):
                enter(connect, sni, host)

    def test_other_tls(self) -> None:
        """The SNI of a connection to the proxy's own name says nothing."""
        self.assertEqual(enter(None, "proxy.example.com", ONE, seen=False).host, ONE)

    def test_none(self) -> None:
        error: RegistryError = self.assertRaises(BadRequest, enter, None, None, None)
        self.assertIn("which registry", error.message)

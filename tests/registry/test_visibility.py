"""Tests for :mod:`regproxy.registry.visibility`."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Host, Repository
from regproxy.registry import visibility
from regproxy.registry.visibility import Visibility
from regproxy.store.index import Index
from regproxy.upstream.errors import UpstreamUnreachable
from tests.support.upstream import FakeUpstream
from tests.support.workers import Now

HOST = Host("registry.example.com")
APP = Repository("app")
TARGET = b"/v2/app/manifests/latest"
HOUR = 3600.0
WEEK = 7 * 24 * HOUR


class VisibilityTests(SynchronousTestCase):
    """Visibility"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = 1_000_000.0
        self.upstream = FakeUpstream()
        self.index = Index(Path(self.mktemp()).absolute(), Now())
        self.index.open()
        self.addCleanup(self.index.close)
        self.visibility = self.restarted()

    def restarted(self) -> Visibility:
        return Visibility(self.index, self.upstream, self.clock, lambda: self.wall, WEEK)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.wall += seconds

    def find_out(self) -> None:
        self.visibility.find_out(HOST, APP, TARGET, b"*/*")

    def test_nothing_is_known(self) -> None:
        self.assertFalse(self.visibility.is_public(HOST, APP))
        self.assertFalse(self.visibility.was_public(HOST, APP))

    def test_seen(self) -> None:
        """For an hour, and longer when upstream cannot be asked."""
        self.visibility.seen(HOST, APP, public=True)
        self.assertTrue(self.visibility.is_public(HOST, APP))
        self.assertFalse(self.visibility.is_public(HOST, Repository("app/x")))
        self.assertFalse(self.visibility.is_public(Host(HOST.name, 5000), APP))
        self.pass_time(HOUR)
        self.assertFalse(self.visibility.is_public(HOST, APP))
        self.assertTrue(self.visibility.was_public(HOST, APP))
        self.pass_time(WEEK)
        self.assertFalse(self.visibility.was_public(HOST, APP))

    def test_outlives_the_process(self) -> None:
        self.visibility.seen(HOST, APP, public=True)
        self.assertTrue(self.restarted().is_public(HOST, APP))

    def test_not_any_more(self) -> None:
        self.visibility.seen(HOST, APP, public=True)
        self.visibility.seen(HOST, APP, public=False)
        self.assertFalse(self.visibility.is_public(HOST, APP))
        self.assertFalse(self.visibility.was_public(HOST, APP))

    def test_clock_set_back(self) -> None:
        """What was seen in the future was not seen."""
        self.visibility.seen(HOST, APP, public=True)
        self.wall -= 1
        self.assertFalse(self.restarted().is_public(HOST, APP))
        self.assertFalse(self.visibility.was_public(HOST, APP))

    def test_found_public(self) -> None:
        """One question an hour, as anybody may ask it."""
        self.upstream.public.add(f"{HOST}/{APP}")
        self.find_out()
        self.find_out()
        (asked,) = self.upstream.asked_anonymously
        self.assertEqual(str(asked), f"HEAD {HOST}{TARGET.decode()}")
        self.assertIsNone(asked.authorization)
        self.assertTrue(self.visibility.is_public(HOST, APP))
        self.pass_time(HOUR)
        self.find_out()
        self.assertEqual(len(self.upstream.asked_anonymously), 2)

    def test_found_private(self) -> None:
        self.find_out()
        self.assertFalse(self.visibility.is_public(HOST, APP))
        self.pass_time(visibility.PRIVATE_LIFETIME - 1)
        self.find_out()
        self.assertEqual(len(self.upstream.asked_anonymously), 1)
        self.pass_time(1)
        self.upstream.public.add(f"{HOST}/{APP}")
        self.find_out()
        self.assertTrue(self.visibility.is_public(HOST, APP))

    def test_upstream_fails(self) -> None:
        """That says nothing: what was public stays it, and soon it is asked again."""
        self.visibility.seen(HOST, APP, public=True)
        self.pass_time(HOUR)
        self.upstream.anonymous_failure = UpstreamUnreachable("gone")
        self.find_out()
        self.assertFalse(self.visibility.is_public(HOST, APP))
        self.assertTrue(self.visibility.was_public(HOST, APP))
        self.pass_time(visibility.UNKNOWN_LIFETIME)
        self.find_out()
        self.assertEqual(len(self.upstream.asked_anonymously), 2)

    def test_bounded(self) -> None:
        self.patch(visibility, "MAX_REMEMBERED", 2)
        for name in "a", "b", "c":
            self.visibility.find_out(HOST, Repository(name), TARGET, b"*/*")
        self.visibility.find_out(HOST, Repository("a"), TARGET, b"*/*")
        self.assertEqual(len(self.upstream.asked_anonymously), 4)

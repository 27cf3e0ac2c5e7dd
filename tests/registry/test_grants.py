"""Tests for :mod:`regproxy.registry.grants`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Host, Repository
from regproxy.registry import grants
from regproxy.registry.grants import Grants

HOST = Host("registry.example.com")
APP = Repository("app")
ALICE = b"Bearer alice"


class GrantsTests(SynchronousTestCase):
    """Grants"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.grants = Grants(self.clock)

    def test_accepted(self) -> None:
        """One login, one repository of one registry."""
        self.grants.accept(HOST, APP, ALICE)
        self.assertTrue(self.grants.holds(HOST, APP, ALICE))
        self.assertFalse(self.grants.holds(HOST, APP, b"Bearer bob"))
        self.assertFalse(self.grants.holds(HOST, Repository("app/x"), ALICE))
        self.assertFalse(self.grants.holds(Host(HOST.name, 5000), APP, ALICE))

    def test_lifetime(self) -> None:
        """Five minutes."""
        self.grants.accept(HOST, APP, ALICE)
        self.clock.advance(299)
        self.assertTrue(self.grants.holds(HOST, APP, ALICE))
        self.clock.advance(1)
        self.assertFalse(self.grants.holds(HOST, APP, ALICE))

    def test_renewed(self) -> None:
        self.grants.accept(HOST, APP, ALICE)
        self.clock.advance(200)
        self.grants.accept(HOST, APP, ALICE)
        self.clock.advance(200)
        self.assertTrue(self.grants.holds(HOST, APP, ALICE))

    def test_revoked(self) -> None:
        """A refusal counts at once; one of something unknown does not matter."""
        self.grants.revoke(HOST, APP, ALICE)
        self.grants.accept(HOST, APP, ALICE)
        self.grants.revoke(HOST, APP, ALICE)
        self.assertFalse(self.grants.holds(HOST, APP, ALICE))

    def test_bounded(self) -> None:
        """The oldest go, by when they were last accepted."""
        self.patch(grants, "MAX_GRANTS", 2)
        self.grants.accept(HOST, APP, b"1")
        self.grants.accept(HOST, APP, b"2")
        self.grants.accept(HOST, APP, b"1")
        self.grants.accept(HOST, APP, b"3")
        held = [login for login in (b"1", b"2", b"3") if self.grants.holds(HOST, APP, login)]
        self.assertEqual(held, [b"1", b"3"])

    def test_no_login_in_memory(self) -> None:
        """Logins are not kept."""
        self.grants.accept(HOST, APP, ALICE)
        self.assertNotIn(b"alice", repr(vars(self.grants)).encode())

"""Tests for :mod:`regproxy.registry.missing`."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Host, Repository, Tag
from regproxy.registry import missing
from regproxy.registry.missing import Missing, StillMissing
from regproxy.store.index import TagKey

HOST = Host("registry.example.com")
NAME = Repository("app")
TAG = Tag("next")
KEY = TagKey(HOST, NAME, TAG, "*/*")
ALICE = b"Basic alice"


class MissingTests(SynchronousTestCase):
    """Missing"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.missing = Missing(self.clock, 10.0)

    def note(self, method: bytes = b"GET", key: TagKey = KEY, login: bytes | None = None) -> None:
        self.missing.note(method, key, login, self.missing.changes)

    def known(self, method: bytes = b"GET", key: TagKey = KEY, login: bytes | None = None) -> bool:
        try:
            self.missing.check(method, key, login)
        except StillMissing:
            return True
        return False

    def test_lifetime(self) -> None:
        self.assertFalse(self.known())
        self.note()
        self.clock.advance(9.5)
        with self.assertRaises(StillMissing) as caught:
            self.missing.check(b"GET", KEY, None)
        error = caught.exception
        self.assertEqual((error.status, error.code), (404, "MANIFEST_UNKNOWN"))
        self.assertIn("app has no tag next", error.message)
        self.assertEqual(error.headers["Age"], "10")
        self.clock.advance(0.5)
        self.assertFalse(self.known())

    def test_new_answer(self) -> None:
        """It stands from the last time on that the registry said so."""
        self.note()
        self.clock.advance(9)
        self.note()
        self.clock.advance(9)
        self.assertTrue(self.known())

    def test_clock_set_back(self) -> None:
        self.note()
        self.clock.advance(-5)
        self.assertFalse(self.known())

    def test_other_questions(self) -> None:
        """Nothing is known of another question, or of the same one by another login."""
        for login, others in (None, [ALICE, b""]), (ALICE, [None, b"Basic bob"]):
            self.missing = Missing(self.clock, 10.0)
            self.note(login=login)
            self.assertTrue(self.known(login=login))
            for other in others:
                self.assertFalse(self.known(login=other))
            for changes in (
                {"host": Host("other.example.com")},
                {"repository": Repository("other")},
                {"tag": Tag("other")},
                {"accept": "a/b"},
            ):
                self.assertFalse(self.known(key=evolve(KEY, **changes), login=login))
            self.assertFalse(self.known(b"HEAD", login=login))

    def test_forget(self) -> None:
        """A push is for all who asked for that tag, and for nobody else."""
        other = evolve(KEY, tag=Tag("other"))
        self.note()
        self.note(b"HEAD", evolve(KEY, accept="a/b"), ALICE)
        self.note(key=other)
        self.missing.forget(HOST, NAME, TAG)
        self.assertFalse(self.known())
        self.assertFalse(self.known(b"HEAD", evolve(KEY, accept="a/b"), ALICE))
        self.assertTrue(self.known(key=other))

    def test_overtaken(self) -> None:
        """An answer to a question that is older than a push says nothing."""
        changes = self.missing.changes
        self.missing.forget(HOST, NAME, TAG)
        self.missing.note(b"GET", KEY, None, changes)
        self.assertFalse(self.known())

    def test_off(self) -> None:
        self.missing = Missing(self.clock, 0.0)
        self.note()
        self.assertFalse(self.known())

    def test_bounded(self) -> None:
        for number in range(missing.MAX_REMEMBERED + 1):
            self.note(key=evolve(KEY, tag=Tag(f"t{number}")))
        self.assertFalse(self.known(key=evolve(KEY, tag=Tag("t0"))))
        self.assertTrue(self.known(key=evolve(KEY, tag=Tag("t1"))))

    def test_logins_are_not_kept(self) -> None:
        self.note(login=ALICE)
        self.assertNotIn(b"alice", repr(vars(self.missing)).encode())

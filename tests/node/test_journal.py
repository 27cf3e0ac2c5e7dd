"""The journal: what others change meanwhile, and what is due."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.changes import Change, block, docker_mirror, whole
from regproxy.node.errors import CommandFailed, Refused
from regproxy.node.journal import DIRECTORY, FILE, Journal
from regproxy.node.machine import Machine, Stat
from tests.support import trees

DAEMON_JSON = "/etc/docker/daemon.json"
MIRROR = docker_mirror(DAEMON_JSON, "http://10.0.0.5:5000", ["reload docker"])
BLOCK = block("/etc/conf.d/docker", ["export A=1"], ["restart docker"])
OWN = whole("/etc/a/b/regproxy.conf", "ours\n", ["units"])


def _killed_at(write: Callable[..., None], file: str) -> Callable[..., None]:
    """A ``write`` of a program that is killed before it writes *file*."""

    def killed(machine: Machine, inside: str, content: bytes, stat: Stat) -> None:
        if inside == file:
            raise KeyboardInterrupt
        write(machine, inside, content, stat)

    return killed


class JournalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = trees.alpine(Path(self.mktemp()))
        self.done: list[str] = []

    def bring(self, *changes: Change) -> list[str]:
        """Bring the machine there, as a new program would; returns what was done after it."""
        journal = Journal.open(self.fake.machine)
        journal.take(journal.plan(changes))
        self.done.clear()
        journal.carry_out(self.done.append)
        return list(self.done)

    def test_only_what_is_different(self) -> None:
        self.assertEqual(self.bring(OWN, BLOCK), ["units", "restart docker"])
        self.assertEqual(self.bring(OWN, BLOCK), [])
        self.assertEqual(self.bring(OWN), ["restart docker"])
        self.assertEqual(self.fake.machine.read("/etc/conf.d/docker"), None)
        self.assertEqual(self.bring(), ["units"])
        self.assertFalse(self.fake.machine.exists("/etc/a"))
        self.assertFalse(self.fake.machine.exists(DIRECTORY))

    def test_directory_that_others_use(self) -> None:
        """It stays until it is empty, and goes then if we made it."""
        self.bring(OWN)
        self.fake.write("/etc/a/theirs", "")
        self.bring()
        self.assertEqual(self.fake.machine.names("/etc/a"), ["theirs"])
        self.fake.machine.remove("/etc/a/theirs")
        self.bring()
        self.assertFalse(self.fake.machine.exists("/etc/a"))
        self.assertFalse(self.fake.machine.exists(DIRECTORY))

    def test_mode_and_owner_stay(self) -> None:
        self.fake.write("/etc/conf.d/docker", "B=2\n", 0o600)
        before = self.fake.snapshot()
        self.bring(BLOCK)
        self.assertEqual(self.fake.machine.stat("/etc/conf.d/docker").mode, 0o600)
        self.bring()
        self.assertEqual(self.fake.snapshot(), before)

    def test_other_encoding(self) -> None:
        """What others have written in Latin-1 stays, to the byte."""
        (self.fake.root / "etc/conf.d").mkdir(exist_ok=True)
        file = self.fake.root / "etc/conf.d/docker"
        file.write_bytes(b"# Caf\xe9\n")
        self.bring(BLOCK)
        self.assertTrue(file.read_bytes().startswith(b"# Caf\xe9\n# begin"))
        file.write_bytes(file.read_bytes() + b"# \xe9\n")
        self.bring()
        self.assertEqual(file.read_bytes(), b"# Caf\xe9\n# \xe9\n")

    def test_others_change_a_shared_file(self) -> None:
        """What they wrote stays, and what we wrote goes."""
        self.fake.write("/etc/conf.d/docker", "B=2\n")
        self.bring(BLOCK)
        text = self.fake.read("/etc/conf.d/docker")
        self.fake.write("/etc/conf.d/docker", f"C=3\n{text}D=4\n")
        self.assertEqual(self.bring(BLOCK), [])
        self.bring()
        self.assertEqual(self.fake.read("/etc/conf.d/docker"), "C=3\nB=2\nD=4\n")

    def test_others_write_a_shared_file_anew(self) -> None:
        self.bring(MIRROR)
        self.fake.write(DAEMON_JSON, '{"debug": true}')
        self.assertEqual(self.bring(MIRROR), ["reload docker"])
        self.assertIn("10.0.0.5", self.fake.read(DAEMON_JSON))
        self.bring()
        self.assertEqual(self.fake.read(DAEMON_JSON), '{"debug": true}')

    def test_killed_on_the_way_to_another_value(self) -> None:
        """The first one goes, whether or not the second one was written."""
        self.fake.write(DAEMON_JSON, '{"registry-mirrors": ["http://theirs:5000"]}')
        before = self.fake.snapshot()
        other = docker_mirror(DAEMON_JSON, "http://10.0.0.6:5000", ["reload docker"])
        self.bring(MIRROR)
        journal = Journal.open(self.fake.machine)
        with mock.patch.object(Machine, "write", _killed_at(Machine.write, DAEMON_JSON)):
            self.assertRaises(KeyboardInterrupt, journal.take, journal.plan([other]))
        self.assertEqual(self.bring(other), ["reload docker"])
        self.assertNotIn("10.0.0.5", self.fake.read(DAEMON_JSON))
        self.bring()
        self.assertEqual(self.fake.snapshot(), before)

    def test_others_break_a_shared_file(self) -> None:
        self.bring(MIRROR)
        self.fake.write(DAEMON_JSON, "{")
        self.assertRaises(Refused, self.bring)
        self.assertEqual(self.fake.read(DAEMON_JSON), "{")

    def test_others_change_our_file(self) -> None:
        """It is ours: it is written again, and in the end what was there before us is there."""
        self.fake.write("/etc/a/b/regproxy.conf", "before\n")
        self.bring(OWN)
        self.fake.write("/etc/a/b/regproxy.conf", "changed\n")
        self.assertEqual(self.bring(OWN), ["units"])
        self.fake.write("/etc/a/b/regproxy.conf", "changed again\n")
        self.bring()
        self.assertEqual(self.fake.read("/etc/a/b/regproxy.conf"), "before\n")

    def test_there_without_us(self) -> None:
        """What somebody else has put there in just this form is not ours to remove."""
        self.fake.write("/etc/a/b/regproxy.conf", "ours\n")
        self.assertEqual(self.bring(OWN), [])
        self.bring()
        self.assertEqual(self.fake.read("/etc/a/b/regproxy.conf"), "ours\n")

    def test_action_that_fails_stays_due(self) -> None:
        journal = Journal.open(self.fake.machine)
        journal.take(journal.plan([OWN, BLOCK]))

        def fails(action: str) -> None:
            if action == "restart docker":
                raise CommandFailed(action)

        self.assertRaises(CommandFailed, journal.carry_out, fails)
        self.assertEqual(Journal.open(self.fake.machine).pending, ["restart docker"])
        self.assertEqual(self.bring(OWN, BLOCK), ["restart docker"])

    def test_not_for_others_to_read(self) -> None:
        """What was in a file that only root may read is in it."""
        self.bring(OWN)
        self.assertEqual(self.fake.machine.stat(FILE).mode, 0o600)

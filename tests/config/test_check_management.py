"""Tests for :mod:`regproxy.config.check_management`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.load import ConfigError, effective, loads
from regproxy.config.model import PRIVATE_NETWORKS, ManagementSection

TOKEN = "correct-horse-battery-staple"
HASH = "$2y$10$" + "abcdefghijklmnopqrstu." + "x" * 31


class ManagementTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files: dict[str, bytes] = {
            "/etc/token": f"{TOKEN}\n".encode(),
            "/etc/users": f"ann:{HASH}\n".encode(),
        }

    def read(self, path: Path) -> bytes:
        try:
            return self.files[str(path)]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    def load(self, text: str) -> ManagementSection:
        config = loads(
            f"[management]\n{text}",
            "a.toml",
            data=Path("/srv"),
            directory=Path("/etc"),
            read=self.read,
        )
        self.assertNotIn(TOKEN, effective(config))
        self.assertNotIn(HASH, effective(config))
        return config.management

    def refused(self, text: str) -> tuple[str, ...]:
        with self.assertRaises(ConfigError) as caught:
            self.load(text)
        self.assertNotIn(TOKEN, str(caught.exception))
        problems: tuple[str, ...] = caught.exception.problems
        return problems

    def test_defaults(self) -> None:
        section = self.load("")
        self.assertEqual(section.read_from, PRIVATE_NETWORKS)
        self.assertEqual((section.token_file, section.htpasswd_file), (None, None))

    def test_all(self) -> None:
        section = self.load(
            'read_from = ["192.0.2.0/24"]\ntoken_file = "token"\nhtpasswd_file = "users"'
        )
        self.assertEqual(section.read_from, ("192.0.2.0/24",))
        self.assertEqual(section.token_file, Path("/etc/token"))
        self.assertEqual(section.htpasswd_file, Path("/etc/users"))

    def test_nobody(self) -> None:
        """An empty list is a rule as well."""
        self.assertEqual(self.load("read_from = []").read_from, ())

    def test_all_problems(self) -> None:
        self.files["/etc/token"] = b"hunter2"
        self.files["/etc/users"] = f"ann:{HASH}\nbob:hunter2".encode()
        text = 'listen = [""]\nread_from = ["10.0.0.0/8", "10.0.0.1/8", "lan"]'
        self.assertEqual(len(self.refused(text)), 1)
        text = text.replace('[""]', '["tcp:1"]') + '\ntoken_file = "token"\nhtpasswd_file = "users"'
        self.assertEqual(
            self.refused(text),
            (
                'management.read_from[1]: expected a network such as "10.0.0.0/8",'
                " found '10.0.0.1/8'",
                "management.read_from[2]: expected a network such as \"10.0.0.0/8\", found 'lan'",
                "management.token_file: '/etc/token': expected one line of 16 or more letters,"
                " digits and -._~+/",
                "management.htpasswd_file: '/etc/users': line 2: expected NAME:HASH with a bcrypt"
                " hash (htpasswd -B)",
            ),
        )

    def test_files(self) -> None:
        (problem,) = self.refused('token_file = "nothing"')
        self.assertIn("cannot read '/etc/nothing': No such file", problem)
        self.files["/etc/users"] = b"\xff"
        (problem,) = self.refused('htpasswd_file = "users"')
        self.assertIn("is not UTF-8", problem)

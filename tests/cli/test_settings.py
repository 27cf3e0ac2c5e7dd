"""Tests of regproxy.cli.settings."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.errors import CommandFailed
from regproxy.cli.settings import DEFAULT_URL, Options, Settings, find_settings


def basic(login: str) -> str:
    return "Basic " + b64encode(login.encode()).decode()


class SettingsTests(SynchronousTestCase):
    """find_settings"""

    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.environ: dict[str, str] = {}
        self.asked: list[str] = []

    def find(self, options: Options = Options()) -> Settings:  # noqa: B008
        def ask(user: str) -> str:
            self.asked.append(user)
            return "typed"

        return find_settings(options, self.environ, self.file, ask)

    def refusal(self, options: Options = Options()) -> str:  # noqa: B008
        message: str = self.assertRaises(CommandFailed, self.find, options).message
        return message

    def store(self, text: str, mode: int = 0o600) -> None:
        self.file.write_text(text)
        self.file.chmod(mode)

    def token_file(self, text: str) -> Path:
        path = Path(self.mktemp())
        path.write_text(text)
        return path

    def test_nothing_said(self) -> None:
        """The proxy of this machine, without a login."""
        self.assertEqual(self.find(), Settings(DEFAULT_URL))

    def test_file(self) -> None:
        self.store('url = "https://proxy.example/"\ntoken = "t"')
        self.assertEqual(self.find(), Settings("https://proxy.example", "Bearer t"))

    def test_file_of_default_server(self) -> None:
        """A file without a URL means the default one."""
        self.store('user = "u"\npassword = "p"')
        self.assertEqual(self.find(), Settings(DEFAULT_URL, basic("u:p")))

    def test_environment_before_file(self) -> None:
        self.store('url = "http://a"\ntoken = "t"')
        self.environ = {"REGPROXY_URL": "http://b", "REGPROXY_TOKEN": "e"}
        self.assertEqual(self.find(), Settings("http://b", "Bearer e"))

    def test_options_before_environment(self) -> None:
        self.environ = {"REGPROXY_URL": "http://b", "REGPROXY_TOKEN": "e"}
        path = self.token_file("o\nsecond line")
        found = self.find(Options("http://c", path))
        self.assertEqual(found, Settings("http://c", "Bearer o"))

    def test_token_before_user(self) -> None:
        """A login is never put together of two."""
        self.environ = {"REGPROXY_USER": "u", "REGPROXY_PASSWORD": "p", "REGPROXY_TOKEN": "t"}
        self.assertEqual(self.find().authorization, "Bearer t")
        self.assertEqual(self.find(Options(user="o")).authorization, basic("o:p"))

    def test_login_stays_with_its_server(self) -> None:
        """Another server does not get the token that the file has for its own."""
        self.store('url = "http://a"\ntoken = "t"')
        self.assertEqual(self.find(Options("http://b")), Settings("http://b"))
        self.assertEqual(self.find(Options("http://a/")), Settings("http://a", "Bearer t"))
        self.store('token = "t"')
        self.assertEqual(self.find(Options("http://b")), Settings("http://b"))

    def test_token_file_beside(self) -> None:
        """A relative path starts at the file that has it."""
        self.file.with_name("token").write_text("secret\n")
        self.store('token_file = "token"', 0o644)
        self.assertEqual(self.find().authorization, "Bearer secret")

    def test_password_is_asked_for(self) -> None:
        self.environ = {"REGPROXY_USER": "ü"}
        self.assertEqual(self.find().authorization, basic("ü:typed"))
        self.store('user = "stored"')
        self.environ = {}
        self.assertEqual(self.find().authorization, basic("stored:typed"))
        self.assertEqual(self.asked, ["ü", "stored"])

    def test_readable_by_others(self) -> None:
        """A file with a secret is for its owner."""
        for text in ('token = "t"', 'user = "u"\npassword = "p"'):
            for mode in (0o640, 0o604, 0o620):
                self.store(text, mode)
                self.assertIn(f"chmod 600 {self.file}", self.refusal())
        self.store('url = "http://a"', 0o644)
        self.assertEqual(self.find(), Settings("http://a"))

    def test_bad_files(self) -> None:
        for text, expected in (
            ("x", "is not TOML"),
            ("[" * 5000, "is not TOML"),
            ("port = 1", "unknown key port (allowed: url, token,"),
            ("url = 1", "url has to be a text"),
            ('token = ""', "token has to be a text"),
            ('url = "proxy:8080"', "has to be like http://127.0.0.1:8080"),
            ('token_file = "/nowhere/token"', "/nowhere/token cannot be read: No such file"),
        ):
            self.store(text)
            self.assertIn(expected, self.refusal())
        self.file.unlink()
        self.file.mkdir()
        self.assertIn("cannot be read: Is a directory", self.refusal())

    def test_bad_urls(self) -> None:
        for url in ("ftp://a", "a", "http://", "http://u:secret@a", "http://a?b", "http://a:x"):
            self.assertNotIn("secret", self.refusal(Options(url)))

    def test_bad_logins(self) -> None:
        self.assertIn("no colon", self.refusal(Options(user="a:b")))
        for text in ("", "\n", "a\x01b", "ä"):
            refusal = self.refusal(Options(token_file=self.token_file(text)))
            self.assertNotIn("ä", refusal)
        latin = Path(self.mktemp())
        latin.write_bytes(b"\xff")
        self.assertIn("is no text", self.refusal(Options(token_file=latin)))

    def test_secret_is_not_shown(self) -> None:
        self.environ = {"REGPROXY_TOKEN": "secret"}
        self.assertNotIn("secret", repr(self.find()))

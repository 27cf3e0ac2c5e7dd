"""Tests of regproxy.cli.main."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from regproxy import __version__
from regproxy.cli.main import main
from tests.support.commands import CommandCase
from tests.support.management_api import stats
from tests.support.terminal import at_terminal, without_escapes


class MainTests(CommandCase):
    """main"""

    def test_version(self) -> None:
        self.assertEqual(self.succeed("--version").stdout, f"regproxy {__version__}\n")

    def test_usage(self) -> None:
        """An unknown command or option is a usage error, and so is none."""
        for arguments in ([], ["x"], ["--x"], ["status", "x"], ["images"]):
            result = self.run_command(*arguments)
            self.assertEqual(result.exit_code, 2)
            self.assertIn("Usage: regproxy", result.stderr)

    def test_login(self) -> None:
        """Options and the environment say where, and who."""
        self.api.script("GET", "stats", stats())
        token = Path(self.mktemp())
        token.write_text("secret\n")
        self.succeed("--url", self.api.url, "--token-file", str(token), "status")
        self.run_command("status", environ={"REGPROXY_TOKEN": "other"})
        self.assertEqual(
            [each.authorization for each in self.api.asked], ["Bearer secret", "Bearer other"]
        )

    def test_bad_settings(self) -> None:
        self.assertIn("has to be like http://", self.fail_with(1, "--url", "x", "status"))

    def test_local_commands_need_no_settings(self) -> None:
        """A broken file of settings is no matter of theirs."""
        directory = Path(self.environ["XDG_CONFIG_HOME"], "regproxy")
        directory.mkdir(parents=True)
        (directory / "cli.toml").write_text("x")
        self.succeed("hash-password", "anna", input="secret\n")
        self.fail_with(1, "status")

    def test_installed(self) -> None:
        """The program is there, and begins fast: shells run it for each completion."""
        program = Path(sys.executable).with_name("regproxy")
        done = subprocess.run([program, "--version"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, f"regproxy {__version__}\n"))
        check = "import sys, regproxy.cli.main; print('twisted' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
        self.assertEqual((done.stdout, done.stderr), ("False\n", ""))

    def test_terminal(self) -> None:
        """There people get text, with colours."""
        self.api.script("GET", "stats", stats(hits=5))
        program = str(Path(sys.executable).with_name("regproxy"))
        status, shown = at_terminal([program, "status"], self.environ)
        self.assertEqual(status, 0, shown)
        self.assertIn("\x1b[1mHits", shown)
        lines = [" ".join(line.split()) for line in without_escapes(shown)]
        self.assertIn("Hits 5 (90.0%)", lines)

    def test_help(self) -> None:
        """Each command says in a sentence what it is for."""

        def look(command: click.Command) -> None:
            assert command.name is not None
            self.assertTrue((command.help or "").partition("\n")[0].endswith("."), command.name)
            for each in getattr(command, "commands", {}).values():
                look(each)

        look(main)

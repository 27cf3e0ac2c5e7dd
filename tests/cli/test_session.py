"""Tests of regproxy.cli.session."""

from __future__ import annotations

from pathlib import Path

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.output import Output
from regproxy.cli.session import Session, output_option, platform_option, yes_option
from regproxy.cli.settings import Options
from regproxy.oci.manifests import Platform
from tests.support.commands import CommandCase
from tests.support.management_api import stats


class SessionTests(CommandCase):
    """Session"""

    def test_file_of_settings(self) -> None:
        """The server may stand in the user's file."""
        directory = Path(self.environ["XDG_CONFIG_HOME"], "regproxy")
        directory.mkdir(parents=True)
        file = directory / "cli.toml"
        file.write_text(f'url = "{self.api.url}"\ntoken = "t"')
        file.chmod(0o600)
        self.api.script("GET", "stats", stats())
        result = self.run_command("status", environ={"REGPROXY_URL": None})
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(self.api.asked[0].authorization, "Bearer t")

    def test_password(self) -> None:
        """It is asked for, once."""
        self.api.script("GET", "stats", stats())
        result = self.succeed("--user", "u", "status", input="p\n")
        self.assertNotIn("Password", result.stdout)
        self.assertEqual(result.stderr, "Password of u: \n")
        self.assertEqual(self.api.asked[0].authorization, "Basic dTpw")

    def test_one_client(self) -> None:
        session = Session(Options("http://127.0.0.1:1"))
        self.assertIs(session.client, session.client)


class OptionTests(SynchronousTestCase):
    """output_option, yes_option, platform_option"""

    def run_with(self, *arguments: str) -> str:
        @click.command()
        @platform_option("")
        @yes_option
        @output_option
        def command(output: Output, yes: bool, platforms: tuple[Platform, ...]) -> None:
            click.echo(f"{output.json} {yes} {[*map(str, platforms)]}")

        return CliRunner().invoke(command, arguments).output.strip()

    def test_output(self) -> None:
        self.assertEqual(self.run_with(), "True False []")
        self.assertEqual(self.run_with("--text", "-y"), "False True []")
        self.assertEqual(self.run_with("--json", "--yes"), "True True []")

    def test_platforms(self) -> None:
        found = self.run_with("--platform", "linux/arm/v7", "--platform=linux/amd64")
        self.assertEqual(found, "True False ['linux/arm/v7', 'linux/amd64']")
        self.assertIn("invalid platform 'arm'", self.run_with("--platform", "arm"))

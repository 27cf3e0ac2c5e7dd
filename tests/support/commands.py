"""Running the ``regproxy`` command in this process, away from the user's own settings."""

from __future__ import annotations

from collections.abc import Mapping

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.main import main
from tests.support.management_api import ManagementApi


def invoke(*arguments: str, environ: Mapping[str, str | None], input: str | None = None) -> Result:
    """Run ``regproxy`` with *arguments*; None in *environ* takes a variable away."""
    return CliRunner().invoke(main, arguments, input=input, env=environ, prog_name="regproxy")


class CommandCase(SynchronousTestCase):
    """Has a management API, and runs commands that ask it."""

    def setUp(self) -> None:
        """Start the API."""
        self.api = ManagementApi().start()
        self.addCleanup(self.api.stop)
        self.environ = {"REGPROXY_URL": self.api.url, "XDG_CONFIG_HOME": self.mktemp()}

    def run_command(
        self, *arguments: str, input: str | None = None, environ: Mapping[str, str | None] = {}
    ) -> Result:
        """Run ``regproxy`` with *arguments*, in the environment of the test and *environ*."""
        return invoke(*arguments, environ={**self.environ, **environ}, input=input)

    def succeed(self, *arguments: str, input: str | None = None) -> Result:
        """Run it, and see that it does well."""
        result = self.run_command(*arguments, input=input)
        self.assertEqual((result.exit_code, result.exception), (0, None), result.output)
        return result

    def fail_with(self, status: int, *arguments: str, input: str | None = None) -> str:
        """Run it, see that it fails with *status* and a line that says why; that line."""
        result = self.run_command(*arguments, input=input)
        self.assertEqual(result.exit_code, status, result.output)
        self.assertIsInstance(result.exception, SystemExit)
        [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        return line.removeprefix("Error: ")

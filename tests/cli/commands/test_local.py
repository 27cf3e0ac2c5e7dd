"""Tests of regproxy.cli.commands.local."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.load import loads
from tests.support.commands import CommandCase
from tests.support.programs import needs, program
from tests.support.terminal import at_terminal, without_escapes


class CheckConfigTests(CommandCase):
    """check-config"""

    def file(self, text: str) -> str:
        path = Path(self.mktemp())
        path.write_text(text)
        return str(path)

    def test_good_file(self) -> None:
        """The effective configuration is printed, and is one."""
        result = self.succeed("check-config", self.file("data = '/d'"))
        self.assertEqual(loads(result.stdout, "f", data=None).data, Path("/d"))
        self.assertEqual(result.stderr, "")

    def test_bad_file(self) -> None:
        """Problems go to standard error, a line each."""
        path = self.file("a = 1\nb = 2")
        result = self.run_command("check-config", path)
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        lines = result.stderr.splitlines()
        self.assertEqual([line.split(": ")[:2] for line in lines], [[path, "a"], [path, "b"]])

    def test_no_file(self) -> None:
        result = self.run_command("check-config", "/nowhere")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(result.stderr, "/nowhere: cannot be read: No such file or directory\n")
        self.fail_with(2, "check-config")


class HashPasswordTests(CommandCase):
    """hash-password"""

    def test_from_a_pipe(self) -> None:
        """The first line is the password, spaces and all."""
        for given in (" secret \n", " secret ", " secret \nmore\n"):
            result = self.succeed("hash-password", "anna", input=given)
            user, _, hashed = result.stdout.strip().partition(":")
            self.assertEqual(user, "anna")
            self.assertTrue(bcrypt.checkpw(b" secret ", hashed.encode()))

    def test_at_a_terminal(self) -> None:
        """The password is asked for twice and not shown."""
        program = str(Path(sys.executable).with_name("regproxy"))
        answers = ("Password:", "secret\n"), ("Repeat for confirmation:", "secret\n")
        status, shown = at_terminal([program, "hash-password", "anna"], self.environ, *answers)
        self.assertEqual(status, 0, shown)
        self.assertNotIn("secret", shown)
        hashed = without_escapes(shown)[-1].removeprefix("anna:")
        self.assertTrue(bcrypt.checkpw(b"secret", hashed.encode()))

    def test_refusal(self) -> None:
        self.assertIn("no colon", self.fail_with(1, "hash-password", "a:b", input="x\n"))

    @needs("htpasswd")
    def test_apache(self) -> None:
        """What it prints is what other programs call htpasswd."""
        path = Path(self.mktemp())
        path.write_text(self.succeed("hash-password", "anna", input="secret\n").stdout)
        for password, status in (("secret", 0), ("other", 3)):
            command = [program("htpasswd"), "-vb", str(path), "anna", password]
            done = subprocess.run(command, capture_output=True)
            self.assertEqual(done.returncode, status, done.stderr)


class CompletionTests(SynchronousTestCase):
    """completion, in shells"""

    def script(self, shell: str) -> str:
        command = [str(Path(sys.executable).with_name("regproxy")), "completion", shell]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def test_bash(self) -> None:
        """It completes commands, their options, and what these can be."""
        path = Path(self.mktemp())
        path.write_text(self.script("bash"))
        for words, expected in (
            ("regproxy im", ["images", "import"]),
            ("regproxy images p", ["pin"]),
            ("regproxy images ls --sort b", ["bytes"]),
            ("regproxy completion f", ["fish"]),
        ):
            count = len(words.split()) - 1
            check = (
                f"PATH={Path(sys.executable).parent}:$PATH; source {path};"
                f" COMP_WORDS=({words}); COMP_CWORD={count};"
                ' _regproxy_completion regproxy; printf "%s\\n" "${COMPREPLY[@]}"'
            )
            done = subprocess.run(["bash", "-c", check], capture_output=True, text=True)
            self.assertEqual((done.stdout.split(), done.stderr), (expected, ""))

    @needs("zsh")
    def test_zsh(self) -> None:
        self.check_syntax("zsh")

    @needs("fish")
    def test_fish(self) -> None:
        self.check_syntax("fish")

    def check_syntax(self, shell: str) -> None:
        """The shell understands its script."""
        path = Path(self.mktemp())
        path.write_text(self.script(shell))
        done = subprocess.run([program(shell), "-n", str(path)], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_others(self) -> None:
        command = [str(Path(sys.executable).with_name("regproxy")), "completion", "csh"]
        self.assertEqual(subprocess.run(command, capture_output=True).returncode, 2)

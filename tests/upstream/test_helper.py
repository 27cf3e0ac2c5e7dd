"""Tests for :mod:`regproxy.upstream.helper`: real programs, written by the tests."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from regproxy.upstream import helper
from regproxy.upstream.docker_config import Helper
from regproxy.upstream.errors import UpstreamLoginFailed
from regproxy.upstream.helper import ask_helper
from regproxy.upstream.logins import Login, Password

SERVER = "https://index.docker.io/v1/"
ANSWER = '{"ServerURL": "x", "Username": "team", "Secret": "geheim"}'


class HelperTests(TestCase):
    """One question each to a program that a test has written."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        self.environ = {"PATH": f"{self.directory}:/usr/bin:/bin", "OWN": "kept"}

    def write(self, script: str, name: str = "test") -> None:
        """Make a helper of a shell script."""
        program = self.directory / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def ask(self, time_limit: float = 30) -> Deferred[Login]:
        question = Helper("test", SERVER)
        return Deferred.fromCoroutine(ask_helper(reactor, question, self.environ, time_limit))

    async def failure(self, script: str | None = None, time_limit: float = 30) -> str:
        """The message of the failure, which names the program and the server, and no secret."""
        if script is not None:
            self.write(script)
        error = await self.assertFailure(self.ask(time_limit), UpstreamLoginFailed)
        message = str(error)
        prefix = f"docker-credential-test, asked for {SERVER}, "
        self.assertTrue(message.startswith(prefix), message)
        self.assertNotIn("geheim", message)
        return message.removeprefix(prefix)

    async def test_protocol(self) -> None:
        """``get``, the server on its input, the environment kept, its chatter dropped."""
        self.write(
            f"""[ "$*" = get ] && [ "$(cat)" = "{SERVER}" ] && [ "$OWN" = kept ] || exit 1
            echo "geheim" >&2
            echo '{ANSWER}'"""
        )
        self.assertEqual(await self.ask(), Password("team", "geheim"))

    async def test_input_not_read(self) -> None:
        """A helper that knows its answer beforehand."""
        self.write(f"echo '{ANSWER}'")
        self.assertEqual(await self.ask(), Password("team", "geheim"))

    async def test_not_found(self) -> None:
        script = "echo credentials not found in native keychain; exit 1"
        self.assertIn("has no login there: log in", await self.failure(script))

    async def test_failed(self) -> None:
        """Whatever it printed; and an answer of one that failed is none."""
        self.assertIn("gave no login, it failed", await self.failure("echo geheim; exit 1"))
        self.assertIn("failed: run it", await self.failure(f"echo '{ANSWER}'; exit 1"))
        self.assertIn("it failed", await self.failure("kill -9 $$"))

    async def test_bad_answer(self) -> None:
        self.assertIn("not a JSON object", await self.failure("echo geheim"))
        self.assertIn("has no Secret", await self.failure("echo '{}'"))

    async def test_absent(self) -> None:
        """Nothing is looked for outside of PATH."""
        self.assertIn("is not in the PATH", await self.failure())
        self.write("exit 0")
        (self.directory / "docker-credential-test").chmod(0o644)
        self.assertIn("is not in the PATH", await self.failure())

    async def test_cannot_start(self) -> None:
        self.write("")
        (self.directory / "docker-credential-test").write_bytes(b"#!/does/not/exist\n")
        # How it shows depends on how the reactor starts programs.
        self.assertRegex(await self.failure(), "cannot be started|it failed")

    async def test_start_refused(self) -> None:
        """The system is out of processes, say."""
        self.write("exit 0")
        question = Helper("test", SERVER)
        asking = Deferred.fromCoroutine(ask_helper(_Exhausted(), question, self.environ))
        error = await self.assertFailure(asking, UpstreamLoginFailed)
        self.assertIn("cannot be started: Try again", str(error))

    async def test_too_slow(self) -> None:
        """It is killed, even when a child of its own holds the pipe open."""
        pid_file = self.directory / "pid"
        begun = time.monotonic()
        message = await self.failure(f"echo $$ > {pid_file}; sleep 10 & sleep 10", 0.5)
        self.assertEqual(message, "was killed after 0.5 seconds")
        pid = int(pid_file.read_text())
        while Path(f"/proc/{pid}").exists():
            # The reactor has yet to hear of its end.
            await deferLater(cast(IReactorTime, reactor), 0.01)
        self.assertLess(time.monotonic() - begun, 9)

    async def test_too_much(self) -> None:
        """Its output is bounded, and it is killed."""
        self.patch(helper, "OUTPUT_LIMIT", 100)
        message = await self.failure("while :; do echo geheim; done")
        self.assertEqual(message, "was killed: it printed more than 100 bytes")


class _Exhausted:
    """A reactor that can start nothing."""

    def spawnProcess(self, *args: object, **options: object) -> None:
        raise OSError(11, "Try again")

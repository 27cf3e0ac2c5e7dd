"""Tests for :mod:`regproxy.upstream.credentials`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from regproxy.config.model import CredentialsSection, RegistrySection
from regproxy.oci.names import Host
from regproxy.upstream import credentials as module
from regproxy.upstream.credentials import HELPER_CACHE, Credentials
from regproxy.upstream.docker_config import Helper
from regproxy.upstream.errors import UpstreamLoginFailed
from regproxy.upstream.logins import ICredentials, IdentityToken, Login, Password

GHCR = Host("ghcr.io")
SECTION = RegistrySection()
TEAM = {"auth": "dGVhbTpzZWNyZXQ="}


class CredentialsCase(SynchronousTestCase):
    """Two files, and helpers that answer when a test says so."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.files = (Path(self.mktemp()), Path(self.mktemp()))
        self.asked: list[tuple[Helper, Any]] = []
        self.answer: Deferred[Login] = Deferred()
        self.patch(module, "ask_helper", self.ask_helper)
        self.credentials = Credentials(self.clock, CredentialsSection(self.files), {"A": "b"})
        self.write(0, auths={})
        self.write(1, auths={})

    async def ask_helper(self, reactor: Any, helper: Helper, environ: Any) -> Login:
        self.asked.append((helper, environ))
        return await self.answer

    def write(self, number: int, **table: Any) -> None:
        self.files[number].write_text(json.dumps(table))

    def look_up(self, section: RegistrySection = SECTION) -> Deferred[Login]:
        return Deferred.fromCoroutine(self.credentials.login(GHCR, section))

    def login(self, section: RegistrySection = SECTION) -> Login:
        return self.successResultOf(self.look_up(section))

    def refusal(self, section: RegistrySection = SECTION) -> str:
        return str(self.failureResultOf(self.look_up(section), UpstreamLoginFailed).value)


class FileTests(CredentialsCase):
    """Sections and files."""

    def test_interface(self) -> None:
        verifyObject(ICredentials, self.credentials)

    def test_section_first(self) -> None:
        """A user name in the section counts, whatever the files say."""
        self.write(0, auths={"ghcr.io": TEAM})
        section = RegistrySection(username="own", password="pa:ß")
        self.assertEqual(self.login(section), Password("own", "pa:ß"))

    def test_password_file(self) -> None:
        """The file is read at each login; its last line end is no part of the password."""
        file = Path(self.mktemp())
        section = RegistrySection(username="own", password_file=file)
        self.assertIn(f"cannot be read: {file}", self.refusal(section))
        for content in ("pa:ß\n", "pa:ß"):
            file.write_text(content, "utf-8")
            self.assertEqual(self.login(section), Password("own", "pa:ß"))

    def test_first_file(self) -> None:
        """The first file with a login for the registry counts."""
        self.write(1, auths={"https://ghcr.io": {"identitytoken": "t"}})
        self.assertEqual(self.login(), IdentityToken("t"))
        self.write(0, auths={"ghcr.io": TEAM})
        self.assertEqual(self.login(), Password("team", "secret"))

    def test_no_login(self) -> None:
        """What was looked through is named, and what to do."""
        names = ", ".join(map(str, self.files))
        self.assertEqual(self.refusal(), f"there is no login for ghcr.io in {names}: log in again")
        self.credentials = Credentials(self.clock, CredentialsSection(), {})
        self.assertEqual(self.refusal(), "this proxy has no login for ghcr.io")

    def test_bad_file(self) -> None:
        """It is named, and what it says is not repeated."""
        self.files[0].write_text("geheim")
        self.assertEqual(self.refusal(), f"{self.files[0]} cannot be used: not JSON")
        self.files[0].unlink()
        message = f"{self.files[0]} cannot be read: No such file or directory"
        self.assertEqual(self.refusal(), message)


class HelperTests(CredentialsCase):
    """Files that name helpers."""

    def setUp(self) -> None:
        super().setUp()
        self.write(0, credHelpers={"ghcr.io": "gh"})

    def test_asked(self) -> None:
        """Once for all who wait, and not again for a while."""
        waiting = [self.look_up() for _ in range(5)]
        self.answer.callback(Password("team", "secret"))
        for each in waiting:
            self.assertEqual(self.successResultOf(each), Password("team", "secret"))
        self.clock.advance(HELPER_CACHE - 1)
        self.login()
        self.assertEqual(self.asked, [(Helper("gh", "ghcr.io"), {"A": "b"})])
        self.clock.advance(1)
        self.answer = Deferred()
        self.look_up()
        self.assertEqual(len(self.asked), 2)

    def test_failure(self) -> None:
        """It is not kept."""
        asking = self.look_up()
        self.answer.errback(UpstreamLoginFailed("no"))
        self.failureResultOf(asking, UpstreamLoginFailed)
        self.answer = Deferred()
        self.assertNoResult(self.look_up())

    def test_another_helper(self) -> None:
        """A file that changed counts at once."""
        self.answer.callback(Password("team", "secret"))
        self.login()
        self.write(0, credHelpers={"ghcr.io": "other"})
        self.answer = Deferred()
        self.look_up()
        self.assertEqual(self.asked[1][0], Helper("other", "ghcr.io"))

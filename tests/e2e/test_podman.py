"""Pulls by podman."""

from __future__ import annotations

from tests.e2e import pulls
from tests.support.clients import Podman
from tests.support.programs import needs, needs_root
from tests.support.registry import ALICE, WRONG
from tests.support.stage import PASSWORD_HOST, TOKEN_HOST


@needs_root
@needs("docker-registry", "htpasswd", "skopeo", *Podman.programs)
class PodmanTests(pulls.PullTests):
    """podman with storage of its own."""

    kind = Podman

    def test_login(self) -> None:
        """``podman login`` asks the registry, which knows the password (Basic)."""
        self.check_login(PASSWORD_HOST)

    def test_login_for_tokens(self) -> None:
        """``podman login`` asks the token server, which knows the password (Bearer)."""
        self.check_login(TOKEN_HOST)

    def check_login(self, host: str) -> None:
        """Wrong, then right."""
        podman = self.stage.client(Podman)
        self.assert_refused(podman.log_in(host, WRONG), "invalid username/password")
        self.assertIn("Login Succeeded", podman.log_in(host, ALICE).check())

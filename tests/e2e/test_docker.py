"""Pulls by dockerd, through the proxy that its HTTPS_PROXY names."""

from __future__ import annotations

from tests.e2e import pulls
from tests.support.clients import Docker
from tests.support.programs import needs, needs_root
from tests.support.registry import ALICE, WRONG
from tests.support.stage import PASSWORD_HOST, TOKEN_HOST


@needs_root
@needs("docker-registry", "htpasswd", "skopeo", *Docker.programs)
class DockerTests(pulls.PullTests):
    """dockerd with the classic image store."""

    kind = Docker

    def test_login(self) -> None:
        """``docker login`` asks the registry, which knows the password (Basic)."""
        self.check_login(PASSWORD_HOST)

    def test_login_for_tokens(self) -> None:
        """``docker login`` asks the token server, which knows the password (Bearer)."""
        self.check_login(TOKEN_HOST)

    def check_login(self, host: str) -> None:
        """Wrong, then right."""
        docker = self.stage.client(Docker)
        self.assert_refused(docker.log_in(host, WRONG), "unauthorized")
        self.assertIn("Login Succeeded", docker.log_in(host, ALICE).check())

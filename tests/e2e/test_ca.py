"""The CA of a running proxy is changed, with crashes in between; a client pulls all the time."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

from tests.support.clients import Skopeo
from tests.support.commands import invoke
from tests.support.process import free_port
from tests.support.programs import needs
from tests.support.proxy import ADDRESS, Proxy, Value
from tests.support.stage import TOKEN_HOST, EndToEndTestCase


@needs("docker-registry", "htpasswd", *Skopeo.programs)
class RotationTests(EndToEndTestCase):
    """Announce, have clients learn of it, rotate."""

    def setUp(self) -> None:
        super().setUp()
        self.port = free_port()
        management: dict[str, Value] = {"listen": [f"tcp:{self.port}:interface={ADDRESS}"]}
        tables = {"management": management} | self.stage.registries()
        self.proxy = Proxy(self.new_directory(), tables)
        self.addCleanup(lambda: self.proxy.process.stop())
        self.repository_name = self.repository()
        self.publish(TOKEN_HOST, self.repository_name)

    def regproxy(self, *arguments: str) -> Any:
        """What the command line has to say."""
        environ = {
            "REGPROXY_URL": f"http://{ADDRESS}:{self.port}",
            "XDG_CONFIG_HOME": str(self.proxy.directory / "config"),
        }
        result = invoke("ca", *arguments, environ=environ)
        self.assertEqual(result.exit_code, 0, result.output)
        return json.loads(result.stdout)

    def crash(self) -> None:
        """Kill the proxy, and start it again over what it has left."""
        self.proxy.process.kill()
        self.proxy.start()

    def given(self, name: str) -> Path:
        """What a client that asks now is given, in a file."""
        file = self.proxy.directory / f"{name}.pem"
        file.write_bytes(self.proxy.get("/ca.crt") or b"")
        return file

    def pull(self, trusted: Path) -> None:
        """Pull with trust in these and nothing else."""
        client = Skopeo(self.new_directory(), self.proxy.url, trusted)
        client.pull(f"{TOKEN_HOST}/{self.repository_name}:latest").check()

    def test_rotation(self) -> None:
        before = self.given("before")
        self.pull(before)
        announced = self.regproxy("announce")
        self.crash()
        self.assertEqual(self.regproxy("show"), announced)
        both = self.given("both")
        self.pull(before)
        self.pull(both)
        rotated = self.regproxy("rotate", "--yes")
        self.pull(both)
        self.crash()
        self.assertEqual(self.regproxy("show"), rotated)
        self.assertEqual(rotated["fingerprint"], announced["next"]["fingerprint"])
        self.pull(both)
        self.pull(self.given("after"))
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.proxy.ca_file.write_bytes(before.read_bytes())
            self.proxy.fetch(TOKEN_HOST, "/v2/")
        self.assertNotIn("Traceback", self.proxy.process.read_log())

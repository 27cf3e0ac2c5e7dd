"""What is in ``docker/`` besides the image itself, which ``make e2e-image`` tests."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from regproxy import __version__
from regproxy.config.load import load
from tests.support.process import environment, free_port, run
from tests.support.programs import needs, program

ROOT: Final = Path(__file__).resolve().parent.parent
DOCKER: Final = ROOT / "docker"


class ConfigurationTests(SynchronousTestCase):
    """The image's own configuration"""

    def test_loads(self) -> None:
        """The management site is to be had from outside of the container."""
        config = load(DOCKER / "regproxy.toml")
        self.assertEqual(config.management.listen, ("tcp:8080",))

    def test_version(self) -> None:
        """The label is that of the package, when the build says nothing else."""
        dockerfile = (DOCKER / "Dockerfile").read_text()
        self.assertEqual(re.findall("^ARG VERSION=(.*)$", dockerfile, re.M), [__version__])


class ComposeTests(SynchronousTestCase):
    """compose.yaml"""

    @needs("docker-compose")
    def test_valid(self) -> None:
        compose = str(DOCKER / "compose.yaml")
        arguments = "--file", compose, "--profile", "monitoring", "config", "--quiet"
        run(program("docker-compose"), *arguments, env=environment()).check()

    def test_files(self) -> None:
        """What is mounted is there: dockerd would make a directory of its name."""
        text = (DOCKER / "compose.yaml").read_text()
        sources = re.findall(r"^ +- (\.{1,2}/[^:]+):", text, re.MULTILINE)
        self.assertEqual(len(sources), 6)
        for source in sources:
            self.assertTrue((DOCKER / source).exists(), source)

    @needs("promtool")
    def test_prometheus(self) -> None:
        """Its configuration is one, with the alerts."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for file in DOCKER / "monitoring/prometheus.yml", ROOT / "deploy/prometheus/alerts.yml":
            shutil.copy(file, directory)
        config = str(directory / "prometheus.yml")
        run(program("promtool"), "check", "config", config, env=environment()).check()


class HealthcheckTests(SynchronousTestCase):
    """healthcheck.py"""

    def check(self, port: int) -> subprocess.CompletedProcess[str]:
        """Run it as the image does, in a container with a proxy for its way out."""
        nowhere = f"http://127.0.0.1:{free_port()}"
        return subprocess.run(
            [sys.executable, "-I", "-S", str(DOCKER / "healthcheck.py")],
            env=environment(REGPROXY_HEALTH=f"http://127.0.0.1:{port}/healthz", http_proxy=nowhere),
            capture_output=True,
            text=True,
            check=False,
        )

    def test_healthy(self) -> None:
        server = http.server.HTTPServer(("127.0.0.1", 0), _Healthy)
        self.addCleanup(server.server_close)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        done = self.check(server.server_port)
        thread.join()
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_nobody_there(self) -> None:
        """One line says what is wrong: ``docker inspect`` shows it."""
        port = free_port()
        done = self.check(port)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rf"\Ahttp://127\.0\.0\.1:{port}/healthz: .*refused.*\n\Z")


class _Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

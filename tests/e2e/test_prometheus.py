"""What Prometheus makes of a proxy that it watches."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from tests.support import images
from tests.support.clients import Skopeo
from tests.support.process import Process, environment, free_port
from tests.support.programs import needs, program
from tests.support.proxy import ADDRESS, Proxy
from tests.support.stage import OPEN_HOST, EndToEndTestCase

ALERTS: Final = Path(__file__).resolve().parents[2] / "deploy/prometheus/alerts.yml"


class Prometheus:
    """A Prometheus that looks at one proxy each second, with our alerts.

    Args:
        watched: the port of the proxy's ``[management]`` listener.
    """

    def __init__(self, directory: Path, watched: int) -> None:
        self._port = free_port()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {
                    "job_name": "regproxy",
                    "static_configs": [{"targets": [f"{ADDRESS}:{watched}"]}],
                }
            ],
        }
        # What is JSON is YAML.
        (directory / "prometheus.yml").write_text(json.dumps(config))
        self.process = Process(
            "prometheus",
            [
                program("prometheus"),
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={ADDRESS}:{self._port}",
            ],
            log=directory / "prometheus.log",
            env=environment(),
        )

    def holds(self, condition: str) -> bool:
        """Whether there is something now for which *condition* is true."""
        url = f"http://{ADDRESS}:{self._port}/api/v1/query?{urlencode({'query': condition})}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=10) as response:
                return bool(json.load(response)["data"]["result"])
        except OSError:
            # It has only begun.
            return False

    def wait_for(self, condition: str) -> None:
        """Return once *condition* holds."""
        self.process.wait_until(lambda: self.holds(condition))


@needs("docker-registry", "htpasswd", "prometheus", "skopeo")
class PrometheusTests(EndToEndTestCase):
    """A real one"""

    def test_watched(self) -> None:
        """Two pulls of one image, and one by a client that does not know the CA."""
        management = free_port()
        tables = self.stage.registries()
        tables["management"] = {"listen": [f"tcp:{management}:interface={ADDRESS}"]}
        proxy = Proxy(self.new_directory(), tables)
        self.addCleanup(proxy.process.stop)
        self.watch(proxy.process)
        prometheus = Prometheus(self.new_directory(), management)
        self.addCleanup(prometheus.process.stop)
        self.watch(prometheus.process)
        repository = self.repository()
        image = self.publish(OPEN_HOST, repository, images.image())
        reference = f"{OPEN_HOST}/{repository}:latest"
        # It knows the registries' own CA instead.
        stranger = Skopeo(self.new_directory() / "stranger", proxy.url, self.stage.keys.ca)
        self.assertNotEqual(stranger.pull(reference).code, 0)
        prometheus.wait_for('regproxy_tls_handshakes_total{result="untrusted"} > 0')
        skopeo = Skopeo(self.new_directory() / "skopeo", proxy.url, proxy.ca_file)
        for _ in range(2):
            skopeo.clear()
            skopeo.pull(reference).check()
        where = f'registry="{OPEN_HOST}", status="2xx"'
        for cache in "miss", "hit":
            requests = f'regproxy_requests_total{{{where}, kind="blob", cache="{cache}"}}'
            prometheus.wait_for(f"sum({requests}) == {len(image.blobs)}")
        size = sum(len(each.content) for each in (image.manifest, *image.blobs))
        received = f'regproxy_upstream_received_bytes_total{{registry="{OPEN_HOST}"}}'
        for condition in (
            f'sum(regproxy_requests_total{{{where}, kind="tag", cache=~"stale|hit"}}) >= 1',
            f"{received} >= {size} < {2 * size}",
            'up{job="regproxy"} == 1',
        ):
            self.assertTrue(prometheus.holds(condition), condition)
        self.assertFalse(prometheus.holds('ALERTS{severity="critical"}'))

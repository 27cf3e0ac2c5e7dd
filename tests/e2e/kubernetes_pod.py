"""The configuration that pods have, in a real proxy: ``make e2e-kubernetes``."""

from __future__ import annotations

import re
from typing import Any, Final

from tests.support.certificates import make_ca
from tests.support.manifests import DEPLOY, Manifests, kustomize
from tests.support.process import Process, environment, free_port, listens, run
from tests.support.programs import needs, program
from tests.support.proxy import command
from tests.support.stage import EndToEndTestCase

ADDRESS: Final = "127.0.0.1"
REGISTRY: Final = "ghcr.io"


class Pod:
    """The proxy of an overlay, on this machine: at other ports and with other directories."""

    def __init__(self, case: EndToEndTestCase, manifests: Manifests) -> None:
        directory = case.new_directory()
        (self.container,) = manifests.pod("StatefulSet")["containers"]
        #: By the name of the container's port.
        self.ports = {port["name"]: free_port() for port in self.container["ports"]}
        text = manifests.setting("regproxy.toml")
        for port in self.container["ports"]:
            new, old = self.ports[port["name"]], port["containerPort"]
            text = text.replace(f'"tcp:{old}"', f'"tcp:{new}:interface={ADDRESS}"')
            text = text.replace(f'"0.0.0.0:{old}"', f'"{ADDRESS}:{self.ports.get("dns")}"')
        text = text.replace("/var/lib/regproxy", str(directory / "data"))
        text = text.replace("/etc/regproxy", str(directory))
        # Nobody is there: nothing leaves this machine.
        text = text.replace('"10.0.0.2"', f'"{ADDRESS}:{free_port()}"')
        ca = make_ca()
        self.ca = directory / "ca/ca.crt"
        self.ca.parent.mkdir()
        self.ca.write_bytes(ca.certificate_pem)
        (directory / "ca/ca.key").write_bytes(ca.key_pem)
        for path in directory / "ca/ca.crt", directory / "ca/ca.key":
            path.chmod(0o440)
        self.ca.parent.chmod(0o555)
        config = directory / "regproxy.toml"
        config.write_text(text)
        self.process = Process("pod", command(config), log=directory / "log", env=environment())
        case.addCleanup(self.process.stop)
        case.watch(self.process)
        self.process.wait_until(lambda: listens(self.ports["management"]))

    def curl(self, *arguments: str) -> str:
        """What curl prints."""
        return run(program("curl"), "-sS", "--max-time", "20", *arguments, env=environment()).output

    def at(self, name: str, path: str) -> str:
        """An http URL at one of the ports."""
        return f"http://{ADDRESS}:{self.ports[name]}{path}"


@needs("curl", "kustomize", "docker-registry", "htpasswd")
class PodTests(EndToEndTestCase):
    def pod(self, overlay: str) -> Pod:
        return Pod(self, kustomize(DEPLOY / "kubernetes/overlays" / overlay))

    def test_probes(self) -> None:
        for overlay in ("proxy", "dns"):
            pod = self.pod(overlay)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path: Any = pod.container[probe]["httpGet"]["path"]
                self.assertEqual(pod.curl(pod.at("management", path)), "ok\n")
            self.assertEqual(pod.curl(pod.at("mirror", "/v2/"), "-w", "%{http_code}")[-3:], "200")

    def test_ports_without_privilege(self) -> None:
        """What arrives for ports 443 and 80 of a Service is at home at other ones."""
        pod = self.pod("dns")
        headers = pod.curl("-i", "-H", f"Host: {REGISTRY}", pod.at("http", "/v2/"))
        self.assertIn(" 308 ", headers)
        self.assertEqual(re.findall(r"(?im)^location: (\S+)", headers), [f"https://{REGISTRY}/v2/"])
        answer = pod.curl(
            *("-i", "--cacert", str(pod.ca), f"https://{REGISTRY}/v2/"),
            *("--connect-to", f"{REGISTRY}:443:{ADDRESS}:{pod.ports['tls']}"),
        )
        # Its name server is not there: it is the proxy that says so, in the registry's name.
        self.assertRegex(answer, r"^HTTP/1.1 50[234] ")
        self.assertIn("Proxy-Status: regproxy", answer)

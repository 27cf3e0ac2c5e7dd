"""Everything that can be made of the files in ``deploy/``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.load import load
from regproxy.config.model import Config
from tests.support.manifests import DEPLOY, Manifests, chart, kustomize
from tests.support.programs import needs

OVERLAYS: Final = DEPLOY / "kubernetes/overlays"
DNS: Final = ("mode=dns", "dns.addresses={10.0.0.5}", "dns.forwardTo={10.0.0.2}")
NODES: Final = ("node.enabled=true", "node.address=10.0.0.5")
CHARTS: Final = {
    "chart": (),
    "chart for proxy": NODES,
    "chart for mirror": ("mode=mirror", *NODES),
    "chart for dns": (*DNS, *NODES),
    "chart for undo": ("node.enabled=true", "node.mode=undo"),
    "chart with host ports": (*DNS, *NODES, "hostPort=true", "service.type=NodePort"),
    "chart with all": (
        *("credentials.secretName=logins", "ca.secretName=mine", "serviceMonitor.enabled=true"),
        *("service.type=ClusterIP", "service.annotations.a=b", "imagePullSecrets[0].name=pull"),
        *("persistence.storageClassName=fast", "networkPolicy.enabled=false"),
        'config=[freshness]\ndefault = "1m"',
    ),
}
#: What the program on nodes needs, and no more.
PRIVILEGES: Final = {
    "hostNetwork",
    "hostPID",
    "volumes.hostPath",
    "privileged",
    "allowPrivilegeEscalation",
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
    "capabilities.drop",
}
CA: Final = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
# Of the oldest release that the chart takes, and of the newest with a schema.
VERSIONS: Final = ("1.26.0", f"{kubernetes_validate.latest_version()}")


@needs("kustomize", "helm")
class ManifestTestCase(SynchronousTestCase):
    """A test of what can be made of the files."""

    maxDiff = None

    def composed(self, resource: str, *components: str) -> Manifests:
        """An overlay, or the base, with components."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        # kustomize takes relative paths only.
        kubernetes = "../" * len(directory.parts[1:]) + str(DEPLOY / "kubernetes")[1:]
        table = {
            "resources": [f"{kubernetes}/{resource}"],
            "components": [f"{kubernetes}/components/{name}" for name in components],
        }
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(table))
        return kustomize(directory)

    def renderings(self) -> dict[str, Manifests]:
        """Everything that can be made of the files."""
        found = {path.name: kustomize(path) for path in sorted(OVERLAYS.iterdir())}
        self.assertEqual(set(found), {"dns", "mirror", "proxy", "undo"})
        names = "nodeport", "credentials", "servicemonitor"
        found["components"] = self.composed("base", *names)
        found["components for dns"] = self.composed("overlays/dns", "nodeport", "nodeport-dns")
        return found | {name: chart(values) for name, values in CHARTS.items()}

    def config(self, manifests: Manifests) -> Config:
        """The configuration of the proxy, as the proxy reads it."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        file = directory / "regproxy.toml"
        text = manifests.setting("regproxy.toml")
        # The Secret is not here.
        logins = directory / "config.json"
        logins.write_text('{"auths": {}}')
        file.write_text(text.replace("/etc/regproxy/credentials/config.json", str(logins)))
        return load(file)

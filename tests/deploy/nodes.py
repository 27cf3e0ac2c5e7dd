"""What the program on nodes is told."""

from __future__ import annotations

from pathlib import Path

from regproxy.node.cluster import LABEL
from regproxy.node.settings import Mode, Settings
from tests.deploy.case import (
    CA,
    NODES,
    OVERLAYS,
    ManifestTestCase,
)
from tests.support.manifests import CHART, chart


class NodeTests(ManifestTestCase):
    def test_settings(self) -> None:
        """The program takes what its ConfigMap says, and it is the mode of the overlay."""
        ca = Path(self.mktemp())
        ca.write_bytes(CA)
        for name, manifests in self.renderings().items():
            if not manifests.all("DaemonSet"):
                continue
            with self.subTest(rendering=name):
                (container,) = manifests.pod("DaemonSet")["containers"]
                (source,) = container["envFrom"]
                (data,) = (
                    each
                    for each in manifests.all("ConfigMap")
                    if each["metadata"]["name"] == source["configMapRef"]["name"]
                )
                settings = Settings.read(data["data"], ca)
                expected = name.rpartition(" ")[2]
                self.assertEqual(settings.mode, "dns" if expected == "ports" else expected)
                if settings.mode is not Mode.UNDO:
                    self.assertEqual(len(settings.hosts), 11)

    def test_changed_settings_make_new_pods(self) -> None:
        first, second = (
            chart((*NODES, f"node.hosts={{{host}}}")).one("DaemonSet")["spec"]["template"]
            for host in ("ghcr.io", "quay.io")
        )
        self.assertNotEqual(first["metadata"]["annotations"], second["metadata"]["annotations"])
        first, second = (
            chart((f"cache.maxSize={size}",)).one("StatefulSet")["spec"]["template"]
            for size in ("1GiB", "2GiB")
        )
        self.assertNotEqual(first["metadata"]["annotations"], second["metadata"]["annotations"])

    def test_label(self) -> None:
        """What the pages tell people to look at."""
        self.assertIn(LABEL, (CHART / "templates/NOTES.txt").read_text())
        self.assertIn(LABEL, (OVERLAYS / "undo/kustomization.yaml").read_text())

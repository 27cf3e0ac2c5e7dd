"""What docs/how-to/kubernetes.md has people write."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.deploy.case import (
    ManifestTestCase,
)
from tests.support.manifests import ROOT, Manifests, kustomize


class PageTests(ManifestTestCase):
    """What docs/how-to/kubernetes.md has people write."""

    def build(self, *names: str, **files: str) -> Manifests:
        """What the directory makes that has the page's blocks with these words in them."""
        page = (ROOT / "docs/how-to/kubernetes.md").read_text()
        blocks = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        directory = Path(self.mktemp()).absolute() / "mine"
        directory.mkdir(parents=True)
        (directory.parent / "regproxy").symlink_to(ROOT)
        table: dict[str, list[object]] = {}
        for name in names:
            (block,) = (block for block in blocks if name in block)
            for key, value in yaml.safe_load(block).items():
                if isinstance(value, list):
                    table.setdefault(key, []).extend(value)
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(table))
        for name, text in files.items():
            (directory / name.replace("_", ".")).write_text(text)
        return kustomize(directory)

    def test_overlay(self) -> None:
        manifests = self.build("overlays/proxy")
        (container,) = manifests.pod("StatefulSet")["containers"]
        self.assertRegex(container["image"], r"^registry\.example\.com/regproxy:[0-9.]+$")
        self.assertEqual(manifests.setting("NODE_PROXY"), "http://10.0.0.5:3128")
        self.assertEqual(manifests.setting("NODE_MODE"), "proxy")

    def test_own_configuration_and_host_ports(self) -> None:
        mine = 'data = "/srv"\n'
        manifests = self.build("overlays/proxy", "- regproxy.toml", "nodeport", regproxy_toml=mine)
        self.assertEqual(manifests.setting("regproxy.toml"), mine)
        (container,) = manifests.pod("StatefulSet")["containers"]
        ports = {port.get("hostPort") for port in container["ports"]}
        self.assertEqual(ports, {3128, 5000, None})

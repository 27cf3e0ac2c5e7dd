"""The chart, beside kustomize's overlays."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regproxy.tls.authority import CertificateAuthority
from tests.deploy.case import (
    CHARTS,
    OVERLAYS,
    ManifestTestCase,
)
from tests.support.manifests import CHART, Manifest, Manifests, chart, helm, kustomize
from tests.support.process import environment, run
from tests.support.programs import program


class ChartTests(ManifestTestCase):
    """What is the chart's own."""

    def test_same_pods(self) -> None:
        """The chart and the overlays make the same of each mode."""
        for mode in ("proxy", "mirror", "dns"):
            with self.subTest(mode=mode):
                ours, theirs = kustomize(OVERLAYS / mode), chart(CHARTS[f"chart for {mode}"])
                for kind in "StatefulSet", "DaemonSet":
                    self.assertEqual(plain(ours.pod(kind)), plain(theirs.pod(kind)))
                for name in ("NODE_HOSTS", "NODE_MODE"):
                    self.assertEqual(ours.setting(name), theirs.setting(name))
                self.assertEqual(self.config(ours), self.config(theirs))
                for kind in "NetworkPolicy", "Service":
                    for one, other in zip(
                        *(sorted(m.all(kind), key=name_of) for m in (ours, theirs)), strict=True
                    ):
                        self.assertEqual(plain(one["spec"]), plain(other["spec"]))

    def test_same_host_ports(self) -> None:
        """kustomize drops what it cannot match without a word."""
        ours = self.renderings()["components for dns"].pod("StatefulSet")
        theirs = chart(CHARTS["chart with host ports"]).pod("StatefulSet")
        self.assertEqual(plain(ours), plain(theirs))
        ports = {port.get("hostPort") for port in ours["containers"][0]["ports"]}
        self.assertEqual(ports, {3128, 5000, 443, 80, 53, None})

    def test_own_authority(self) -> None:
        """Without a Secret of the user's it makes one, and nodes get its certificate only."""
        manifests = chart(CHARTS["chart for proxy"])
        secret = manifests.one("Secret")
        self.assertEqual(secret["type"], "kubernetes.io/tls")
        self.assertEqual(secret["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")
        certificate = b64decode(secret["data"]["tls.crt"]).decode()
        self.assertEqual(manifests.setting("ca.crt").strip(), certificate.strip())
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "ca.crt").write_text(certificate)
        (directory / "ca.key").write_bytes(b64decode(secret["data"]["tls.key"]))
        now = datetime.now(UTC)
        authority = CertificateAuthority.load_or_create(directory, now=now)
        self.assertGreater(authority.issue(["ghcr.io"], now).not_after, now)
        self.assertEqual(chart(CHARTS["chart with all"]).all("Secret"), [])

    def test_what_is_missing(self) -> None:
        for values, word in (
            (("mode=dns",), "dns.addresses"),
            (("mode=dns", "dns.addresses={10.0.0.5}"), "dns.forwardTo"),
            (("node.enabled=true",), "node.address"),
            (("mode=direct",), "mode"),
            (("cahce.maxSize=1GiB",), "cahce"),
        ):
            with self.subTest(values=values):
                result = helm(*values)
                self.assertNotEqual(result.code, 0)
                self.assertIn(word, result.output)

    def test_lint(self) -> None:
        """helm has nothing to say against it."""
        result = run(program("helm"), "lint", "--strict", str(CHART), env=environment())
        self.assertIn("0 chart(s) failed", result.check())

    def test_name(self) -> None:
        names = [
            each["metadata"]["name"]
            for each in Manifests(helm(name="cache").check()).all("StatefulSet")
        ]
        self.assertEqual(names, ["cache-regproxy"])


def name_of(manifest: Manifest) -> str:
    """The key to sort by."""
    name: str = manifest["metadata"]["name"]
    return name


def plain(value: Any) -> Any:
    """An object without what differs between the two by design: names that kustomize gives a
    hash, labels that Helm adds, and the order of what has names."""
    if isinstance(value, dict):
        dropped = {"app.kubernetes.io/instance", "imagePullPolicy", "loadBalancerIP"}
        return {key: plain(v) for key, v in value.items() if key not in dropped}
    if isinstance(value, list):
        return sorted((plain(each) for each in value), key=_order)
    if isinstance(value, str):
        return re.sub("-[0-9a-z]{10}$", "", value).replace("regproxy-node-ca", "regproxy-ca")
    return value


def _order(value: Any) -> str:
    """By its name, where it has one."""
    named = isinstance(value, dict) and "name" in value
    return str(value["name"]) if named else json.dumps(value, sort_keys=True)

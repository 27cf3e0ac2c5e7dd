"""What pods may do, and what they have no use for."""

from __future__ import annotations

from regproxy.node.cluster import LEASE
from tests.deploy.case import (
    OVERLAYS,
    PRIVILEGES,
    ManifestTestCase,
)
from tests.support.manifests import kustomize
from tests.support.pod_security import violations


class SecurityTests(ManifestTestCase):
    def test_proxy(self) -> None:
        """The restricted profile; but for ports of hosts, where somebody wants these."""
        for name, manifests in self.renderings().items():
            if name == "undo":
                continue
            with self.subTest(rendering=name):
                spec = manifests.pod("StatefulSet")
                ports = name.startswith("components") or name == "chart with host ports"
                self.assertEqual(violations(spec), {"hostPort"} if ports else set())
                (container,) = spec["containers"]
                self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
                self.assertIs(spec["automountServiceAccountToken"], False)
                for port in container["ports"]:
                    self.assertGreaterEqual(port["containerPort"], 1024)

    def test_nodes(self) -> None:
        """Only what it takes to configure a machine, and never the CA's key."""
        count = 0
        for name, manifests in self.renderings().items():
            if not manifests.all("DaemonSet"):
                continue
            with self.subTest(rendering=name):
                spec = manifests.pod("DaemonSet")
                self.assertEqual(violations(spec), PRIVILEGES)
                self.assertNotIn("secret", {key for volume in spec["volumes"] for key in volume})
                count += 1
        self.assertEqual(count, 10)

    def test_namespaces(self) -> None:
        """What is enforced is what the pods in it can do with."""
        levels = {
            each["metadata"]["name"]: each["metadata"]["labels"][
                "pod-security.kubernetes.io/enforce"
            ]
            for each in kustomize(OVERLAYS / "proxy").all("Namespace")
        }
        self.assertEqual(levels, {"regproxy": "restricted", "regproxy-node": "privileged"})
        (namespace,) = self.composed("base", "nodeport").all("Namespace")
        level = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        self.assertEqual(level, "privileged")

    def test_rights(self) -> None:
        """Those that the program uses: of others there is no use."""
        for name in ("proxy", "chart for proxy"):
            manifests = self.renderings()[name]
            (rule,) = manifests.one("ClusterRole")["rules"]
            self.assertEqual((rule["resources"], rule["verbs"]), (["nodes"], ["patch"]))
            create, use = manifests.one("Role")["rules"]
            self.assertEqual(create["verbs"], ["create"])
            self.assertEqual((use["resourceNames"], use["verbs"]), ([LEASE], ["get", "update"]))
            account = manifests.pod("DaemonSet")["serviceAccountName"]
            for kind in "RoleBinding", "ClusterRoleBinding":
                (subject,) = manifests.one(kind)["subjects"]
                self.assertEqual(subject["name"], account)

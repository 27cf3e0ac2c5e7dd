"""The objects of the proxy: whether the parts fit together."""

from __future__ import annotations

import re
from configparser import ConfigParser

import yaml

from tests.deploy.case import (
    CHARTS,
    ManifestTestCase,
)
from tests.support.manifests import CHART, ROOT, Manifests, chart


class ProxyTests(ManifestTestCase):
    """Whether the parts fit together."""

    def proxies(self) -> dict[str, Manifests]:
        return {k: v for k, v in self.renderings().items() if v.all("StatefulSet")}

    def test_ports(self) -> None:
        """The proxy listens at each port of its container, and at no other."""
        for name, manifests in self.proxies().items():
            with self.subTest(rendering=name):
                config = self.config(manifests)
                listens = {
                    ("TCP", int(text.removeprefix("tcp:")))
                    for section in (config.proxy, config.mirror, config.tls, config.management)
                    for text in (*section.listen, *getattr(section, "http_listen", ()))
                }
                for text in config.dns.listen:
                    port = int(text.rpartition(":")[2])
                    listens |= {("TCP", port), ("UDP", port)}
                (container,) = manifests.pod("StatefulSet")["containers"]
                ports = {
                    (port.get("protocol", "TCP"), port["containerPort"])
                    for port in container["ports"]
                }
                self.assertEqual(ports, listens)

    def test_references(self) -> None:
        """Services, probes and policies name ports that there are, and select these pods."""
        for name, manifests in self.proxies().items():
            with self.subTest(rendering=name):
                workload = manifests.one("StatefulSet")
                labels = workload["spec"]["template"]["metadata"]["labels"]
                (container,) = manifests.pod("StatefulSet")["containers"]
                ports = {p["name"]: p.get("protocol", "TCP") for p in container["ports"]}
                services = manifests.all("Service")
                self.assertEqual(len(services), 2)
                self.assertIn(
                    workload["spec"]["serviceName"], [s["metadata"]["name"] for s in services]
                )
                for service in services:
                    self.assertLessEqual(service["spec"]["selector"].items(), labels.items())
                    for port in service["spec"]["ports"]:
                        self.assertEqual(ports[port["targetPort"]], port.get("protocol", "TCP"))
                for probe in "startupProbe", "livenessProbe", "readinessProbe":
                    self.assertEqual(ports[container[probe]["httpGet"]["port"]], "TCP")
                for policy in manifests.all("NetworkPolicy"):
                    selector = policy["spec"]["podSelector"]["matchLabels"]
                    self.assertLessEqual(selector.items(), labels.items())
                    for rule in policy["spec"]["ingress"]:
                        for port in rule["ports"]:
                            self.assertEqual(ports[port["port"]], port["protocol"])
                budget = manifests.one("PodDisruptionBudget")["spec"]
                self.assertLessEqual(budget["selector"]["matchLabels"].items(), labels.items())
                self.assertEqual(budget["maxUnavailable"], 1)

    def test_clients_reach_all_that_they_come_to(self) -> None:
        for name, manifests in self.proxies().items():
            if not manifests.all("NetworkPolicy"):
                continue
            with self.subTest(rendering=name):
                open_ports = {
                    port["port"]
                    for port in manifests.one("NetworkPolicy")["spec"]["ingress"][0]["ports"]
                }
                (service,) = (
                    s for s in manifests.all("Service") if s["spec"].get("clusterIP") != "None"
                )
                wanted = {port["targetPort"] for port in service["spec"]["ports"]}
                self.assertEqual(open_ports, wanted)

    def test_probes(self) -> None:
        """Liveness is the process, readiness whether it is of use."""
        for manifests in self.proxies().values():
            (container,) = manifests.pod("StatefulSet")["containers"]
            paths = {
                name: container[name]["httpGet"]["path"]
                for name in ("startupProbe", "livenessProbe", "readinessProbe")
            }
            self.assertEqual(
                paths,
                {
                    "startupProbe": "/healthz",
                    "livenessProbe": "/healthz",
                    "readinessProbe": "/readyz",
                },
            )

    def test_end(self) -> None:
        """Transfers have their time before the pod is killed."""
        for manifests in self.proxies().values():
            grace = manifests.pod("StatefulSet")["terminationGracePeriodSeconds"]
            self.assertLess(self.config(manifests).limits.drain, grace)

    def test_directories(self) -> None:
        """The configuration names what is mounted, and only the data can be written."""
        for name, manifests in self.proxies().items():
            with self.subTest(rendering=name):
                config = self.config(manifests)
                (container,) = manifests.pod("StatefulSet")["containers"]
                mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
                writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
                self.assertEqual(writable, {"/var/lib/regproxy", "/tmp"})
                self.assertIn(str(config.data), writable)
                self.assertIn(str(config.ca.directory), mounts)
                # The cache fits on the disk that is asked for.
                (claim,) = manifests.one("StatefulSet")["spec"]["volumeClaimTemplates"]
                size = claim["spec"]["resources"]["requests"]["storage"]
                gib = int(re.fullmatch("([0-9]+)Gi", size)[1])  # type: ignore[index]
                self.assertLess(config.cache.max_size + config.cache.min_free, gib << 30)

    def test_credentials(self) -> None:
        """A Secret for imagePullSecrets becomes the file that the configuration names."""
        for name in ("components", "chart with all"):
            spec = self.renderings()[name].pod("StatefulSet")
            (volume,) = (v for v in spec["volumes"] if v["name"] == "credentials")
            (item,) = volume["secret"]["items"]
            self.assertEqual(item, {"key": ".dockerconfigjson", "path": "config.json"})
            (mount,) = (
                m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "credentials"
            )
            path = f"{mount['mountPath']}/config.json"
            # In the base the lines are there to be uncommented.
            self.assertIn(path, self.renderings()[name].setting("regproxy.toml"))
        self.assertEqual(
            len(self.config(chart(CHARTS["chart with all"])).credentials.docker_config), 1
        )

    def test_monitor(self) -> None:
        """It selects one Service, by a port that this one has."""
        for name in ("components", "chart with all"):
            with self.subTest(rendering=name):
                manifests = self.renderings()[name]
                spec = manifests.one("ServiceMonitor")["spec"]
                wanted = spec["selector"]["matchLabels"].items()
                (service,) = (
                    s for s in manifests.all("Service") if wanted <= s["metadata"]["labels"].items()
                )
                (endpoint,) = spec["endpoints"]
                self.assertIn(endpoint["port"], [p["name"] for p in service["spec"]["ports"]])

    def test_versions(self) -> None:
        """One version everywhere."""
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        version = setup["metadata"]["version"]
        info = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual((info["version"], info["appVersion"]), (version, version))
        for name, manifests in self.renderings().items():
            for kind in "StatefulSet", "DaemonSet":
                for workload in manifests.all(kind):
                    (container,) = workload["spec"]["template"]["spec"]["containers"]
                    self.assertEqual(container["image"], f"regproxy:{version}", name)

"""Clients that a script of the proxy has set up: real daemons under a real systemd."""

from __future__ import annotations

from typing import Final

from tests.support.debian import Debian
from tests.support.namespaces import Namespace
from tests.support.process import free_port
from tests.support.programs import needs, needs_root
from tests.support.proxy import Proxy
from tests.support.stage import HUB_HOST, TOKEN_HOST, EndToEndTestCase

# All that a script may touch.
_SNAPSHOT: Final = """
find /etc /usr/local /var/lib/regproxy-setup -xdev -printf '%p %M %U %l\\n' 2>/dev/null | sort
find /etc /usr/local /var/lib/regproxy-setup -xdev -type f -exec sha256sum {} + 2>/dev/null | sort
"""


@needs_root
@needs("debootstrap", "docker-registry", "htpasswd", "ip", "nsenter", "skopeo", "systemd-nspawn")
class SetupTests(EndToEndTestCase):
    """A machine that reaches the proxy and nothing else."""

    def setUp(self) -> None:
        super().setUp()
        directory = self.new_directory()
        self.namespace = Namespace(directory / "namespace")
        self.addCleanup(self.namespace.close)
        gateway = self.namespace.gateway
        port, mirror = free_port(), free_port()
        tables = self.stage.registries() | {
            "proxy": {"listen": [f"tcp:{port}:interface={gateway}"]},
            "mirror": {"listen": [f"tcp:{mirror}:interface={gateway}"]},
        }
        self.proxy = Proxy(self.new_directory(), tables)
        self.addCleanup(self.proxy.process.stop)
        self.setup = f"http://{gateway}:{port}/setup"
        self.debian = Debian(directory / "debian", self.namespace)
        self.addCleanup(self.debian.close)
        for process in self.proxy.process, self.debian.process:
            self.watch(process)

    def apply(self, path: str) -> str:
        """Run a script as its user does."""
        return self.debian.run(f"curl -fsS '{self.setup}/{path}' | sh").check()

    def snapshot(self) -> str:
        return self.debian.run(_SNAPSHOT).check()

    def started(self, unit: str) -> str:
        """When the service was started last."""
        show = f"systemctl show --property=ActiveEnterTimestampMonotonic {unit}"
        return self.debian.run(show).check()

    def check_pull(self, command: str, inspect: str, host: str = TOKEN_HOST) -> None:
        """The client pulls a new image, by way of the proxy."""
        repository = self.repository()
        image = self.publish(host, repository)
        shown = "docker.io" if host == HUB_HOST else host
        reference = f"{shown}/{repository}:latest"
        start = self.proxy.process.log.stat().st_size
        self.debian.run(f"{command} {reference}").check()
        found = self.debian.run(f"{inspect} {reference}").check().strip()
        digests = [each.removeprefix("sha256:") for each in (image.image_id, image.digest)]
        self.assertTrue(any(digest in found for digest in digests), found)
        ways = {each["way"] for each in self.proxy.access_log(start) if each["registry"] == host}
        self.assertLessEqual(ways, {"connect", "mirror"})
        self.assertTrue(ways)

    def check_script(self, path: str, unit: str) -> None:
        """Twice, and the second time nothing changes and nothing is restarted."""
        self.assertIn("all is well", self.apply(path))
        before, started = self.snapshot(), self.started(unit)
        self.assertIn("all is set already", self.apply(path))
        self.assertEqual(self.snapshot(), before)
        self.assertEqual(self.started(unit), started)

    def undo(self, path: str) -> None:
        self.assertIn("is there again", self.apply(path + ("&" if "?" in path else "?") + "undo=1"))

    def test_docker(self) -> None:
        """dockerd pulls, and does not any more when all is undone."""
        before = self.snapshot()
        self.check_script("docker", "docker.service")
        self.check_pull("docker pull -q", "docker image inspect --format={{.Id}}")
        self.undo("docker")
        self.assertEqual(self.snapshot(), before)
        refused = self.debian.run(f"docker pull {TOKEN_HOST}/{self.repository()}:latest")
        self.assertNotEqual(refused.code, 0, str(refused))

    def test_podman(self) -> None:
        """podman pulls; a run for another runtime leaves its CA in place."""
        before = self.snapshot()
        self.apply("docker")
        self.check_script("podman", "docker.service")
        self.undo("docker")
        self.check_pull("podman pull -q", "podman image inspect --format={{.Id}}")
        self.undo("podman")
        self.assertEqual(self.snapshot(), before)

    def test_containerd(self) -> None:
        """containerd has the variables; by hosts.toml it takes the mirror."""
        before = self.snapshot()
        self.check_script("containerd", "containerd.service")
        variables = self.debian.run("tr '\\0' '\\n' </proc/$(pidof containerd)/environ").check()
        self.assertIn(f"HTTPS_PROXY={self.setup.removesuffix('/setup')}\n", variables)
        self.check_script("containerd?mode=hosts", "containerd.service")
        plugins = self.debian.run("ctr plugins ls id==cri").check()
        self.assertIn("io.containerd.grpc.v1", plugins)
        self.assertRegex(plugins, r"cri .* ok")
        self.check_pull(
            "ctr images pull --hosts-dir /etc/containerd/certs.d",
            "ctr images ls | grep",
            HUB_HOST,
        )
        self.undo("containerd")
        self.assertEqual(self.snapshot(), before)

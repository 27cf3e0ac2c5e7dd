"""Clients that a script of the proxy has set up: real daemons under a real systemd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.support.debian import Debian
from tests.support.namespaces import Namespace
from tests.support.process import Result, free_port
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
    """A machine that reaches the proxy and nothing else.

    Attributes:
        way: by which its pulls are to come.
    """

    way = "connect"

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
        return self.debian.run(f"curl -sS '{self.setup}/{path}' | sh").check()

    def snapshot(self) -> str:
        return self.debian.run(_SNAPSHOT).check()

    def started(self, unit: str) -> str:
        """When the service was started last."""
        show = f"systemctl show --property=ActiveEnterTimestampMonotonic {unit}"
        return self.debian.run(show).check()

    def check_pull(self, pull: Callable[[str], Result], host: str = TOKEN_HOST) -> None:
        """The client pulls a new image, by way of the proxy."""
        repository = self.repository()
        image = self.publish(host, repository)
        shown = "docker.io" if host == HUB_HOST else host
        start = self.proxy.process.log.stat().st_size
        said = pull(f"{shown}/{repository}:latest").check()
        self.assertIn(image.image_id.removeprefix("sha256:"), said)
        records = [each for each in self.proxy.access_log(start) if each["registry"] == host]
        self.assertEqual({each["way"] for each in records}, {self.way})

    def pulled_by(self, program: str) -> Callable[[str], Result]:
        """What docker and podman say of the image that they pulled."""
        show = f"{program} image inspect --format={{{{.Id}}}}"
        return lambda name: self.debian.run(f"{program} pull -q {name} && {show} {name}")

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
        self.check_pull(self.pulled_by("docker"))
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
        self.check_pull(self.pulled_by("podman"))
        self.undo("podman")
        self.assertEqual(self.snapshot(), before)

    def test_containerd(self) -> None:
        """containerd pulls for a kubelet through the proxy, and then by hosts.toml."""
        before = self.snapshot()
        self.check_script("containerd", "containerd.service")
        self.check_pull(self.debian.pull_by_cri)
        self.way = "mirror"
        self.check_script("containerd?mode=hosts", "containerd.service")
        self.check_pull(self.debian.pull_by_cri, HUB_HOST)
        self.undo("containerd")
        self.assertEqual(self.snapshot(), before)

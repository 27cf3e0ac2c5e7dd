"""Configurations of runtimes as they are found on machines."""

from __future__ import annotations

import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.changes import Kind, without
from regproxy.node.errors import Refused
from regproxy.node.runtimes import CONTAINERD, Runtimes, registries_conf, with_hosts_directory
from regproxy.node.settings import Mode, Settings
from tests.support import trees
from tests.support.trees import FakeMachine

MIRROR = Settings(
    Mode.MIRROR, mirror="http://10.0.0.5:5000", hosts=("docker.io", "reg.example.com:5000")
)
DIRECTORY = "/etc/containerd/certs.d"


def found(text: bytes, plugin: str) -> str:
    path: str = tomllib.loads(text.decode())["plugins"][plugin]["registry"]["config_path"]
    return path


class ContainerdTests(SynchronousTestCase):
    """``config.toml``."""

    def check(self, text: str, plugin: str) -> None:
        made = with_hosts_directory(text.encode())
        self.assertEqual(found(made, plugin), DIRECTORY)
        self.assertEqual(with_hosts_directory(made), made)
        # All that was in it is in it still.
        table, old = tomllib.loads(made.decode()), tomllib.loads(text)
        table["plugins"][plugin]["registry"].pop("config_path")
        old_registry = (
            old.setdefault("plugins", {}).setdefault(plugin, {}).setdefault("registry", {})
        )
        old_registry.pop("config_path", None)
        self.assertEqual(table, old)
        left = without(Kind.BLOCK, CONTAINERD, made, ()).decode()
        self.assertEqual(left, text if text.endswith("\n") or not text else text + "\n")

    def test_versions(self) -> None:
        for head, plugin in (
            ('root = "/data"\n', "cri"),
            ("version = 1\n", "cri"),
            ("version = 2\n", "io.containerd.grpc.v1.cri"),
            ("version = 3\n", "io.containerd.cri.v1.images"),
            ("version = 4\n", "io.containerd.cri.v1.images"),
        ):
            for rest in (
                "",
                f'[plugins."{plugin}"]\n  x = 1',
                f"[plugins.'{plugin}'.registry]\n",
                f'  [plugins."{plugin}".registry] # here\n    config_path = ""\n[debug]\n',
                f'[plugins."{plugin}".registry]\n\n# none\n  config_path=""  # yet\n',
                f'[plugins."{plugin}".registry.headers]\na = ["b"]\n',
                # As "containerd config default" of 2.4 has it.
                f"[plugins]\n  [plugins.'{plugin}'.registry]\n      config_path = ''\n\n[cgroup]\n",
                f'[plugins."{plugin}".registry]\n[plugins.x]\nconfig_path = ""\n',
            ):
                with self.subTest(head=head, rest=rest):
                    self.check(head + rest, plugin)

    def test_no_file(self) -> None:
        self.assertEqual(found(with_hosts_directory(None), "io.containerd.grpc.v1.cri"), DIRECTORY)

    def test_set_already(self) -> None:
        text = b'version = 2\nplugins."io.containerd.grpc.v1.cri".registry.config_path = "/x"\n'
        self.assertEqual(with_hosts_directory(text), text)

    def test_imports(self) -> None:
        """What an imported file says counts, and is not fought."""
        plugin = "io.containerd.grpc.v1.cri"
        for version, text, paths in (
            (2, f'[plugins."{plugin}".registry]\nconfig_path = "/a:/b"\n', ["/a/docker.io"]),
            (2, "[debug]\n", ["/etc/containerd", f"{DIRECTORY}/docker.io"]),
            (2, f'[plugins."{plugin}"]\nx = 1\n', None),
            (3, f'[plugins."{plugin}"]\nx = 1\n', ["/etc/containerd", f"{DIRECTORY}/docker.io"]),
        ):
            with self.subTest(version=version, text=text):
                fake = trees.debian(Path(self.mktemp()))
                fake.daemon("containerd")
                imports = 'imports = ["conf.d/*.toml"]'
                fake.write(CONTAINERD, f"version = {version}\n{imports}\n")
                fake.write("/etc/containerd/conf.d/10.toml", text)
                fake.write("/etc/containerd/conf.d/README", "no TOML")
                runtimes = Runtimes(fake.machine, fake.services)
                if paths is None:
                    self.assertRaises(Refused, runtimes.changes, MIRROR)
                    continue
                found = [change.path.rpartition("/")[0] for change in runtimes.changes(MIRROR)]
                self.assertEqual(found[: len(paths)], paths)

    def test_refused(self) -> None:
        """Nothing is made that containerd would not start with."""
        plugin = '[plugins."io.containerd.grpc.v1.cri"'
        for rest, word in (
            (f'{plugin}.registry.mirrors."docker.io"]\nendpoint = ["x"]\n', "mirrors"),
            (f'{plugin}.registry.configs."x".auth]\nusername = "u"\n', "configs"),
            (f'{plugin}]\nregistry = {{ config_path = "" }}\n', "not TOML"),
            ("[", "not TOML"),
        ):
            with self.subTest(rest=rest):
                text = f"version = 2\n{rest}".encode()
                self.assertIn(word, str(self.assertRaises(Refused, with_hosts_directory, text)))


class PodmanTests(SynchronousTestCase):
    """``registries.conf.d``, which CRI-O reads, too."""

    def conf(self, fake: FakeMachine) -> str | None:
        path = "/etc/containers/registries.conf.d/regproxy.conf"
        changes = {c.path: c for c in Runtimes(fake.machine, fake.services).changes(MIRROR)}
        if path not in changes:
            return None
        made = changes[path].make(None)
        assert made is not None
        return made.decode()

    def test_mirrors(self) -> None:
        table = tomllib.loads(registries_conf(MIRROR.hosts, MIRROR.mirror))
        self.assertEqual(
            table["registry"],
            [
                {
                    "location": "docker.io",
                    "mirror": [{"location": "10.0.0.5:5000/docker.io", "insecure": True}],
                },
                {
                    "location": "reg.example.com:5000",
                    "mirror": [
                        {"location": "10.0.0.5:5000/reg.example.com_5000", "insecure": True}
                    ],
                },
            ],
        )
        self.assertNotIn("insecure", registries_conf(["x.io"], "https://m.example.net:443"))

    def test_configured_by_others(self) -> None:
        """Two entries for one registry would leave it to chance which one counts."""
        fake = trees.rhel(Path(self.mktemp()))
        fake.write("/etc/containers/registries.conf", '[[registry]]\nprefix = "docker.io"\n')
        fake.write("/etc/containers/registries.conf.d/README", "no TOML")
        text = self.conf(fake)
        assert text is not None
        (entry,) = tomllib.loads(text)["registry"]
        self.assertEqual(entry["location"], "reg.example.com:5000")
        fake.write(
            "/etc/containers/registries.conf.d/50.conf",
            '[[registry]]\nlocation = "reg.example.com:5000"\n',
        )
        self.assertIsNone(self.conf(fake))


class PresenceTests(SynchronousTestCase):
    def test_none(self) -> None:
        fake = trees.debian(Path(self.mktemp()))
        runtimes = Runtimes(fake.machine, fake.services)
        self.assertRaises(Refused, runtimes.changes, MIRROR)

    def test_containerd_of_docker(self) -> None:
        """One that does not serve Kubernetes does not pull."""
        for text in (
            'disabled_plugins = ["cri"]\n',
            'version = 3\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n',
        ):
            fake = trees.debian(Path(self.mktemp()))
            fake.daemon("docker")
            fake.daemon("containerd")
            fake.write(CONTAINERD, text)
            paths = [c.path for c in Runtimes(fake.machine, fake.services).changes(MIRROR)]
            self.assertEqual(paths, ["/etc/docker/daemon.json"])

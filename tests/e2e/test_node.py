"""The program for nodes, as processes on trees with the real programs of Debian."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.main import ENTER
from regproxy.node.node import Alone, Node
from regproxy.node.settings import Mode, Settings
from tests.support import trees
from tests.support.certificates import make_ca
from tests.support.clients import Containerd
from tests.support.kubernetes_api import KubernetesApi
from tests.support.process import Process, Result, environment, free_port, listens, run
from tests.support.programs import needs, needs_root, program
from tests.support.stage import TOKEN_HOST, EndToEndTestCase
from tests.support.trees import Snapshot, snapshot

# The tree has the machine's own /usr, but for what is below /usr/local, and files of its own for
# the rest. $0 is the tree, $1 what is mounted at /usr/local.
MOUNT: Final = """
set -e
mount --bind -o ro /usr "$0/usr"
mount --bind "$1" "$0/usr/local"
# The daemons that this machine has are none of the tree's.
mount -t tmpfs none "$0/usr/lib/systemd"
shift
exec "$@"
"""
# Stands in for systemd, and takes its time. Two at the same time would show in the log.
SYSTEMCTL: Final = """#!/bin/sh
case "$*" in *is-active*) exit 0;; esac
echo "begin $*" >> /log
sleep 0.2
echo "end $*" >> /log
"""


class Tree:
    """A Debian machine in a directory, with the real update-ca-certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = root = directory / "root"
        self.local = directory / "local"
        for path in ("etc", "usr", "run/systemd/system", "var/lib", "stand-ins", "dev", "tmp"):
            (root / path).mkdir(parents=True)
        (self.local / "share/ca-certificates").mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        # Without hooks that this machine's other packages have there.
        (root / "etc/ca-certificates/update.d").mkdir(parents=True)
        for name in ("ssl", "ca-certificates.conf"):
            run("cp", "-a", f"/etc/{name}", str(root / "etc"), env=environment()).check()
        (root / "dev/null").touch()
        (root / "etc/resolv.conf").write_text("nameserver 10.0.0.2\n")
        units = root / "etc/systemd/system"
        units.mkdir(parents=True)
        (units / "containerd.service").write_text("[Service]\n")
        (root / "stand-ins/systemctl").write_text(SYSTEMCTL)
        (root / "stand-ins/systemctl").chmod(0o755)
        # As it is on a machine where nobody has put a certificate.
        self.run("chroot", str(root), "update-ca-certificates", "--fresh").check()

    def entering(self, *command: str) -> list[str]:
        """The command line of a command that sees the tree's mounts."""
        return [
            program("unshare"),
            "--mount",
            "sh",
            "-c",
            MOUNT,
            str(self.root),
            str(self.local),
            *command,
        ]

    @property
    def env(self) -> dict[str, str]:
        """The environment: the stand-ins go before what the machine has."""
        return environment(PATH="/stand-ins:/usr/sbin:/usr/bin:/sbin:/bin")

    def run(self, *command: str) -> Result:
        """Run a command to its end."""
        return run(*self.entering(*command), env=self.env)

    def program(self, *arguments: str, **settings: str) -> tuple[list[str], dict[str, str]]:
        """Command line and environment of the program on this tree."""
        line = [
            sys.executable,
            "-m",
            "regproxy.node.main",
            f"--root={self.root}",
            f"--ca={self.directory / 'ca.crt'}",
            f"--enter=chroot {self.root}",
            *arguments,
        ]
        return self.entering(*line), self.env | settings

    def once(self, **settings: str) -> Result:
        """Run the program once, without a cluster."""
        line, env = self.program("--once", "--alone", **settings)
        return run(*line, env=env)

    def snapshot(self) -> dict[str, Snapshot]:
        """What a machine keeps. Debian's program leaves temporary files in /tmp, not we."""
        (self.root / "log").unlink(missing_ok=True)
        kept = self.root / "etc", self.root / "var/lib", self.local
        return {path.name: snapshot(path) for path in kept}

    def log(self) -> list[str]:
        """What systemctl was asked for."""
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []


@needs("unshare", "update-ca-certificates", "openssl")
@needs_root
class TreeTests(SynchronousTestCase):
    """One tree, or two that take turns."""

    maxDiff = None

    def setUp(self) -> None:
        self.proxy = Process(
            "healthz",
            [sys.executable, "-m", "http.server", "--bind=127.0.0.1", str(port := free_port())],
            log=self.directory() / "log",
            env=environment(),
        )
        self.addCleanup(self.proxy.stop)
        (self.proxy.log.parent / "healthz").write_text("ok\n")
        self.proxy.wait_until(lambda: listens(port))
        self.settings = {
            "NODE_MODE": "proxy",
            "NODE_PROXY": f"http://127.0.0.1:{port}",
            "NODE_HOSTS": "docker.io ghcr.io",
        }

    def directory(self) -> Path:
        path = Path(self.mktemp()).absolute()
        path.mkdir(parents=True)
        return path

    def tree(self) -> Tree:
        tree = Tree(self.directory())
        self.ca = make_ca("The CA of the proxy")
        (tree.directory / "ca.crt").write_bytes(self.ca.certificate_pem)
        return tree

    def trusted(self, tree: Tree) -> bool:
        """Whether the tree's openssl takes the CA's certificate by what is in its store."""
        found = tree.run(
            *("chroot", str(tree.root), "openssl", "storeutl", "-noout", "-text", "-certs"),
            "/etc/ssl/certs/ca-certificates.crt",
        )
        return "The CA of the proxy" in found.check()

    def test_twice_then_undone(self) -> None:
        tree = self.tree()
        before = tree.snapshot()
        self.assertFalse(self.trusted(tree))
        tree.once(**self.settings).check()
        self.assertTrue(self.trusted(tree))
        self.assertEqual(
            tree.log(),
            [
                "begin daemon-reload",
                "end daemon-reload",
                "begin restart containerd",
                "end restart containerd",
            ],
        )
        configured = tree.snapshot()
        tree.once(**self.settings).check()
        self.assertEqual(tree.log(), [])
        self.assertEqual(tree.snapshot(), configured)
        tree.once(NODE_MODE="undo").check()
        self.assertFalse(self.trusted(tree))
        self.assertEqual(tree.snapshot(), before)

    def test_two_nodes_of_a_cluster(self) -> None:
        """They restart their containerd one after the other, and say that they are done."""
        api = KubernetesApi(self.directory() / "api", "one", "two")
        self.addCleanup(api.close)
        log = self.directory() / "log"
        log.touch()
        processes = []
        for name in ("one", "two"):
            tree = self.tree()
            (tree.root / "log").touch()
            ready = tree.directory / "ready"
            line, env = tree.program(
                f"--account={api.account}", f"--ready={ready}", "--interval=3600"
            )
            # Both write into one log.
            start = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1"; shift; exec "$@"']
            line = [*start, str(log), str(tree.root / "log"), *line]
            names = {"NODE_NAME": name, "NODE_NAMESPACE": "regproxy-node"}
            process = Process(
                name,
                line,
                log=tree.directory / "program.log",
                env=env | self.settings | api.environ | names,
            )
            self.addCleanup(process.stop)
            processes.append((process, ready))
        for process, ready in processes:
            process.wait_until(ready.exists)
        steps = log.read_text().splitlines()
        expected = [
            f"{when} {what}"
            for what in ("daemon-reload", "restart containerd")
            for when in ("begin", "end")
        ]
        self.assertEqual(steps, expected * 2)
        self.assertEqual(
            api.labels, {"one": {"regproxy/node": "proxy"}, "two": {"regproxy/node": "proxy"}}
        )
        # SIGTERM ends it at once, when it has nothing to do.
        for process, _ in processes:
            process.stop()
            self.assertEqual(process.wait(), 0)


@needs("docker-registry", "htpasswd", "skopeo", *Containerd.programs)
@needs_root
class PullTests(EndToEndTestCase):
    """Pulls by a containerd that has been told by what the program writes, and by nothing else."""

    def containerd(self, url: str, settings: Settings) -> Containerd:
        """One whose way out is *url*, that trusts no CA by itself."""
        ca_file = self.new_directory() / "other.crt"
        ca_file.write_bytes(make_ca("Of somebody else").certificate_pem)
        client = Containerd(self.new_directory(), url, ca_file)
        self.addCleanup(client.close)
        fake = trees.debian(self.new_directory() / "machine")
        fake.daemon("containerd")
        Node(fake.machine, fake.services, Alone(), lambda _: None, lambda _: None).configure(
            settings
        )
        for host in settings.hosts:
            directory = f"/etc/containerd/certs.d/{host}"
            text = fake.read(f"{directory}/hosts.toml")
            client.configure(host, text.replace(directory, f"{fake.root}{directory}"))
        return client

    def test_certificates(self) -> None:
        """The CA of hosts.toml does for the registry and for its token service."""
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository)
        proxy = self.stage.proxy
        settings = Settings(
            Mode.PROXY,
            proxy=proxy.url,
            hosts=(TOKEN_HOST,),
            ca=proxy.ca_file.read_bytes(),
        )
        client = self.containerd(proxy.url, settings)
        reference = f"{TOKEN_HOST}/{repository}:latest"
        client.pull(reference).check()
        self.assertEqual(client.image_id(reference), image.image_id)
        (client.directory / "certs.d" / TOKEN_HOST / "hosts.toml").unlink()
        client.clear()
        self.assertIn("certificate", client.pull(reference).output)

    def test_mirror(self) -> None:
        """It is asked, and it is all that is asked."""
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository)
        mirror = self.stage.mirror
        self.watch(mirror.process)
        settings = Settings(
            Mode.MIRROR, mirror=f"http://{mirror.authority}", hosts=(TOKEN_HOST, "_default")
        )
        # Nobody listens where its way out would be.
        client = self.containerd(f"http://127.0.0.1:{free_port()}", settings)
        reference = f"{TOKEN_HOST}/{repository}:latest"
        client.pull(reference).check()
        self.assertEqual(client.image_id(reference), image.image_id)


@needs("nsenter", "unshare")
@needs_root
class EnterTests(SynchronousTestCase):
    """The way into a machine from a container."""

    def test_programs_of_the_machine(self) -> None:
        """They run in its namespaces: as a process of its first one's."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        machine = Process(
            "machine",
            # A name of its own, and no other mark is needed.
            ["unshare", "--mount", "--uts", "sh", "-c", "hostname machine.test; echo up; sleep 60"],
            log=directory / "log",
            env=environment(),
        )
        self.addCleanup(machine.stop)
        machine.wait_until(lambda: "up" in machine.read_log())
        line = ENTER.replace("--target 1 ", f"--target {machine.pid} ").split()
        self.assertNotEqual(line, ENTER.split())
        found = run(*line, "hostname", env=environment())
        self.assertEqual(found.check(), "machine.test\n")


@needs("containerd")
class ContainerdTests(SynchronousTestCase):
    """What the real containerd makes of its configuration."""

    def test_config_path(self) -> None:
        """Its own default, with the empty path in it, and none at all."""
        default = run(program("containerd"), "config", "default", env=environment()).check()
        for text in (default, "version = 2\n", None):
            with self.subTest(text=text and text[:20]):
                directory = Path(self.mktemp()).absolute()
                (directory / "etc/containerd").mkdir(parents=True)
                (directory / "run/systemd/system").mkdir(parents=True)
                (directory / "etc/systemd/system").mkdir(parents=True)
                (directory / "etc/systemd/system/containerd.service").touch()
                config = directory / "etc/containerd/config.toml"
                if text is not None:
                    config.write_text(text)
                self.configure(directory)
                dump = run(
                    *(program("containerd"), "--config", str(config), "config", "dump"),
                    env=environment(),
                ).check()
                table = tomllib.loads(dump[dump.index("disabled_plugins") :])
                registry = table["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
                self.assertEqual(registry["config_path"], "/etc/containerd/certs.d")
                shutil.rmtree(directory)

    def configure(self, root: Path) -> None:
        mirror = Process(
            "v2",
            [sys.executable, "-m", "http.server", "--bind=127.0.0.1", str(port := free_port())],
            log=root / "log",
            env=environment(),
        )
        self.addCleanup(mirror.stop)
        (root / "v2").mkdir()
        mirror.wait_until(lambda: listens(port))
        env = environment(
            NODE_MODE="mirror", NODE_MIRROR=f"http://127.0.0.1:{port}", NODE_HOSTS="docker.io"
        )
        line = [sys.executable, "-m", "regproxy.node.main", f"--root={root}", "--enter=true"]
        run(*line, "--once", "--alone", env=env).check()
        mirror.stop()

"""The DaemonSet's container, run by dockerd on the files of a Debian: ``make e2e-kubernetes``."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import Any, Final

from tests.e2e.image import ImageTestCase
from tests.support.appliance import MATERIAL
from tests.support.manifests import DEPLOY, kustomize
from tests.support.process import Result, environment, run
from tests.support.programs import needs, program
from tests.support.trees import Snapshot, snapshot

#: Stands in for the systemd that a machine has, and is asked in the same words.
SYSTEMCTL: Final = '#!/bin/sh\necho "$@" >> /run/asked\n'


@needs("kustomize", "chroot")
class NodeTests(ImageTestCase):
    """The program of the image, on the root directory of a machine with Debian's programs."""

    def setUp(self) -> None:
        super().setUp()
        self.container: dict[str, Any]
        manifests = kustomize(DEPLOY / "kubernetes/overlays/mirror")
        (self.container,) = manifests.pod("DaemonSet")["containers"]

    def make_machine(self) -> None:
        """A Debian with containerd, as far as files tell."""
        self.root = self.directory / "root"
        self.root.mkdir()
        with tarfile.open(MATERIAL / "base.tar") as archive:
            archive.extractall(self.root, filter="fully_trusted")
        self.put("etc/systemd/system/containerd.service", "[Service]\n")
        self.put("usr/bin/systemctl", SYSTEMCTL)
        (self.root / "usr/bin/systemctl").chmod(0o755)
        (self.root / "run/systemd/system").mkdir(parents=True)
        (self.root / "dev").mkdir()
        os.mknod(self.root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        self.put("etc/resolv.conf", "nameserver 10.0.0.2\n")
        (self.directory / "ca").mkdir()
        (self.directory / "ca/ca.crt").write_bytes(self.site.ca.certificate_pem)
        # As on a machine that has been set up.
        chroot = program("chroot"), str(self.root)
        run(*chroot, "update-ca-certificates", "--fresh", env=environment()).check()

    def put(self, name: str, text: str) -> None:
        """Have a file on the machine."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run_program(self, *settings: str) -> Result:
        """Run the DaemonSet's container once: its command, its mounts, its user.

        It does not enter the namespaces of a machine here, so that it needs no more privilege
        than Docker gives to root.
        """
        (ready,) = (word for word in self.container["command"] if word.startswith("--ready="))
        self.assertEqual(Path(ready).parent.name, "regproxy-node")
        mounts = {
            "host": f"{self.root}:/host",
            "ca": f"{self.directory / 'ca'}:/ca:ro",
            "run": None,
        }
        self.assertEqual({m["name"] for m in self.container["volumeMounts"]}, set(mounts))
        user = self.container["securityContext"]["runAsUser"]
        options = [f"--user={user}:0", "--read-only", "--network=host"]
        options += [f"--volume={mount}" for mount in mounts.values() if mount]
        options += ["--tmpfs=/run/regproxy-node", *(f"--env={each}" for each in settings)]
        first, *rest = self.container["command"]
        # The machine's processes are those of a chroot: this Debian has not been started.
        once = "--once", "--alone", "--enter=chroot /host"
        return self.host.docker(
            "run", "--rm", f"--entrypoint={first}", *options, self.site.image, *rest, *once
        )

    def snapshot(self) -> Snapshot:
        """What the machine keeps."""
        kept = snapshot(self.root)
        return {path: kept[path] for path in kept if path.partition("/")[0] not in ("run", "tmp")}

    def asked(self) -> list[str]:
        """What systemd was asked to do, since the last look."""
        file = self.root / "run/asked"
        lines = file.read_text().splitlines() if file.exists() else []
        file.write_text("")
        return [line for line in lines if "is-active" not in line]

    def test_configured_and_undone(self) -> None:
        self.make_machine()
        # The proxy that the node is pointed at: the container's host network is its own.
        config = self.directory / "proxy.toml"
        config.write_text('data = "/var/lib/regproxy"\n')
        self.host.docker(
            *("run", "--detach", "--name=node-proxy", "--network=host", "--health-interval=1s"),
            f"--volume={config}:/etc/regproxy/regproxy.toml:ro",
            self.site.image,
        ).check()
        self.addCleanup(self.host.docker, "rm", "--force", "node-proxy")
        self.host.wait_until_up("node-proxy")
        before = self.snapshot()
        settings = (
            *("NODE_MODE=proxy", "NODE_PROXY=http://127.0.0.1:3128"),
            "NODE_HOSTS=docker.io ghcr.io",
        )
        self.run_program(*settings).check()
        self.assertEqual(self.asked(), ["daemon-reload", "restart containerd"])
        bundle = (self.root / "etc/ssl/certs/ca-certificates.crt").read_bytes()
        self.assertIn(self.site.ca.certificate_pem, bundle)
        done = self.snapshot()
        self.run_program(*settings).check()
        self.assertEqual((self.snapshot(), self.asked()), (done, []))
        self.run_program("NODE_MODE=undo").check()
        self.assertEqual(self.snapshot(), before)

    def test_way_into_the_machine(self) -> None:
        """The image has what the program enters namespaces with."""
        answer = self.host.docker("run", "--rm", "--entrypoint=nsenter", self.site.image, "-V")
        self.assertIn("util-linux", answer.check())

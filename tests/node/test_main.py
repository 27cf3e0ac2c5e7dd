"""The command line of the program."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node import reach
from regproxy.node.cluster import Api, Cluster
from regproxy.node.main import main
from tests.support import trees
from tests.support.kubernetes_api import KubernetesApi

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


class MainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = trees.debian(Path(self.mktemp()))
        self.fake.daemon("containerd")
        self.ready = Path(self.mktemp())
        ca = Path(self.mktemp())
        ca.write_text(CA)
        self.arguments = [
            "--once",
            f"--root={self.fake.root}",
            f"--ca={ca}",
            f"--ready={self.ready}",
            # Each command ends well.
            "--enter=true",
        ]
        environ = {"NODE_MODE": "proxy", "NODE_PROXY": "http://x:1", "NODE_HOSTS": "ghcr.io"}
        self.patch(os, "environ", dict(os.environ) | environ)
        self.patch(reach, "check", lambda _: None)
        for number in signal.SIGTERM, signal.SIGINT:
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def main(self, *arguments: str, **environ: str) -> int:
        os.environ.update(environ)
        return main([*self.arguments, *arguments])

    def test_alone(self) -> None:
        before = self.fake.snapshot()
        self.assertEqual(self.main("--alone"), 0)
        self.assertTrue(self.ready.exists())
        self.assertTrue(self.fake.machine.exists("/etc/containerd/certs.d/ghcr.io/hosts.toml"))
        self.assertEqual(self.main("--alone", NODE_MODE="undo"), 0)
        self.assertEqual(self.fake.snapshot(), before)

    def test_failure(self) -> None:
        """It is not ready any more, and says why."""
        self.ready.touch()
        before = self.fake.snapshot()
        self.assertEqual(self.main("--alone", "--enter=false"), 1)
        self.assertFalse(self.ready.exists())
        self.assertEqual(self.main("--alone", NODE_HOSTS=""), 1)
        self.assertEqual(self.fake.snapshot(), before | self.left_by_failed_undo())

    def left_by_failed_undo(self) -> trees.Snapshot:
        """With a store of certificates that cannot be made anew, it is due to be."""
        now = self.fake.snapshot()
        return {path: now[path] for path in now if path.startswith("var/lib/regproxy-node")}

    def test_cluster(self) -> None:
        api = KubernetesApi(Path(self.mktemp()), "one")
        self.addCleanup(api.close)
        environ = api.environ | {"NODE_NAME": "one", "NODE_NAMESPACE": "regproxy-node"}
        self.assertEqual(self.main(f"--account={api.account}", **environ), 0)
        self.assertEqual(api.labels["one"], {"regproxy/node": "proxy"})
        self.assertEqual(api.holder, "")

    def test_told_to_end(self) -> None:
        """It does not wait for its turn, and changes nothing."""
        api = KubernetesApi(Path(self.mktemp()), "one")
        self.addCleanup(api.close)
        before = self.fake.snapshot()
        # The last thing before it waits.
        self.patch(reach, "check", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        environ = api.environ | {"NODE_NAME": "one", "NODE_NAMESPACE": "regproxy-node"}
        other = Cluster(Api.of_pod(api.environ, api.account), "regproxy-node", "two")
        with other.turn():
            self.assertRaises(SystemExit, self.main, f"--account={api.account}", **environ)
            self.assertEqual(api.holder, "two")
        self.assertEqual(self.fake.snapshot(), before)

    def test_no_cluster(self) -> None:
        """Outside of one, somebody has to say that this is meant."""
        self.assertEqual(self.main(), 1)
        self.assertEqual(self.main(NODE_NAME="one", NODE_NAMESPACE="x"), 1)
        self.assertFalse(self.ready.exists())

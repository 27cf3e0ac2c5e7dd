"""Turns and labels, against an API server on the loopback interface."""

from __future__ import annotations

import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.cluster import LABEL, LEASE, LEASE_DURATION, Api, Cluster
from regproxy.node.errors import ClusterError
from tests.support.kubernetes_api import KubernetesApi

SPACE = "regproxy-node"


class Time:
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += 1

    def __call__(self) -> float:
        return self.now


class ClusterTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.api = KubernetesApi(Path(self.mktemp()), "one", "two")
        self.addCleanup(self.api.close)
        self.time = Time()

    def cluster(self, node: str) -> Cluster:
        api = Api.of_pod(self.api.environ, self.api.account)
        return Cluster(api, SPACE, node, sleep=self.time.sleep, clock=self.time)


class TurnTests(ClusterTestCase):
    """One machine at a time."""

    def test_first(self) -> None:
        """The lease is made, held during the turn, and nobody's afterwards."""
        with self.cluster("one").turn():
            self.assertEqual(self.api.holder, "one")
        self.assertEqual(self.api.holder, "")
        lease = self.api.leases[f"{SPACE}/{LEASE}"]
        self.assertEqual(lease["spec"]["leaseDurationSeconds"], LEASE_DURATION)
        self.assertRegex(lease["spec"]["renewTime"], r"^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z$")
        self.assertEqual(lease["spec"]["leaseTransitions"], 1)

    def test_given_up_after_an_error(self) -> None:
        def fails() -> None:
            with self.cluster("one").turn():
                raise RuntimeError("broken")

        self.assertRaises(RuntimeError, fails)
        self.assertEqual(self.api.holder, "")

    def test_waits(self) -> None:
        """A lease that is held is waited for, while its holder lives and writes."""
        waits: list[str | None] = []

        def sleeping(seconds: float) -> None:
            waits.append(self.api.holder)
            self.time.sleep(LEASE_DURATION / 2)
            self.api.hold("one" if len(waits) < 10 else "")

        with self.cluster("one").turn():
            pass
        self.api.hold("one")
        two = Cluster(self.cluster("two").api, SPACE, "two", sleep=sleeping, clock=self.time)
        with two.turn():
            self.assertEqual(self.api.holder, "two")
        self.assertEqual(waits, ["one"] * 10)

    def test_holder_that_is_gone(self) -> None:
        """Its lease is taken when it has not changed for its duration."""
        with self.cluster("one").turn():
            with self.cluster("two").turn():
                self.assertEqual(self.api.holder, "two")
            self.assertGreater(self.time.now, LEASE_DURATION)
            self.assertLess(self.time.now, LEASE_DURATION + 20)
        # The first one comes back, and does not take away what is not its own.
        self.assertEqual(self.api.holder, "")

    def test_own_lease_from_before_a_crash(self) -> None:
        cluster = self.cluster("one")
        with cluster.turn(), cluster.turn():
            self.assertEqual(self.time.slept, 0)
        self.api.hold("one")
        self.cluster("two").release()
        self.assertEqual(self.api.holder, "one")
        cluster.release()
        self.assertEqual(self.api.holder, "")

    def test_contention(self) -> None:
        """Many at the same moment: never two, and all have their turn."""
        inside: list[str] = []
        most: list[int] = []
        lock = threading.Lock()

        def work(name: str) -> None:
            api = Api.of_pod(self.api.environ, self.api.account)
            # A real clock would make them wait for seconds.
            pause = threading.Event()
            for _ in range(3):
                cluster = Cluster(api, SPACE, name, sleep=lambda _: pause.wait(0.005))
                with cluster.turn():
                    with lock:
                        inside.append(name)
                        most.append(len(inside))
                    pause.wait(0.01)
                    with lock:
                        inside.remove(name)

        threads = [threading.Thread(target=work, args=(f"node-{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(most, [1] * 12)
        self.assertEqual(self.api.holder, "")

    def test_race(self) -> None:
        """Who writes on what another has written meanwhile has not got it."""
        one, two = self.cluster("one"), self.cluster("two")
        with one.turn():
            pass
        lease = two._lease()
        self.assertTrue(one._put(one._lease(), "one"))
        self.assertFalse(two._put(lease, "two"))
        self.assertEqual(self.api.holder, "one")
        self.assertIn(409, [status for _, _, status in self.api.log])

    def test_two_make_the_lease(self) -> None:
        one, two = self.cluster("one"), self.cluster("two")
        self.assertIsNotNone(one._create())
        self.assertIsNone(two._create())


class LabelTests(ClusterTestCase):
    """What the node says."""

    def test_label(self) -> None:
        cluster = self.cluster("one")
        cluster.label("proxy")
        self.assertEqual(self.api.labels, {"one": {LABEL: "proxy"}, "two": {}})
        cluster.label("failed")
        self.assertEqual(self.api.labels["one"], {LABEL: "failed"})
        cluster.label(None)
        self.assertEqual(self.api.labels["one"], {})

    def test_no_such_node(self) -> None:
        error = self.assertRaises(ClusterError, self.cluster("three").label, "proxy")
        self.assertIn("was answered 404", str(error))


class ApiTests(ClusterTestCase):
    """The way to the API server."""

    def test_token_is_read_each_time(self) -> None:
        cluster = self.cluster("one")
        (self.api.account / "token").write_text("old")
        error = self.assertRaises(ClusterError, cluster.label, "proxy")
        self.assertIn("was answered 401", str(error))
        self.assertNotIn("old", str(error))
        (self.api.account / "token").write_text("the-token-of-the-account")
        cluster.label("proxy")

    def test_other_authority(self) -> None:
        """A server whose certificate is not the cluster's gets no token."""
        other = KubernetesApi(Path(self.mktemp()), "one")
        self.addCleanup(other.close)
        api = Api.of_pod(other.environ, self.api.account)
        error = self.assertRaises(ClusterError, Cluster(api, SPACE, "one").label, "proxy")
        self.assertIn("certificate verify failed", str(error))
        self.assertEqual(other.log, [])

    def test_no_pod(self) -> None:
        self.assertRaises(ClusterError, Api.of_pod, {}, self.api.account)
        self.assertRaises(ClusterError, Api.of_pod, self.api.environ, Path(self.mktemp()))

    def test_gone(self) -> None:
        api = KubernetesApi(Path(self.mktemp()), "one")
        cluster = Cluster(Api.of_pod(api.environ, api.account), SPACE, "one")
        api.close()
        self.assertRaises(ClusterError, cluster.release)

    def test_ipv6(self) -> None:
        environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
        self.assertEqual(Api.of_pod(environ, self.api.account).url, "https://[fd00::1]:443")

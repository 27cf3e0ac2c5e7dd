"""Each benchmark works: small sizes, one run, and what is measured is what should be."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench import table
from bench.case import SUBJECT, Case, Samples, run
from bench.cases import (
    big_store,
    cold,
    crowd,
    handshakes,
    herd,
    memory,
    pull,
    small,
    warm_mirror,
    warm_tls,
)
from bench.peers.drayage import drayage
from bench.peers.squid import squid
from bench.setting import TINY, Setting
from tests.support.programs import needs, needs_root

# Not on every machine that runs tests; "make bench" has them all.
_HEAVY = frozenset({drayage, squid})


class SmokeTestCase(SynchronousTestCase):
    """One run of a benchmark. That content is right and comes from a cache, the cases see to."""

    def measure(self, case: Case) -> Samples:
        """The samples of *case*, which are all there, and can be shown."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        samples = run(case, Setting(directory, TINY, without=_HEAVY), runs=1)
        self.assertIn(SUBJECT, samples)
        for figure in case.figures:
            values = [
                sample[figure.name] for (sample,) in samples.values() if figure.name in sample
            ]
            self.assertTrue(values, f"nobody has {figure.name}")
            # Of so little: the clients' share, and what a store takes of memory.
            least = 0.0 if figure.name in ("client", "grown") else 1e-9
            self.assertGreaterEqual(min(values), least, f"{figure.name}: {values}")
        self.assertEqual(len(table.text(case, samples)), 1 + len(case.figures) + len(case.targets))
        return samples


@needs("curl", "nginx")
class BodyTests(SmokeTestCase):
    """The benchmarks that move blobs."""

    def test_warm_tls(self) -> None:
        samples = self.measure(warm_tls.CASE)
        self.assertEqual(set(samples), {SUBJECT, "nginx", "static.File"})

    @needs("docker-registry")
    def test_warm_mirror(self) -> None:
        samples = self.measure(warm_mirror.CASE)
        self.assertEqual(set(samples), {SUBJECT, "docker-registry"})

    def test_crowd(self) -> None:
        samples = self.measure(crowd.CASE)
        self.assertEqual(set(samples), {SUBJECT, "nginx"})

    def test_cold(self) -> None:
        samples = self.measure(cold.CASE)
        self.assertEqual(set(samples), {SUBJECT, "nginx"})

    def test_herd(self) -> None:
        """However many clients, the upstream is asked once."""
        samples = self.measure(herd.CASE)
        self.assertEqual(set(samples), {SUBJECT, "nginx", herd.ALONE})
        (sample,) = samples[SUBJECT]
        self.assertEqual(sample["gets"], 1)

    def test_memory(self) -> None:
        self.measure(memory.CASE)


@needs("curl", "nginx", "docker-registry")
class RequestTests(SmokeTestCase):
    """The benchmarks that make many small requests."""

    def test_small(self) -> None:
        self.measure(small.CASE)

    def test_handshakes(self) -> None:
        self.measure(handshakes.CASE)


class StoreTests(SmokeTestCase):
    """The benchmark without an upstream."""

    def test_big_store(self) -> None:
        self.measure(big_store.CASE)


@needs_root
@needs("docker-registry", "skopeo", "dockerd", "docker", "containerd", "ctr")
class PullTests(SmokeTestCase):
    """The benchmark of real clients."""

    def test_pull(self) -> None:
        samples = self.measure(pull.CASE)
        self.assertEqual(set(samples), {SUBJECT, "straight"})

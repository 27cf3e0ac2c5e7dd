"""Results go to a file and come back; what takes part tells its version."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.results import Results, versions
from tests.support.programs import needs


class ResultsTests(SynchronousTestCase):
    """``Results``."""

    def test_file(self) -> None:
        samples = {"regproxy": [{"rate": 1.5}], "nginx": [{"rate": 2.0}]}
        results = Results("2031-05-06", {"memory": "1 GiB"}, {"nginx": "1.2"}, {"race": samples})
        path = Path(self.mktemp()) / "new" / "results.json"
        results.write(path)
        self.assertEqual(Results.read(path), results)


class VersionTests(SynchronousTestCase):
    """``versions``."""

    @needs("nginx", "docker-registry", "dockerd", "skopeo")
    def test_numbers(self) -> None:
        found = versions()
        self.assertLess({"nginx", "docker-registry", "dockerd", "skopeo"}, set(found))
        for name, number in found.items():
            self.assertRegex(number, r"^\d+\.\d", name)

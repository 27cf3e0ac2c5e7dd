"""The dashboard and the alerts in ``deploy/``: they use what ``/metrics`` has, and work."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.support.metrics import MetricsCase
from tests.support.programs import needs, program

ROOT: Final = Path(__file__).resolve().parent.parent
DASHBOARD: Final = ROOT / "deploy/grafana/regproxy.json"
ALERTS: Final = ROOT / "deploy/prometheus/alerts.yml"
ALERTS_TEST: Final = ROOT / "tests/alerts_test.yml"

# Which Prometheus itself adds.
SCRAPED: Final = {"job", "instance"}


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Everything that the dashboard asks Prometheus."""
    variables = dashboard()["templating"]["list"]
    return [
        *(target["expr"] for panel in panels() for target in panel["targets"]),
        *(each["query"]["query"] for each in variables if each["type"] == "query"),
    ]


def uses(text: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics in PromQL of *text*, and the labels by which they are chosen."""
    for match in re.finditer(r"\b((?:regproxy|process|python)_\w+)(?:\{(.*?)\})?", text):
        yield match[1], set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', match[2] or ""))


class NamesTests(MetricsCase):
    """Every metric is one that the page has, with these labels."""

    def shown(self) -> dict[str, set[str]]:
        """What the page has: the labels by the names of the samples."""
        self.fill()
        samples = [sample for family in self.families().values() for sample in family.samples]
        shown: dict[str, set[str]] = {sample.name: set() for sample in samples}
        for sample in samples:
            shown[sample.name] |= set(sample.labels)
        return shown

    def check(self, text: str) -> None:
        shown = self.shown()
        used = list(uses(text))
        self.assertTrue(used)
        for name, labels in used:
            self.assertIn(name, shown)
            self.assertLessEqual(labels, shown[name] | SCRAPED, name)

    def test_dashboard(self) -> None:
        self.check("\n".join(queries()))

    def test_alerts(self) -> None:
        self.check(ALERTS.read_text())

    def test_uses(self) -> None:
        """They are found, however they stand."""
        text = (
            'sum by (le) (rate(regproxy_a_total{x="1", y!~"b|c"}[5m])) / process_b and python_c{}'
        )
        found = [("regproxy_a_total", {"x", "y"}), ("process_b", set()), ("python_c", set())]
        self.assertEqual(list(uses(text)), found)

    @needs("promtool")
    def test_page(self) -> None:
        """What Prometheus says of the page itself."""
        self.fill()
        promtool("check", "metrics", given=self.own(self.page()))

    def own(self, page: str) -> str:
        """Without the metrics that are the client library's."""
        families = re.split(r"^(?=# HELP )", page, flags=re.MULTILINE)
        return "".join(each for each in families if each.startswith("# HELP regproxy_"))


class DashboardTests(SynchronousTestCase):
    """The dashboard can be imported, and looked at."""

    def test_panels(self) -> None:
        """Each is told apart and says what it shows, and none covers another."""
        found = dashboard()["panels"]
        self.assertEqual(len({panel["id"] for panel in found}), len(found))
        self.assertEqual(len({panel["title"] for panel in found}), len(found))
        for panel in panels():
            self.assertTrue(panel["description"], panel["title"])
            self.assertEqual(panel["datasource"]["uid"], "${datasource}")
            letters = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(set(letters)), len(letters))
        for panel in found:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24)
        for one, other in combinations(found, 2):
            self.assertTrue(apart(one["gridPos"], other["gridPos"]), (one["title"], other["title"]))

    def test_variables(self) -> None:
        """Those that are used are there, and the other way round."""
        own = {variable["name"] for variable in dashboard()["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)\}?", DASHBOARD.read_text()))
        self.assertEqual({each for each in used if not each.startswith("__")}, own)

    @needs("promtool")
    def test_expressions(self) -> None:
        """Prometheus can read them."""
        rules = []
        for number, panel in enumerate(panels()):
            for target in panel["targets"]:
                expression = re.sub(r"\$__(?:rate_interval|range)\b", "5m", target["expr"])
                rules.append({"record": f"a{number}_{target['refId']}", "expr": expression})
        path = Path(self.mktemp())
        # What is JSON is YAML.
        path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
        promtool("check", "rules", str(path))


@needs("promtool")
class AlertsTests(SynchronousTestCase):
    """The alerts can be loaded, and do what they say."""

    def test_rules(self) -> None:
        promtool("check", "rules", str(ALERTS))

    def test_firing(self) -> None:
        """With figures like these, and not with those."""
        promtool("test", "rules", str(ALERTS_TEST))

    def test_all(self) -> None:
        """None is left out there."""
        alerts = re.findall(r"^ +- alert: (\w+)$", ALERTS.read_text(), re.MULTILINE)
        self.assertEqual(sorted(alerts), sorted(set(alerts)))
        tested = re.findall(r'alertname="(\w+)"', ALERTS_TEST.read_text())
        self.assertEqual(set(tested), set(alerts))


def apart(one: dict[str, int], other: dict[str, int]) -> bool:
    """Whether these rectangles have nothing in common."""
    return any(
        a[start] + a[length] <= b[start]
        for start, length in (("x", "w"), ("y", "h"))
        for a, b in ((one, other), (other, one))
    )


def promtool(*arguments: str, given: str = "") -> None:
    """Have Prometheus's own tool check something.

    Raises:
        AssertionError: it has found a fault, and says which.
    """
    done = subprocess.run(
        [program("promtool"), *arguments], input=given, capture_output=True, text=True, timeout=60
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output

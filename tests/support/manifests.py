"""What kustomize and helm make of the files in ``deploy/``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.process import Result, environment, run
from tests.support.programs import program

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DEPLOY: Final = ROOT / "deploy"
CHART: Final = DEPLOY / "helm/regproxy"
#: Helm takes a cluster of this version, where there is none.
KUBERNETES: Final = "1.34.0"

Manifest = dict[str, Any]


class Manifests:
    """The objects of one rendering."""

    def __init__(self, text: str) -> None:
        self.objects: list[Manifest] = [each for each in yaml.safe_load_all(text) if each]

    def all(self, kind: str) -> list[Manifest]:
        """Those of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        """The only one of a kind."""
        (found,) = self.all(kind)
        return found

    def pod(self, kind: str) -> Manifest:
        """The pod of the only workload of a kind."""
        spec: Manifest = self.one(kind)["spec"]["template"]["spec"]
        return spec

    def setting(self, key: str) -> str:
        """What the only ConfigMap with this key has there."""
        (found,) = (each["data"][key] for each in self.all("ConfigMap") if key in each["data"])
        assert isinstance(found, str)
        return found


@cache
def kustomize(directory: Path) -> Manifests:
    """What ``kustomize build`` makes of a directory."""
    return Manifests(run(program("kustomize"), "build", str(directory), env=_env()).check())


def helm(*values: str, name: str = "regproxy") -> Result:
    """What ``helm template`` says with some values: ``key=value``."""
    options = [option for value in values for option in ("--set", value)]
    return run(
        *(program("helm"), "template", name, str(CHART), "--namespace", "regproxy"),
        *("--kube-version", KUBERNETES, *options),
        env=_env(),
    )


@cache
def chart(values: Sequence[str]) -> Manifests:
    """The objects that the chart makes with some values."""
    return Manifests(helm(*values).check())


def _env() -> dict[str, str]:
    # Neither a configuration of the user's nor a cluster of theirs.
    return environment(HOME="/nonexistent", KUBECONFIG="/nonexistent")

"""Whether the API server would take what is made of the files in ``deploy/``."""

from __future__ import annotations

import kubernetes_validate  # type: ignore[import-untyped]

from tests.deploy.case import (
    OVERLAYS,
    VERSIONS,
    ManifestTestCase,
)
from tests.support.manifests import kustomize


class SchemaTests(ManifestTestCase):
    def test_schemas(self) -> None:
        """The API server would take all of them."""
        count = 0
        for name, manifests in self.renderings().items():
            for each in manifests.objects:
                if each["apiVersion"] == "monitoring.coreos.com/v1":
                    continue
                for version in VERSIONS:
                    with self.subTest(rendering=name, kind=each["kind"], version=version):
                        kubernetes_validate.validate(each, version, strict=True)
                        count += 1
        self.assertGreater(count, 200)

    def test_schemas_refuse(self) -> None:
        """Or they would tell nothing."""
        pod = kustomize(OVERLAYS / "proxy").one("StatefulSet")
        broken = pod | {"spec": pod["spec"] | {"replica": 1}}
        self.assertRaises(
            kubernetes_validate.ValidationError,
            *(kubernetes_validate.validate, broken, VERSIONS[1]),
            strict=True,
        )

    def test_names_are_unique(self) -> None:
        for name, manifests in self.renderings().items():
            with self.subTest(rendering=name):
                keys = [
                    (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
                    for each in manifests.objects
                ]
                self.assertEqual(len(keys), len(set(keys)))

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest, Tag
from regproxy.oci.references import ImageName, ReferenceInvalid, RepositoryName
from tests.oci.strategies import hosts, references, repositories

DIGEST = str(Digest.of(b""))

# A host is known by its dot or its port, and Docker Hub's own by none.
_registries = hosts.filter(lambda host: "." in str(host) or ":" in str(host)).map(
    lambda host: host.canonical
)


class ImageNameTests(SynchronousTestCase):
    @given(st.builds(ImageName, _registries, repositories, references))
    def test_round_trip(self, name: ImageName) -> None:
        self.assertEqual(ImageName.parse(str(name)), name)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """It is read or refused; what is read is the same when it is written out."""
        try:
            name = ImageName.parse(text)
        except ReferenceInvalid as error:
            self.assertIn("invalid image", error.message)
        else:
            self.assertEqual(ImageName.parse(str(name)), name)

    def test_as_people_write(self) -> None:
        for text, whole in (
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("grafana/grafana:11", "docker.io/grafana/grafana:11"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/library/debian", "docker.io/library/debian:latest"),
            ("registry-1.docker.io/library/debian", "docker.io/library/debian:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("GHCR.io/o/app", "ghcr.io/o/app:latest"),
            (f"ghcr.io/o/app@{DIGEST}", f"ghcr.io/o/app@{DIGEST}"),
            (f"ghcr.io/o/app:1.2@{DIGEST}", f"ghcr.io/o/app@{DIGEST}"),
        ):
            self.assertEqual(str(ImageName.parse(text)), whole)

    def test_tag(self) -> None:
        self.assertEqual(ImageName.parse("debian:12").tag, Tag("12"))
        self.assertIs(ImageName.parse(f"debian:12@{DIGEST}").tag, None)

    def test_refused(self) -> None:
        for text in (
            "",
            "/",
            "Debian",
            "debian:",
            "debian@",
            "a.b/",
            "a b",
            "debian@sha256:ab",
            "a//b",
        ):
            error = self.assertRaises(ReferenceInvalid, ImageName.parse, text)
            self.assertIn(repr(text), error.message)


class RepositoryNameTests(SynchronousTestCase):
    def test_names(self) -> None:
        for text, whole in (("debian", "docker.io/library/debian"), ("a.b:1/c/d", "a.b:1/c/d")):
            self.assertEqual(str(RepositoryName.parse(text)), whole)

    def test_refused(self) -> None:
        for text in "", "debian:12", "a.b/c:1":
            self.assertRaises(ReferenceInvalid, RepositoryName.parse, text)

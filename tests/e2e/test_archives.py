"""Archives of ``regproxy export`` in the hands of other programs, and theirs in its own."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.clients import Containerd, Docker, Podman, Skopeo
from tests.support.commands import CommandCase
from tests.support.images import Image, image, index
from tests.support.programs import needs, needs_root

NAME = "ghcr.io/o/a:1"


class ArchiveCase(CommandCase):
    """Has an image that can be exported, and is away from the network."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.no_ca = self.directory / "none.crt"
        self.image = image(2, 10_000)

    def export(self, *arguments: str) -> Path:
        """The archive of NAME."""
        path = self.directory / "ours.tar"
        self.succeed("export", NAME, *arguments, str(path))
        return path

    def import_(self, path: Path, *arguments: str) -> str:
        """The digest of the image of the archive, which was imported under one name."""
        self.api.images.clear()
        self.api.contents.clear()
        out = self.succeed("import", str(path), *arguments).stdout
        return str(json.loads(out)["digest"])

    def assert_same_layers(self, made: Image) -> None:
        """What was imported last is *made*, whose layers may be compressed or not."""
        [reference] = self.api.images
        tree = self.api.tree(reference)["manifest"]
        self.assertEqual(tree["config"]["digest"], made.image_id)
        config = json.loads(made.blobs[0].content)
        self.assertEqual(len(tree["layers"]), len(config["rootfs"]["diff_ids"]))
        self.assertTrue(all(layer["stored"] for layer in tree["layers"]))


@needs(*Skopeo.programs)
class SkopeoTests(ArchiveCase):
    """skopeo"""

    def setUp(self) -> None:
        super().setUp()
        self.skopeo = Skopeo(self.directory / "skopeo", "http://127.0.0.1:1", self.no_ca)

    def run_skopeo(self, *arguments: str) -> str:
        return self.skopeo.skopeo(*arguments).check()

    def test_inspect(self) -> None:
        """It takes the archive for what it is, in both forms."""
        for made in (self.image, image(2, 10_000, oci=True), index(self.image)):
            self.api.add(NAME, made)
            path = self.export()
            for transport in ("oci-archive", "docker-archive"):
                found = json.loads(self.run_skopeo("inspect", f"{transport}:{path}"))
                self.assertEqual(found["Architecture"], "amd64")
                self.assertEqual(len(found["Layers"]), 2)
            raw = self.run_skopeo("inspect", "--raw", f"oci-archive:{path}")
            self.assertEqual(raw.encode(), made.manifest.content)

    def test_one_of_many_platforms(self) -> None:
        """Skopeo finds its platform where others are missing."""
        arm = image(1, 100, platform=("linux", "arm64"))
        self.api.add(NAME, index(self.image, arm))
        path = self.export("--platform", "linux/amd64")
        for transport in ("oci-archive", "docker-archive"):
            options = ["--override-arch", "amd64", "inspect", "--config"]
            found = self.run_skopeo(*options, f"{transport}:{path}")
            self.assertEqual(json.loads(found), json.loads(self.image.blobs[0].content))

    def test_oci_archives(self) -> None:
        """What it copies from one such archive to another has the same digests, both ways."""
        made = image(2, 10_000, oci=True)
        self.api.add(NAME, made)
        theirs = self.directory / "theirs.tar"
        self.run_skopeo("copy", f"oci-archive:{self.export()}", f"oci-archive:{theirs}:{NAME}")
        self.assertEqual(self.import_(theirs), made.digest)
        self.assertEqual([*self.api.images], [NAME])
        again = self.export().read_bytes()
        self.import_(self.directory / "ours.tar")
        self.assertEqual(self.export().read_bytes(), again)

    def test_docker_archives(self) -> None:
        """Those have plain layers, and links that nobody needs."""
        self.api.add(NAME, self.image)
        theirs = self.directory / "theirs.tar"
        copy = ("copy", f"docker-archive:{self.export()}", f"docker-archive:{theirs}:{NAME}")
        self.run_skopeo(*copy)
        digest = self.import_(theirs)
        self.assertEqual([*self.api.images], [NAME])
        self.assert_same_layers(self.image)
        self.assertEqual(self.import_(theirs), digest)


@needs_root
@needs(*Podman.programs)
class PodmanTests(ArchiveCase):
    """podman"""

    def test_load_and_save(self) -> None:
        podman = Podman(self.directory / "podman", "http://127.0.0.1:1", self.no_ca)
        self.addCleanup(podman.close)
        self.api.add(NAME, self.image)
        path = self.export()
        policy = str(podman.directory / "policy.json")
        podman.podman("load", "--signature-policy", policy, "--input", str(path)).check()
        self.assertEqual(podman.image_id(NAME), self.image.image_id)
        for form in ("docker-archive", "oci-archive"):
            theirs = self.directory / form
            podman.podman("save", "--format", form, "--output", str(theirs), NAME).check()
            self.import_(theirs)
            self.assertEqual([*self.api.images], [NAME])
        podman.clear()


@needs_root
@needs(*Docker.programs)
class DockerTests(ArchiveCase):
    """docker"""

    def test_load_and_save(self) -> None:
        docker = Docker(self.directory / "docker", None, self.no_ca)
        self.addCleanup(docker.close)
        self.api.add(NAME, self.image)
        docker.docker("load", "--input", str(self.export())).check()
        self.assertEqual(docker.image_id(NAME), self.image.image_id)
        theirs = self.directory / "theirs.tar"
        docker.docker("save", "--output", str(theirs), NAME).check()
        self.import_(theirs)
        self.assertEqual([*self.api.images], [NAME])
        self.assert_same_layers(self.image)


@needs_root
@needs(*Containerd.programs)
class ContainerdTests(ArchiveCase):
    """containerd"""

    def test_import_and_export(self) -> None:
        """All platforms go both ways, with their digests."""
        containerd = Containerd(self.directory / "containerd", "http://127.0.0.1:1", self.no_ca)
        self.addCleanup(containerd.close)
        made = index(self.image, image(1, 100, platform=("linux", "arm64")))
        self.api.add(NAME, made)
        path = str(self.export())
        containerd.ctr("images", "import", "--all-platforms", path).check()
        self.assertEqual(containerd.image_id(NAME), self.image.image_id)
        theirs = self.directory / "theirs.tar"
        containerd.ctr("images", "export", "--all-platforms", str(theirs), NAME).check()
        self.assertEqual(self.import_(theirs), made.digest)
        self.assertEqual([*self.api.images], [NAME])

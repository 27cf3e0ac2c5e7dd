"""Images carried by the command line from a proxy with registries to one without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import Result

from tests.support import images
from tests.support.archives import saved, tar
from tests.support.clients import Podman, Skopeo
from tests.support.commands import invoke
from tests.support.process import free_port
from tests.support.programs import needs, needs_root
from tests.support.proxy import ADDRESS, Proxy, Value
from tests.support.stage import TOKEN_HOST, EndToEndTestCase


class Site:
    """A proxy, and the command line that asks it."""

    def __init__(self, directory: Path, tables: dict[str, dict[str, Value]]) -> None:
        directory.mkdir()
        port = free_port()
        endpoint = f"tcp:{port}:interface={ADDRESS}"
        self.proxy = Proxy(directory, {"management": {"listen": [endpoint]}, **tables})
        self._environ = {
            "REGPROXY_URL": f"http://{ADDRESS}:{port}",
            "XDG_CONFIG_HOME": str(directory / "config"),
        }

    def run(self, *arguments: str) -> Result:
        """Run the command, which has to do well."""
        result = invoke(*arguments, environ=self._environ)
        assert result.exit_code == 0, result.output
        return result

    def regproxy(self, *arguments: str) -> list[Any]:
        """What the command prints as JSON, line by line."""
        result = self.run(*arguments)
        if arguments[0] in ("export", "import") or arguments[:2] == ("images", "ls"):
            return [json.loads(line) for line in result.stdout.splitlines()]
        return [json.loads(result.stdout)] if result.stdout else []


@needs("docker-registry", "htpasswd", *Skopeo.programs)
class AirGappedTests(EndToEndTestCase):
    """warm, export, import, and a pull where no registry is."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.new_directory()
        tables = self.stage.registries()
        self.here = self.site("here", tables)
        # Nothing listens there.
        gone: list[str] = [f"https://{ADDRESS}:{free_port()}"]
        self.there = self.site("there", {k: {**v, "upstream": gone} for k, v in tables.items()})

    def site(self, name: str, tables: dict[str, dict[str, Value]]) -> Site:
        site = Site(self.directory / name, tables)
        self.addCleanup(site.proxy.process.stop)
        self.watch(site.proxy.process)
        return site

    def carry(self, *arguments: str) -> Path:
        """Carry images to the other site; the archive."""
        archive = self.directory / "images.tar"
        self.here.regproxy("export", *arguments, str(archive))
        self.there.regproxy("import", str(archive))
        return archive

    def skopeo(self) -> Skopeo:
        proxy = self.there.proxy
        client = Skopeo(self.directory / "skopeo", proxy.url, proxy.ca_file)
        self.addCleanup(client.close)
        return client

    def test_one_platform(self) -> None:
        """What was carried is pulled by tag and by digest; what was not is not there."""
        repository = self.repository()
        amd64 = images.image(oci=True)
        arm64 = images.image(oci=True, platform=("linux", "arm64"))
        index = images.index(amd64, arm64)
        self.stage.token_registry.push(repository, "1", index)
        name = f"{TOKEN_HOST}/{repository}"
        [job] = self.here.regproxy("warm", f"{name}:1", "--platform", "linux/amd64")
        self.assertEqual([image["state"] for image in job["images"]], ["done"])
        archive = self.carry(f"{name}:1")
        skopeo = self.skopeo()
        for reference in (f"{name}:1", f"{name}@{index.digest}"):
            skopeo.pull(reference, None, "--override-arch", "amd64").check()
            self.assertEqual(skopeo.image_id(reference), amd64.image_id)
        refused = skopeo.pull(f"{name}:1", None, "--override-arch", "arm64")
        self.assertNotEqual(refused.code, 0)
        again = self.directory / "again.tar"
        self.there.regproxy("export", f"{name}:1", str(again))
        self.assertEqual(again.read_bytes(), archive.read_bytes())

    def test_several(self) -> None:
        """Images of one archive are each there, complete, and can be pinned and removed."""
        repository = self.repository()
        names = [f"{TOKEN_HOST}/{repository}:{tag}" for tag in "ab"]
        for tag in "ab":
            self.publish(TOKEN_HOST, repository, tag=tag)
        self.here.regproxy("warm", *names)
        self.carry(*names)
        self.there.regproxy("images", "pin", names[0])
        found = {each["reference"]: each for each in self.there.regproxy("images", "ls")}
        self.assertEqual(found.keys(), {*names})
        self.assertEqual(
            [(each["complete"], each["pinned"]) for _, each in sorted(found.items())],
            [(True, True), (True, False)],
        )
        [purged] = self.there.regproxy("purge", "--yes", "--registry", TOKEN_HOST)
        self.assertEqual(purged["images"], 1)
        self.there.regproxy("images", "rm", names[0])
        self.assertEqual(self.there.regproxy("images", "ls"), [])

    def test_looking_on(self) -> None:
        """What else there is to ask a site is answered, for programs and for people."""
        repository = self.repository()
        self.publish(TOKEN_HOST, repository)
        name = f"{TOKEN_HOST}/{repository}:latest"
        self.here.regproxy("warm", name)
        for arguments in (
            ["status"],
            ["top", "--count", "1"],
            ["images", "show", name],
            ["verify"],
            ["gc"],
        ):
            [_] = self.here.regproxy(*arguments)
            self.assertTrue(self.here.run(*arguments, "--text").stdout)
        self.here.regproxy("images", "unpin", name)
        self.assertIn(name, self.here.run("images", "ls", repository, "--text").stdout)

    @needs_root
    @needs(*Podman.programs)
    def test_saved_by_docker(self) -> None:
        """An archive of docker save is pulled by a client that unpacks it."""
        repository = self.repository()
        made = images.image()
        name = f"{TOKEN_HOST}/{repository}:1"
        archive = self.directory / "saved.tar"
        archive.write_bytes(tar(saved(made, name)))
        self.there.regproxy("import", str(archive))
        proxy = self.there.proxy
        podman = Podman(self.directory / "podman", proxy.url, proxy.ca_file)
        self.addCleanup(podman.close)
        podman.pull(name).check()
        self.assertEqual(podman.image_id(name), made.image_id)
        podman.clear()

"""Images that are fetched before anybody wants them, carried along, and purged."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from typing import Any
from urllib.parse import urlencode

from tests.support import images
from tests.support.clients import Skopeo
from tests.support.images import Content
from tests.support.process import free_port
from tests.support.programs import needs
from tests.support.proxy import Mirror, Proxy, Value
from tests.support.registry import ADDRESS, ALICE, Registry
from tests.support.stage import OPEN_HOST, EndToEndTestCase

#: A registry that the proxy logs in to.
TEAM_HOST = "team.example.test"
# Seconds that a job may take.
PATIENCE = 30.0


class Site:
    """A proxy, a mirror, and its API."""

    def __init__(self, test: EndToEndTestCase, tables: dict[str, dict[str, Value]]) -> None:
        self.port = free_port()
        management: dict[str, Value] = {"listen": [f"tcp:{self.port}:interface={ADDRESS}"]}
        directory = test.new_directory()
        self.mirror = Mirror(directory, {"management": management, **tables}, test.stage.keys)
        test.addCleanup(self.mirror.process.stop)
        test.watch(self.mirror.process)

    @property
    def proxy(self) -> Proxy:
        """The same, as a proxy."""
        return self.mirror

    def send(self, method: str, path: str, body: bytes = b"", media_type: str = "") -> bytes:
        """What is answered to a request that succeeds."""
        connection = http.client.HTTPConnection(ADDRESS, self.port, timeout=60)
        fields = {"Content-Type": media_type} if media_type else {}
        connection.request(method, f"/api/v1{path}", body or None, fields)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert answer.status < 300, f"{method} {path}: {answer.status} {content!r}"
        return content

    def ask(self, method: str, path: str, value: object = None, **query: str) -> Any:
        """The same in JSON."""
        path += f"?{urlencode(query)}" if query else ""
        if value is None:
            content = self.send(method, path)
        else:
            content = self.send(method, path, json.dumps(value).encode(), "application/json")
        return json.loads(content) if content else None

    def warm(self, *names: str, platforms: list[str] | None = None) -> dict[str, Any]:
        """The job that fetches images, when it has ended."""
        job = self.ask("POST", "/warm", {"images": list(names), "platforms": platforms})
        deadline = time.monotonic() + PATIENCE
        while job["state"] == "running":
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
            job = self.ask("GET", f"/jobs/{job['id']}")
        assert isinstance(job, dict)
        return job


@needs("docker-registry", "htpasswd", *Skopeo.programs)
class ImagesTests(EndToEndTestCase):
    def setUp(self) -> None:
        super().setUp()
        keys = self.stage.keys
        self.open = self.own(Registry(self.new_directory(), keys))
        self.team = self.own(Registry.with_password(self.new_directory(), keys))
        self.site = Site(self, self.registries())
        self.skopeo = self.client(self.site)

    def own(self, registry: Registry) -> Registry:
        """Stop it behind the test, and show its log if it fails."""
        self.addCleanup(registry.process.stop)
        self.watch(registry.process)
        return registry

    def client(self, site: Site) -> Skopeo:
        """skopeo that knows the proxy."""
        client = Skopeo(self.new_directory(), site.proxy.url, site.proxy.ca_file)
        self.addCleanup(client.close)
        return client

    def registries(self) -> dict[str, dict[str, Value]]:
        ca_file = str(self.stage.keys.ca)
        login: dict[str, Value] = {"username": ALICE.user, "password": ALICE.password}
        return {
            f'registries."{host}"': {
                "upstream": [registry.url],
                "ca_file": ca_file,
                "relay_private": True,
                **more,
            }
            for host, registry, more in (
                (OPEN_HOST, self.open, {}),
                (TEAM_HOST, self.team, login),
            )
        }

    def stop_registries(self) -> None:
        for registry in self.open, self.team:
            registry.process.stop()

    def image_of(self, client: Skopeo, reference: str) -> str:
        """The ID of what a pull brings."""
        client.pull(reference).check()
        found = client.image_id(reference)
        client.clear()
        return found

    def test_warm(self) -> None:
        """As anybody and with the proxy's own login; then the registries may go."""
        public, private = images.image(), images.image(oci=True)
        self.open.push("some/app", "1.0", public)
        self.team.push("our/app", "2.0", private)
        names = f"{OPEN_HOST}/some/app:1.0", f"{TEAM_HOST}/our/app:2.0"
        job = self.site.warm(*names)
        self.assertEqual((job["state"], job["failures"]), ("done", []))
        size = sum(
            len(content.content)
            for image in (public, private)
            for content in (image.manifest, *image.blobs)
        )
        self.assertEqual((job["done"], job["total"]), (size, size))
        # A client costs them nothing but a question, and nothing at all when they are gone.
        recording = self.open.record()
        self.assertEqual(self.image_of(self.skopeo, names[0]), public.image_id)
        self.assertEqual(recording.traffic().gets("blobs"), Counter())
        self.stop_registries()
        for name, image in zip(names, (public, private), strict=True):
            self.assertEqual(self.image_of(self.skopeo, name), image.image_id)

    def test_platforms(self) -> None:
        mine, other = images.image(), images.image(platform=("linux", "arm64"))
        self.open.push("some/app", "1.0", images.index(mine, other))
        name = f"{OPEN_HOST}/some/app:1.0"
        self.assertEqual(self.site.warm(name, platforms=["linux/amd64"])["state"], "done")
        children = self.site.ask("GET", "/image", reference=name)["manifest"]["children"]
        self.assertEqual([child["stored"] for child in children], [True, False])
        job = self.site.warm(name, platforms=["linux/s390x"])
        self.assertEqual(job["state"], "failed")
        self.assertIn("nothing for linux/s390x, but for linux/amd64", job["failures"][0])
        self.stop_registries()
        self.assertEqual(self.image_of(self.skopeo, name), mine.image_id)

    def test_warm_what_is_not_there(self) -> None:
        """One fails, and the other is there."""
        image = images.image()
        self.open.push("some/app", "1.0", image)
        name, absent = (f"{OPEN_HOST}/some/app:{tag}" for tag in ("1.0", "absent"))
        job = self.site.warm(absent, name)
        self.assertEqual(job["state"], "failed")
        self.assertEqual([each["state"] for each in job["images"]], ["failed", "done"])
        self.assertIn("answered 404", job["failures"][0])

    def test_carried(self) -> None:
        """To a site without network, where nobody has ever pulled anything."""
        image = images.image()
        index = images.index(image, images.image(platform=("linux", "arm64")))
        self.open.push("some/app", "1.0", index)
        name = f"{OPEN_HOST}/some/app:1.0"
        self.assertEqual(self.site.warm(name, platforms=["linux/amd64"])["state"], "done")
        self.stop_registries()
        island = Site(self, self.registries())
        client = self.client(island)
        self.assertNotEqual(client.pull(name).code, 0)
        for content in (index.manifest, image.manifest, *image.blobs):
            path = f"/blobs/{content.digest}"
            carried = self.site.send("GET", f"{path}/content")
            island.send("PUT", path, carried, "application/octet-stream")
        adopted = {"digest": index.digest, "media_type": index.manifest.media_type}
        value = island.ask("POST", "/image", adopted, reference=name)
        self.assertTrue(value["complete"])
        # By the proxy, and by the mirror.
        self.assertEqual(self.image_of(client, name), image.image_id)
        straight = self.stage.straight_client(Skopeo)
        mirrored = f"{island.mirror.secure_authority}/{OPEN_HOST.replace(':', '_')}/some/app:1.0"
        self.assertEqual(self.image_of(straight, mirrored), image.image_id)
        # The process may be started anew.
        island.mirror.process.stop()
        island.mirror.start()
        self.watch(island.mirror.process)
        self.addCleanup(island.mirror.process.stop)
        self.assertEqual(self.image_of(client, name), image.image_id)

    def test_carried_wrong(self) -> None:
        """What was damaged on the way is not taken."""
        path = f"/blobs/{Content('', b'some content').digest}"
        with self.assertRaises(AssertionError) as caught:
            self.site.send("PUT", path, b"another", "application/octet-stream")
        self.assertIn("422", str(caught.exception))

    def test_listed_and_purged(self) -> None:
        """What a pull has brought, who has brought it, and that it is fetched anew then."""
        image = images.image()
        self.open.push("some/app", "1.0", image)
        name = f"{OPEN_HOST}/some/app:1.0"
        self.skopeo.pull(name).check()
        (listed,) = self.site.ask("GET", "/images")["items"]
        self.assertEqual((listed["reference"], listed["brought_by"]), (name, ADDRESS))
        purged = self.site.ask("DELETE", "/image", reference=name)
        self.assertEqual((purged["images"], purged["blobs"]), (1, 5))
        self.assertEqual(self.site.ask("GET", "/images")["items"], [])
        self.assertEqual(self.site.ask("GET", "/blobs")["items"], [])
        self.skopeo.clear()
        recording = self.open.record()
        self.assertEqual(self.image_of(self.skopeo, name), image.image_id)
        gets = Counter(blob.digest for blob in image.blobs)
        self.assertEqual(recording.traffic().gets("blobs"), gets)

"""Pushes through the proxy: by the clients that people push with, and by hand."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import urllib.parse
from pathlib import Path
from typing import ClassVar

from tests.support import images
from tests.support.access_log import Traffic
from tests.support.clients import Docker, Podman, Skopeo
from tests.support.process import Result, environment, run
from tests.support.programs import needs, needs_root, program
from tests.support.proxy import Proxy
from tests.support.registry import ALICE, WRONG
from tests.support.stage import OPEN_HOST, PASSWORD_HOST, TOKEN_HOST, EndToEndTestCase

_MiB = 1 << 20
# Larger than anything that a kernel or a proxy takes in at one time.
_LAYER = 24 * _MiB


class PushTestCase(EndToEndTestCase):
    """Tests with the stage's proxy, whose memory is watched."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.stage.proxy
        self.watch(self.proxy.process)

    def assert_memory(self, before: int, allowed: int = 12 * _MiB) -> None:
        """Since :meth:`forget_peak` the proxy never had *allowed* bytes more than *before*."""
        self.assertLess(self._memory("VmHWM") - before, allowed)

    def forget_peak(self) -> int:
        """Measure the peak of the proxy's memory anew from here; what it has now, in bytes."""
        # proc(5): 5 resets VmHWM.
        Path(f"/proc/{self.proxy.process.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.proxy.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024


def pushed(traffic: Traffic) -> list[str]:
    """The bodies that the registry was sent: PATCH and PUT of uploads."""
    return [
        f"{request.method} {request.status}"
        for request in traffic.requests
        if request.method in ("PATCH", "PUT") and "/blobs/uploads/" in request.target
    ]


class ClientPushTestCase(PushTestCase):
    """Pushes by the client of class ``kind``.

    Attributes:
        image: what is pushed.
        source: what the client knows it as.
    """

    kind: ClassVar[type[Docker] | type[Podman] | type[Skopeo]]
    #: What the client says when its password is wrong.
    unauthorized = "unauthorized|denied"

    def setUp(self) -> None:
        super().setUp()
        self.client = self.stage.client(self.kind)
        for process in self.client.processes:
            self.watch(process)
        self.addCleanup(self.client.clear)

    def prepare(self, size: int = 4096) -> None:
        """Make an image of two layers that the client has, and no registry with a login."""
        name = self.repository()
        self.source = f"{OPEN_HOST}/{name}:latest"
        self.image = self.publish(OPEN_HOST, name, images.image(layers=2, size=size))
        self.client.pull(self.source).check()

    def check_push(self, host: str) -> None:
        """Push large layers, forget them, pull."""
        self.prepare(_LAYER)
        repository = self.repository("team")
        target = f"{host}/{repository}:latest"
        before = self.forget_peak()
        recording = self.stage.upstreams[host].record()
        self.client.push(self.source, target, ALICE).check()
        self.assert_memory(before)
        traffic = recording.traffic()
        # The config and two layers, none of them twice.
        self.assertEqual(len([each for each in pushed(traffic) if each == "PUT 201"]), 3, traffic)
        self.client.clear()
        self.client.pull(target, ALICE).check()
        self.assertEqual(self.client.image_id(target), self.image.image_id)

    def check_mount(self) -> None:
        """Layers that the registry has in another repository are not sent again."""
        self.prepare()
        first, second = (f"{TOKEN_HOST}/{self.repository('team')}:latest" for _ in range(2))
        self.client.push(self.source, first, ALICE).check()
        recording = self.stage.token_registry.record()
        self.client.push(self.source, second, ALICE).check()
        traffic = recording.traffic()
        mounted = [
            request
            for request in traffic.requests
            if request.method == "POST" and "mount=" in request.target and request.status == 201
        ]
        self.assertGreaterEqual(len(mounted), 2, f"in\n{traffic}")
        self.client.clear()
        self.client.pull(second, ALICE).check()
        self.assertEqual(self.client.image_id(second), self.image.image_id)

    def check_wrong_password(self) -> None:
        """The registry's refusal is what the client shows."""
        self.prepare()
        for host in (TOKEN_HOST, PASSWORD_HOST):
            target = f"{host}/{self.repository('team')}:latest"
            result = self.client.push(self.source, target, WRONG)
            self.assertNotEqual(result.code, 0, str(result))
            self.assertRegex(result.output.lower(), self.unauthorized)


@needs_root
@needs("docker-registry", "htpasswd", *Docker.programs)
class DockerTests(ClientPushTestCase):
    """dockerd."""

    kind = Docker

    def test_tokens(self) -> None:
        self.check_push(TOKEN_HOST)

    def test_password(self) -> None:
        self.check_push(PASSWORD_HOST)

    def test_mount(self) -> None:
        self.check_mount()

    def test_wrong_password(self) -> None:
        self.check_wrong_password()


@needs_root
@needs("docker-registry", "htpasswd", *Podman.programs)
class PodmanTests(ClientPushTestCase):
    """podman."""

    kind = Podman

    def test_tokens(self) -> None:
        self.check_push(TOKEN_HOST)

    def test_password(self) -> None:
        self.check_push(PASSWORD_HOST)

    def test_wrong_password(self) -> None:
        self.check_wrong_password()


@needs("docker-registry", "htpasswd", *Skopeo.programs)
class SkopeoTests(ClientPushTestCase):
    """skopeo."""

    kind = Skopeo

    def test_tokens(self) -> None:
        self.check_push(TOKEN_HOST)

    def test_password(self) -> None:
        self.check_push(PASSWORD_HOST)

    def test_mount(self) -> None:
        self.check_mount()

    def test_wrong_password(self) -> None:
        self.check_wrong_password()


@needs("docker-registry", "htpasswd")
class ChunkTests(PushTestCase):
    """An upload in chunks (distribution specification 1.1, "Pushing a blob in chunks")."""

    def setUp(self) -> None:
        super().setUp()
        context = ssl.create_default_context(cafile=str(self.proxy.ca_file))
        address = urllib.parse.urlsplit(self.proxy.url)
        assert address.hostname is not None
        self.connection = http.client.HTTPSConnection(
            address.hostname, address.port, timeout=30, context=context
        )
        name, _, port = OPEN_HOST.partition(":")
        self.connection.set_tunnel(name, int(port))
        self.addCleanup(self.connection.close)
        self.name = self.repository()

    def ask(
        self, method: str, target: str, body: bytes | None = None, **fields: str
    ) -> http.client.HTTPResponse:
        """One request on the one connection; its answer, read."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        self.connection.request(method, target, body, headers)
        response = self.connection.getresponse()
        self.content = response.read()
        return response

    def location(self, response: http.client.HTTPResponse) -> str:
        """Where the upload goes on. It must lead through the proxy."""
        location = urllib.parse.urlsplit(response.headers["Location"])
        self.assertIn(location.netloc, ("", OPEN_HOST))
        return urllib.parse.urlunsplit(("", "", location.path, location.query, ""))

    def test_chunks(self) -> None:
        content = os.urandom(3 * _MiB)
        parts = content[:_MiB], content[_MiB : 2 * _MiB], content[2 * _MiB :]
        response = self.ask("POST", f"/v2/{self.name}/blobs/uploads/")
        self.assertEqual(response.status, 202)
        start = 0
        for part in parts[:-1]:
            response = self.ask(
                "PATCH",
                self.location(response),
                part,
                Content_Type="application/octet-stream",
                Content_Range=f"{start}-{start + len(part) - 1}",
            )
            start += len(part)
            self.assertEqual((response.status, self.content), (202, b""))
            self.assertEqual(response.headers["Range"], f"0-{start - 1}")
        # Where am I?
        asked = self.ask("GET", self.location(response))
        self.assertEqual((asked.status, asked.headers["Range"]), (204, f"0-{start - 1}"))
        digest = images.digest(content)
        last = f"{self.location(response)}&digest={urllib.parse.quote(digest)}"
        response = self.ask("PUT", last, parts[-1], Content_Type="application/octet-stream")
        self.assertEqual(response.status, 201, self.content)
        self.assertEqual(response.headers["Docker-Content-Digest"], digest)
        self.ask("GET", f"/v2/{self.name}/blobs/{digest}")
        self.assertEqual(self.content, content)

    def test_wrong_digest(self) -> None:
        """The registry's refusal comes back, and the connection is good for more."""
        response = self.ask("POST", f"/v2/{self.name}/blobs/uploads/")
        wrong = images.digest(b"something else")
        target = f"{self.location(response)}&digest={wrong}"
        self.assertEqual(self.ask("PUT", target, bytes(_MiB)).status, 400)
        self.assertEqual(json.loads(self.content)["errors"][0]["code"], "DIGEST_INVALID")
        self.assertEqual(self.ask("HEAD", f"/v2/{self.name}/blobs/{wrong}").status, 404)

    def test_mount(self) -> None:
        content = os.urandom(1000)
        digest = images.digest(content)
        response = self.ask("POST", f"/v2/{self.name}/blobs/uploads/")
        target = f"{self.location(response)}&digest={digest}"
        self.assertEqual(self.ask("PUT", target, content).status, 201)
        other = self.repository()
        query = urllib.parse.urlencode({"mount": digest, "from": self.name})
        self.assertEqual(self.ask("POST", f"/v2/{other}/blobs/uploads/?{query}").status, 201)
        self.ask("GET", f"/v2/{other}/blobs/{digest}")
        self.assertEqual(self.content, content)

    def test_registry_stands_still(self) -> None:
        """Then so does the client, and nothing piles up in between."""
        content = os.urandom(64 * _MiB)
        digest = images.digest(content)
        response = self.ask("POST", f"/v2/{self.name}/blobs/uploads/")
        before = self.forget_peak()
        registry = self.stage.open_registry.process
        self.addCleanup(registry.thaw)
        registry.freeze()
        self.connection.putrequest("PUT", f"{self.location(response)}&digest={digest}")
        self.connection.putheader("Content-Length", str(len(content)))
        self.connection.endheaders()
        connection = self.connection.sock
        connection.settimeout(2)
        sent = 0
        with self.assertRaises(TimeoutError):
            while sent < len(content):
                sent += connection.send(content[sent : sent + _MiB])
        # In the buffers of the kernel, on both sides of the proxy.
        self.assertLess(sent, 48 * _MiB)
        self.assert_memory(before)
        registry.thaw()
        connection.settimeout(30)
        connection.sendall(content[sent:])
        self.assertEqual(self.connection.getresponse().status, 201)
        self.assert_memory(before)

    def test_broken_off(self) -> None:
        """A client that leaves in the middle leaves no blob behind, and no request."""
        content = os.urandom(8 * _MiB)
        digest = images.digest(content)
        response = self.ask("POST", f"/v2/{self.name}/blobs/uploads/")
        target = f"{self.location(response)}&digest={digest}"
        recording = self.stage.open_registry.record()
        self.connection.putrequest("PUT", target)
        self.connection.putheader("Content-Length", str(len(content)))
        self.connection.endheaders(content[: len(content) // 2])
        self.connection.close()
        self.assertNotIn("PUT 201", pushed(recording.traffic()))
        self.assertEqual(self.ask("HEAD", f"/v2/{self.name}/blobs/{digest}").status, 404)


@needs("docker-registry", "htpasswd", "curl")
class RefusalTests(PushTestCase):
    """A refusal that comes before the body is whole reaches a client that is still sending."""

    def curl(self, proxy: Proxy, url: str, *options: str) -> Result:
        """Send 64 MiB with PATCH; the output is the status and the body."""
        file = self.new_directory() / "layer"
        with file.open("wb") as sparse:
            sparse.truncate(64 * _MiB)
        return run(
            *(program("curl"), "--silent", "--show-error", "--proxy", proxy.url),
            *("--cacert", str(proxy.ca_file), "--request", "PATCH", "--upload-file", str(file)),
            *("--write-out", "\n%{http_code} %{size_upload}", *options, url),
            env=environment(HOME=self.new_directory()),
        )

    def check_refused(self, proxy: Proxy, host: str, status: int, code: str) -> None:
        """With ``Expect: 100-continue``, as curl likes it, and without; chunked, too."""
        url = f"https://{host}/v2/team/app/blobs/uploads/some-id"
        for options in (
            (),
            ("--header", "Expect:"),
            ("--header", "Expect:", "--header", "Transfer-Encoding: chunked"),
        ):
            with self.subTest(options=options):
                result = self.curl(proxy, url, *options)
                body, _, written = result.check().rpartition("\n")
                seen, size = written.split()
                self.assertEqual(int(seen), status, str(result))
                self.assertEqual(json.loads(body)["errors"][0]["code"], code)
                self.assertLess(int(size), 32 * _MiB)

    def test_unauthorized(self) -> None:
        before = self.forget_peak()
        self.check_refused(self.proxy, PASSWORD_HOST, 401, "UNAUTHORIZED")
        self.check_refused(self.proxy, TOKEN_HOST, 401, "UNAUTHORIZED")
        self.assert_memory(before)

    def test_denied(self) -> None:
        """``push = "deny"``: the registry hears nothing."""
        tables = self.stage.registries()
        tables[f'registries."{OPEN_HOST}"']["push"] = "deny"
        proxy = Proxy(self.new_directory(), tables)
        self.addCleanup(proxy.process.stop)
        self.watch(proxy.process)
        recording = self.stage.open_registry.record()
        self.check_refused(proxy, OPEN_HOST, 405, "UNSUPPORTED")
        self.assertEqual(recording.traffic().requests, ())

    def test_meaningless(self) -> None:
        """The body of a GET is not asked for."""
        url = f"https://{OPEN_HOST}/v2/"
        result = self.curl(self.proxy, url, "--request", "GET")
        self.assertIn("\n413 0", result.check())

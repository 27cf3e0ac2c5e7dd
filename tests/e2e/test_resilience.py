"""What goes on when something is gone: pulls without upstream, and across a crash of the proxy.

Also what artifacts need that are found by the digest of an image, and many clients at once.
"""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Final, TypeVar

from regproxy.oci.names import Digest
from regproxy.store.partial import resumable
from tests.support import images
from tests.support.access_log import Traffic
from tests.support.clients import Client, Containerd, Docker, Podman, Skopeo
from tests.support.faults import FaultyUpstream, host_name, together
from tests.support.images import OCI_INDEX, OCI_MANIFEST, Content, Image
from tests.support.programs import needs, needs_root
from tests.support.proxy import Answer, Proxy, Tables, Value
from tests.support.registry import ADDRESS, ALICE, Registry, Server, TokenServer
from tests.support.stage import AUTH_HOST, OPEN_HOST, EndToEndTestCase
from tests.support.turns import Entry, Script, Turn

#: Wants tokens; what is below ``public/`` anybody may pull.
GONE_HOST: Final = "gone.example.test"
#: Wants a password, which the proxy has.
SHARED_HOST: Final = "shared.example.test"
#: A registry of the faulty upstream.
SLOW_HOST: Final = host_name(0)

MiB: Final = 1 << 20

# Fields that are about one exchange and those who take part in it (RFC 9110, sections 6.6.1, 7.6.1
# and 10.2.4), and the one in which the proxy tells what it did.
_OF_EXCHANGE: Final = frozenset({"date", "connection", "keep-alive", "cache-status"})

AnyClient = TypeVar("AnyClient", bound=Client)
AnyServer = TypeVar("AnyServer", TokenServer, Registry, FaultyUpstream)


class ResilienceTestCase(EndToEndTestCase):
    """Proxies, upstreams and clients of one test, all stopped behind it."""

    def start_proxy(self, tables: Tables) -> Proxy:
        """A new proxy."""
        proxy = Proxy(self.new_directory(), tables)
        # The process of that time, which may be another one.
        self.addCleanup(lambda: proxy.process.stop())
        self.watch(proxy.process)
        return proxy

    def start_client(self, kind: type[AnyClient], proxy: Proxy) -> AnyClient:
        """A new client of *proxy*."""
        client = kind(self.new_directory(), proxy.url, proxy.ca_file)
        self.addCleanup(client.close)
        for process in client.processes:
            self.watch(process)
        return client

    def own(self, server: AnyServer) -> AnyServer:
        """Stop *server* behind the test, and show its log if it fails."""
        self.addCleanup(server.process.stop)
        self.watch(server.process)
        return server


@needs_root
@needs("docker-registry", "htpasswd", "skopeo")
class UpstreamGoneTests(ResilienceTestCase):
    """Registries and token server are stopped after a pull. The same client pulls again."""

    def setUp(self) -> None:
        super().setUp()
        keys, directory = self.stage.keys, self.new_directory()
        realm = f"https://{AUTH_HOST}/token"
        tokens = self.own(TokenServer(directory, keys, realm=realm))
        self.registries: dict[str, Registry] = {
            GONE_HOST: self.own(Registry.with_tokens(directory, tokens)),
            SHARED_HOST: self.own(Registry.with_password(self.new_directory(), keys)),
        }
        self.servers: dict[str, Server] = {AUTH_HOST: tokens, **self.registries}
        tables: dict[str, dict[str, Value]] = {}
        for host, server in self.servers.items():
            tables[f'registries."{host}"'] = {
                "upstream": [server.url],
                "ca_file": str(keys.ca),
                "relay_private": True,
            }
        tables[f'registries."{SHARED_HOST}"'] |= {
            "username": ALICE.user,
            "password": ALICE.password,
        }
        self.proxy = self.start_proxy(tables)

    def check(self, kind: type[Client]) -> None:
        """What everybody may read is pulled end to end, what needs upstream's word is not."""
        client = self.start_client(kind, self.proxy)
        pulled: dict[str, Image] = {}
        for host, repository in ((GONE_HOST, "public/app"), (SHARED_HOST, "private/app")):
            image = images.image()
            self.registries[host].push(repository, "latest", image)
            client.pull(f"{host}/{repository}:latest").check()
            for reference in (f"{repository}:latest", f"{repository}@{image.digest}"):
                pulled[f"{host}/{reference}"] = image
        private = f"{GONE_HOST}/private/app:latest"
        self.registries[GONE_HOST].push("private/app", "latest", images.image(layers=1))
        client.pull(private, ALICE).check()
        client.clear()
        for server in self.servers.values():
            server.process.stop()

        for reference, image in pulled.items():
            client.pull(reference).check()
            self.assertEqual(client.image_id(reference), image.image_id)
            client.clear()
        for login in (None, ALICE):
            refused = client.pull(private, login)
            self.assertNotEqual(refused.code, 0, str(refused))
            # Of an error of the 5xx class these clients show the status line, and nothing else.
            self.assertIn("503 Service Unavailable", refused.output)
        self.check_reason()

    def check_reason(self) -> None:
        """What the clients were told, and did not show."""
        answer = self.proxy.fetch(GONE_HOST, "/v2/private/app/manifests/latest")
        self.assertEqual(answer.status, 503)
        (error,) = json.loads(answer.body)["errors"]
        self.assertEqual(error["code"], "UNAVAILABLE")
        self.assertIn("upstream cannot say whether you may read it", error["message"])
        self.assertTrue(answer.headers["Proxy-Status"].startswith("regproxy; error="))

    @needs(*Docker.programs)
    def test_docker(self) -> None:
        """By dockerd."""
        self.check(Docker)

    @needs(*Containerd.programs)
    def test_containerd(self) -> None:
        """By ctr."""
        self.check(Containerd)

    @needs(*Podman.programs)
    def test_podman(self) -> None:
        """By podman."""
        self.check(Podman)


@needs_root
@needs("docker-registry", "htpasswd", "skopeo", *Docker.programs)
class CrashTests(ResilienceTestCase):
    """The proxy is killed in the middle of a pull, and started again."""

    def test_crash(self) -> None:
        """dockerd tries again by itself, and upstream sends the rest, not the whole."""
        upstream = self.own(FaultyUpstream(self.new_directory() / "upstream"))
        image = images.image(layers=1, size=24 * MiB)
        layer = image.blobs[1]
        path = blob_path(layer)
        serve(upstream, image, rate=12 * MiB)
        proxy = self.start_proxy(upstream.registries())
        docker = self.start_client(Docker, proxy)
        reference = f"{SLOW_HOST}/app:latest"
        fills, digest = proxy.data / "cache" / "fills", Digest.parse(layer.digest)
        with ThreadPoolExecutor(1) as thread:
            pull = thread.submit(docker.pull, reference)
            proxy.process.wait_until(lambda: resumable(fills, digest) >= 8 * MiB)
            proxy.process.kill()
            proxy.start()
            pull.result().check()
        self.assertEqual(docker.image_id(reference), image.image_id)
        first, *later = gets(upstream, path)
        self.assertEqual(first.start, 0)
        self.assertTrue(later)
        for entry in later:
            self.assertGreaterEqual(entry.start, 8 * MiB, f"{later}")
        sent = sum(entry.bytes for entry in (first, *later))
        self.assertLess(sent, 2 * len(layer.content), f"{[first, *later]}")


@needs("docker-registry", "htpasswd", *Skopeo.programs)
class ReferringArtifactTests(ResilienceTestCase):
    """What is found by the digest of an image: signatures, attestations."""

    def test_signature_tag(self) -> None:
        """The tag of a signature is asked for each time, whatever rule there is for tags."""
        rule: dict[str, Value] = {"match": ".*", "max_age": "1d"}
        proxy = self.start_proxy(self.stage.registries() | {"[freshness.rule]": rule})
        skopeo = self.start_client(Skopeo, proxy)
        repository = self.repository()
        image = self.publish(OPEN_HOST, repository)
        tag = image.digest.replace(":", "-") + ".sig"

        def copy(tag: str) -> tuple[Path, list[str]]:
            """An OCI layout with what *tag* names, and how upstream was asked for the tag."""
            layout = self.new_directory()
            recording = self.stage.open_registry.record()
            source = f"docker://{OPEN_HOST}/{repository}:{tag}"
            skopeo.skopeo("copy", "--src-no-creds", source, f"oci:{layout}:copy").check()
            return layout, methods(recording.traffic(), f"/v2/{repository}/manifests/{tag}")

        # The rule does hold.
        self.assertEqual([copy("latest")[1] for _ in range(2)], [["GET"], []])
        old = self.publish(OPEN_HOST, repository, signature(image), tag)
        for asked in ("GET", "HEAD", "HEAD"):
            layout, asked_for = copy(tag)
            self.assertEqual(asked_for, [asked])
            self.assert_copied(layout, old)
        new = self.publish(OPEN_HOST, repository, signature(image), tag)
        layout, _ = copy(tag)
        self.assert_copied(layout, new)

    def assert_copied(self, layout: Path, artifact: Image) -> None:
        """The *layout* names *artifact*, and has it byte for byte (OCI image layout 1.0)."""
        (named,) = json.loads((layout / "index.json").read_bytes())["manifests"]
        self.assertEqual(named["digest"], artifact.digest)
        self.assertEqual(named["mediaType"], artifact.manifest.media_type)
        for content in (artifact.manifest, *artifact.blobs):
            file = layout / "blobs" / content.digest.replace(":", "/")
            self.assertEqual(file.read_bytes(), content.content)

    def test_no_referrers(self) -> None:
        """A registry that does not know referrers says so; the client falls back to tags."""
        proxy = self.stage.proxy
        self.watch(proxy.process)
        repository = self.repository()
        image = self.publish(OPEN_HOST, repository)
        target = f"/v2/{repository}/referrers/{image.digest}"
        direct = answer_of(self.stage.open_registry.connect(), target)
        self.assertEqual(direct.status, 404)
        self.assert_same(proxy.fetch(OPEN_HOST, target), direct)

    def test_referrers(self) -> None:
        """A list of referrers is passed through with its headers, and asked for each time."""
        upstream = self.own(FaultyUpstream(self.new_directory() / "upstream"))
        subject = images.digest(b"subject")
        target = f"/v2/app/referrers/{subject}?artifactType=application%2Fvnd.example.sbom"
        headers = {
            "Content-Type": OCI_INDEX,
            "OCI-Filters-Applied": "artifactType",
            "Link": f'</v2/app/referrers/{subject}?next=1>; rel="next"',
        }
        proxy = self.start_proxy(upstream.registries())
        for size in (0, 1):
            entries = [signature(images.image(layers=0)).manifest.descriptor] * size
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
            turn = Turn(content=upstream.put(json.dumps(index).encode()), headers=headers)
            upstream.script(SLOW_HOST, target, Script((turn,)))
            direct = answer_of(HTTPConnection(ADDRESS, upstream.port), f"/{SLOW_HOST}{target}")
            self.assertEqual(json.loads(direct.body), index)
            self.assert_same(proxy.fetch(SLOW_HOST, target), direct)

    def assert_same(self, proxied: Answer, direct: Answer) -> None:
        """The proxy changed nothing but what belongs to the exchange."""
        self.assertEqual((proxied.status, proxied.body), (direct.status, direct.body))
        self.assertEqual(end_to_end(proxied.headers), end_to_end(direct.headers))
        self.assertIn("regproxy; fwd=bypass", proxied.headers["Cache-Status"])


@needs_root
@needs("docker-registry", "htpasswd", "skopeo")
@needs(*Docker.programs, *Containerd.programs, *Podman.programs)
class ManyClientsTests(ResilienceTestCase):
    """Nodes of different kinds start the same new image."""

    def test_at_once(self) -> None:
        """Each blob is fetched once, from an upstream so slow that they must share."""
        upstream = self.own(FaultyUpstream(self.new_directory() / "upstream"))
        image = images.image(layers=4, size=4 * MiB)
        serve(upstream, image, rate=2 * MiB)
        proxy = self.start_proxy(upstream.registries())
        clients = [self.start_client(kind, proxy) for kind in (Docker, Containerd, Podman)]
        reference = f"{SLOW_HOST}/app:latest"
        for result in together(partial(client.pull, reference) for client in clients):
            result.check()
        for client in clients:
            self.assertEqual(client.image_id(reference), image.image_id)
        for blob in image.blobs:
            entries = gets(upstream, blob_path(blob))
            self.assertEqual([entry.bytes for entry in entries], [len(blob.content)], f"{entries}")
        # podman asks for the tag; the others get its digest by HEAD, and ask for that. While
        # neither answer is there, nobody knows that they are the same.
        for reference in ("latest", image.digest):
            entries = gets(upstream, f"/v2/app/manifests/{reference}")
            self.assertLessEqual(len(entries), 1, f"{entries}")
        # They did not come one after the other.
        self.assertIn('"cache": "collapsed"', proxy.process.read_log())


def serve(upstream: FaultyUpstream, image: Image, *, rate: int) -> None:
    """Have ``app:latest`` of SLOW_HOST be *image*, each layer at *rate* bytes per second."""
    config, *layers = image.blobs
    upstream.script(SLOW_HOST, "/v2/", Script((Turn(),)))
    for reference in ("latest", image.digest):
        put(upstream, f"/v2/app/manifests/{reference}", image.manifest)
    put(upstream, blob_path(config), config)
    for layer in layers:
        put(upstream, blob_path(layer), layer, rate)


def put(upstream: FaultyUpstream, target: str, content: Content, rate: float | None = None) -> None:
    """Have *target* of SLOW_HOST be *content*."""
    headers = {"Content-Type": content.media_type, "Docker-Content-Digest": content.digest}
    turn = Turn(content=upstream.put(content.content), headers=headers, rate=rate)
    upstream.script(SLOW_HOST, target, Script((turn,)))


def blob_path(content: Content) -> str:
    """Where :func:`serve` has the blob *content*."""
    return f"/v2/app/blobs/{content.digest}"


def gets(upstream: FaultyUpstream, path: str) -> list[Entry]:
    """The transfers of what SLOW_HOST has under *path*."""
    return [entry for entry in upstream.log(SLOW_HOST, path) if entry.method == "GET"]


def signature(image: Image) -> Image:
    """An artifact like those that ``cosign sign`` makes, each another one."""
    payload = Content(
        "application/vnd.dev.cosign.simplesigning.v1+json",
        json.dumps({"critical": {"image": {"docker-manifest-digest": image.digest}}}).encode(),
    )
    rootfs = {"type": "layers", "diff_ids": [payload.digest]}
    config = Content(
        "application/vnd.oci.image.config.v1+json",
        json.dumps({"architecture": "", "os": "", "rootfs": rootfs, "config": {}}).encode(),
    )
    signed = {"dev.cosignproject.cosign/signature": uuid.uuid4().hex}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor,
        "layers": [payload.descriptor | {"annotations": signed}],
    }
    content = json.dumps(manifest).encode()
    return Image(Content(OCI_MANIFEST, content), (config, payload))


def methods(traffic: Traffic, target: str) -> list[str]:
    """How *target* was asked for, in order."""
    return [request.method for request in traffic.requests if request.target == target]


def answer_of(connection: HTTPConnection, target: str) -> Answer:
    """What a server says to GET *target*."""
    connection.request("GET", target)
    response = connection.getresponse()
    answer = Answer(response.status, response.headers, response.read())
    connection.close()
    return answer


def end_to_end(headers: Message) -> list[tuple[str, str]]:
    """The fields that describe what was asked for."""
    fields = ((name.lower(), value) for name, value in headers.items())
    return sorted(field for field in fields if field[0] not in _OF_EXCHANGE)

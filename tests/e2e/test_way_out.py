"""The way out: parent proxies, mirrors, and registries that want to know who asks."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from tests.support import images
from tests.support.certificates import CLIENT_AUTH, Identity, make_ca, make_leaf
from tests.support.clients import Skopeo
from tests.support.images import Image
from tests.support.namespaces import Namespace
from tests.support.parent_processes import LOGIN, Microsocks, ParentProcess, Squid
from tests.support.process import Result, environment, run
from tests.support.programs import needs, needs_root, program
from tests.support.proxy import ADDRESS, Proxy, Tables, Value, toml
from tests.support.registry import ALICE, WRONG, Keys, Registry
from tests.support.stage import EndToEndTestCase

#: A registry that only the parent proxies know and reach.
FAR: Final = "far.example.test"
#: A site that is no registry; it is at an address of its own, since tunnels go to port 443.
SITE: Final = "site.example.test"
SITE_ADDRESS: Final = "127.0.0.77"

Table = dict[str, Value]


class SiteProxy(Proxy):
    """A proxy in a network of its own, from which nothing is reached but its gateway."""

    def __init__(self, directory: Path, tables: Tables, node: Namespace) -> None:
        self._node = node
        super().__init__(directory, tables)

    @property
    def url(self) -> str:
        return f"http://{self._node.address}:{self.port}"

    def configure(self, tables: Tables) -> None:
        listeners: dict[str, Table] = {
            "proxy": {"listen": [f"tcp:{self.port}:interface={self._node.address}"]},
            "management": {"listen": []},
        }
        self.config.write_text(toml(self.data, listeners | dict(tables)))

    def arguments(self) -> list[str]:
        return [*self._node.entering(), *super().arguments()]


class WayOutTestCase(EndToEndTestCase):
    """Servers and proxies of one test, all stopped behind it."""

    def setUp(self) -> None:
        super().setUp()
        self.keys = Keys.make(self.new_directory(), FAR, SITE)

    def registry(self) -> Registry:
        """A new registry on the loopback interface of the outside."""
        registry = Registry(self.new_directory(), self.keys)
        self.addCleanup(registry.process.stop)
        self.watch(registry.process)
        return registry

    def run_proxy(self, proxy: Proxy) -> Proxy:
        self.addCleanup(proxy.process.stop)
        self.watch(proxy.process)
        return proxy

    def skopeo(self, proxy: Proxy) -> Skopeo:
        return Skopeo(self.new_directory(), proxy.url, proxy.ca_file)

    def section(self, *upstream: str) -> Table:
        """How a registry of this test is reached."""
        return {"upstream": list(upstream), "ca_file": str(self.keys.ca), "relay_private": True}


class _Greeter(BaseHTTPRequestHandler):
    """Answers everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        """Quietly."""


@needs_root
@needs("curl", "docker-registry", "ip", "nsenter", "unshare", *Skopeo.programs)
class ParentTests(WayOutTestCase):
    """A registry that is reached through a parent proxy and in no other way."""

    def setUp(self) -> None:
        super().setUp()
        self.node = Namespace(self.new_directory(), hosts=["nothing.example.test"])
        self.addCleanup(self.node.close)
        self.far = self.registry()
        self.image = images.image(layers=2)
        self.far.push("some/app", "latest", self.image)
        self.reference = f"{FAR}/some/app:latest"

    def parent(
        self, kind: type[ParentProcess], *, login: bool = False, secure: bool = False
    ) -> ParentProcess:
        """A parent at the gateway, which both sides reach."""
        keys = None
        if secure:
            authority = make_ca("parent CA")
            leaf = make_leaf(authority, ips=[self.node.gateway], cn="parent")
            keys = _keys(self.new_directory(), authority, leaf)
        names = {FAR: ADDRESS, SITE: SITE_ADDRESS}
        parent = kind(self.node.gateway, names, login=login, keys=keys)
        self.addCleanup(parent.close)
        self.watch(parent.process)
        self.parent_keys = keys
        return parent

    def proxy(
        self, proxy: str | Table | None, registry: Mapping[str, Value] | None = None
    ) -> Proxy:
        """The proxy at the site, whose parent is *proxy*."""
        tables: dict[str, Table] = {
            "limits": {"connect": "5s"},
            f'registries."{FAR}"': self.section(f"https://{FAR}:{self.far.port}")
            | dict(registry or {}),
        }
        if isinstance(proxy, str):
            tables["upstream"] = {"proxy": proxy}
        elif proxy is not None:
            tables["upstream.proxy"] = proxy
        return self.run_proxy(SiteProxy(self.new_directory(), tables, self.node))

    def check_pulls(self, proxy: Proxy) -> None:
        """Cold, each blob once; then warm."""
        skopeo = self.skopeo(proxy)
        for blobs in Counter(blob.digest for blob in self.image.blobs), Counter[str]():
            recording = self.far.record()
            skopeo.pull(self.reference).check()
            self.assertEqual(skopeo.image_id(self.reference), self.image.image_id)
            self.assertEqual(recording.traffic().gets("blobs"), blobs)
            skopeo.clear()

    def error(self, proxy: Proxy) -> str:
        """What the proxy says instead of the registry."""
        return self.curl(proxy, f"https://{FAR}/v2/", proxy.ca_file).check()

    def curl(self, proxy: Proxy, url: str, ca_file: Path) -> Result:
        options = ("--silent", "--show-error", "--max-time", "30", "--cacert", str(ca_file))
        return run(program("curl"), *options, "--proxy", proxy.url, url, env=environment())

    def test_there_is_no_other_way(self) -> None:
        """Neither by name nor by address."""
        by_name = self.proxy(None)
        self.assertNotEqual(self.skopeo(by_name).pull(self.reference).code, 0)
        self.assertRegex(self.error(by_name), "does not resolve|no connection")
        where = f"{self.node.gateway}:{self.far.port}"
        by_address = self.proxy(None, {"upstream": [f"https://{where}"]})
        self.assertIn(f"cannot connect to {where}", self.error(by_address))

    @needs(*Squid.programs)
    def test_http(self) -> None:
        """Through squid."""
        parent = self.parent(Squid)
        assert isinstance(parent, Squid)
        proxy = self.proxy(parent.url)
        self.check_pulls(proxy)
        # It writes down a tunnel when that is over.
        proxy.process.stop()
        parent.process.wait_until(lambda: bool(parent.visited()))
        self.assertEqual(set(parent.visited()), {f"{FAR}:{self.far.port}"})

    @needs(*Squid.programs)
    def test_of_one_registry(self) -> None:
        """Named in the registry's own section."""
        parent = self.parent(Squid)
        self.check_pulls(self.proxy(None, {"proxy": parent.url}))

    @needs(*Squid.programs)
    def test_https_with_login(self) -> None:
        """Through squid, over TLS, with a password from a file."""
        parent = self.parent(Squid, login=True, secure=True)
        assert self.parent_keys is not None
        file = self.new_directory() / "password"
        file.write_text(f"{LOGIN.password}\n")
        table: Table = {
            "url": parent.url,
            "username": LOGIN.user,
            "password_file": str(file),
            "ca_file": str(self.parent_keys.ca),
        }
        proxy = self.proxy(table)
        self.check_pulls(proxy)
        self.assertNotIn(LOGIN.password, proxy.process.read_log())
        self.assertNotIn(LOGIN.basic.split()[1], proxy.process.read_log())
        # Without its CA it is not trusted, and gets no password.
        del table["ca_file"]
        message = f"TLS with the parent proxy {parent.address}:{parent.port} failed"
        self.assertIn(message, self.error(self.proxy(table)))

    @needs(*Squid.programs)
    def test_wrong_login(self) -> None:
        """The client is told who is at fault."""
        parent = self.parent(Squid, login=True)
        table: Table = {"url": parent.url, "username": WRONG.user, "password": WRONG.password}
        name = f"the parent proxy {parent.address}:{parent.port}"
        for proxy, message in (
            (self.proxy(table), f"{name} does not accept this proxy's login"),
            (self.proxy(parent.url), f"{name} wants a login, and there is none for it"),
        ):
            error = self.error(proxy)
            self.assertIn(message, error)
            self.assertNotIn(WRONG.password, error + proxy.process.read_log())

    @needs(*Microsocks.programs)
    def test_socks(self) -> None:
        """Through microsocks."""
        self.check_pulls(self.proxy(self.parent(Microsocks).url))

    @needs(*Microsocks.programs)
    def test_socks_with_login(self) -> None:
        parent = self.parent(Microsocks, login=True)
        table: Table = {"url": parent.url, "username": ALICE.user, "password": ALICE.password}
        self.check_pulls(self.proxy(table))
        message = "wants a login, and there is none for it"
        self.assertIn(message, self.error(self.proxy(parent.url)))

    @needs(*Squid.programs, *Microsocks.programs)
    def test_tunnels(self) -> None:
        """What is not intercepted goes through the parent, too; some of it does not go at all."""
        self.serve_site()
        for kind in Squid, Microsocks:
            proxy = self.proxy(self.parent(kind).url)
            result = self.curl(proxy, f"https://{SITE}/", self.keys.ca)
            self.assertEqual((result.code, result.output), (0, "hello"), str(result))
            for refused in "https://127.0.0.77/", "https://db/", f"https://{SITE}:444/":
                result = self.curl(proxy, refused, self.keys.ca)
                self.assertIn("CONNECT tunnel failed, response 403", result.output)
        self.assertRegex(
            self.curl(self.proxy(None), f"https://{SITE}/", self.keys.ca).output,
            "CONNECT tunnel failed, response 50[24]",
        )

    def serve_site(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.keys.certificate, self.keys.key)
        server = ThreadingHTTPServer((SITE_ADDRESS, 443), _Greeter)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()


@needs("docker-registry", *Skopeo.programs)
class MirrorTests(WayOutTestCase):
    """A mirror near by, and the registry behind it."""

    def setUp(self) -> None:
        super().setUp()
        self.mirror, self.origin = self.registry(), self.registry()
        self.image = images.image(layers=2)
        self.reference = f"{FAR}/some/app:latest"
        self.origin.push("some/app", "latest", self.image)

    def proxy(self, **keys: Value) -> Proxy:
        section = self.section(self.mirror.url, self.origin.url) | keys
        return self.run_proxy(Proxy(self.new_directory(), {f'registries."{FAR}"': section}))

    def check_pull(self, proxy: Proxy, image: Image, mirror: int, origin: int) -> None:
        """Pull, with so many blobs from each."""
        skopeo = self.skopeo(proxy)
        recordings = self.mirror.record(), self.origin.record()
        skopeo.pull(self.reference).check()
        self.assertEqual(skopeo.image_id(self.reference), image.image_id)
        found = [recording.traffic().gets("blobs").total() for recording in recordings]
        self.assertEqual(found, [mirror, origin])

    def test_bytes_from_the_mirror(self) -> None:
        """What a tag is comes from the registry, and the bytes from the mirror that has them."""
        self.mirror.push("some/app", "latest", self.image)
        new = images.image(layers=1)
        self.mirror.push("some/app", "moved", new)
        proxy = self.proxy()
        self.check_pull(proxy, self.image, mirror=3, origin=0)
        self.origin.push("some/app", "latest", new)
        self.check_pull(proxy, new, mirror=2, origin=0)

    def test_mirror_without_it(self) -> None:
        self.check_pull(self.proxy(), self.image, mirror=0, origin=3)

    def test_mirror_is_gone(self) -> None:
        self.mirror.push("some/app", "latest", self.image)
        self.mirror.process.stop()
        recording = self.origin.record()
        skopeo = self.skopeo(self.proxy())
        skopeo.pull(self.reference).check()
        self.assertEqual(skopeo.image_id(self.reference), self.image.image_id)
        self.assertEqual(recording.traffic().gets("blobs").total(), 3)

    def test_first(self) -> None:
        """``tag_source = "first"``: the registry may be gone from the beginning."""
        self.mirror.push("some/app", "latest", self.image)
        self.origin.process.stop()
        skopeo = self.skopeo(self.proxy(tag_source="first"))
        skopeo.pull(self.reference).check()
        self.assertEqual(skopeo.image_id(self.reference), self.image.image_id)


@needs("docker-registry", *Skopeo.programs)
class ClientCertificateTests(WayOutTestCase):
    """A registry that speaks to clients with a certificate only."""

    def test_mutual_tls(self) -> None:
        authority = make_ca("client CA")
        files = {
            name: _keys(
                self.new_directory(), authority, make_leaf(authority, cn=name, usages=[CLIENT_AUTH])
            )
            for name in ("proxy", "tests")
        }
        registry = _MutualRegistry(self.new_directory(), self.keys, files["tests"])
        self.addCleanup(registry.process.stop)
        self.watch(registry.process)
        image = images.image(layers=1)
        registry.push("some/app", "latest", image)
        reference = f"{FAR}/some/app:latest"
        certificate: Table = {
            "client_cert": str(files["proxy"].certificate),
            "client_key": str(files["proxy"].key),
        }
        for keys, good in ({}, False), (certificate, True):
            section = self.section(registry.url) | keys
            proxy = self.run_proxy(Proxy(self.new_directory(), {f'registries."{FAR}"': section}))
            skopeo = self.skopeo(proxy)
            result = skopeo.pull(reference)
            self.assertEqual(result.code == 0, good, str(result))
        self.assertEqual(skopeo.image_id(reference), image.image_id)


class _MutualRegistry(Registry):
    """One to which the tests, too, speak with a certificate."""

    def __init__(self, directory: Path, keys: Keys, client: Keys) -> None:
        self._client = client
        super().__init__(directory, keys, client_ca=client.ca)

    def connect(self) -> HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.keys.ca))
        context.load_cert_chain(self._client.certificate, self._client.key)
        return HTTPSConnection(ADDRESS, self.port, timeout=30, context=context)


def _keys(directory: Path, authority: Identity, leaf: Identity) -> Keys:
    """Both as files."""
    files = Keys(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    files.ca.write_bytes(authority.certificate_pem)
    files.certificate.write_bytes(leaf.certificate_pem)
    files.key.write_bytes(leaf.key_pem)
    return files

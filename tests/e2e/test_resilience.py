"""What goes on when something is gone: pulls without upstream, and across a crash of the proxy.

Also what many clients at once and artifacts that follow images by their digest need.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPMessage
from pathlib import Path
from typing import Final, TypeVar

from tests.support import images
from tests.support.access_log import Request
from tests.support.clients import Client, Containerd, Docker, Podman, Skopeo
from tests.support.faults import FaultyUpstream, host_name, together
from tests.support.images import OCI_INDEX, Content, Image
from tests.support.process import Process, Result
from tests.support.programs import needs, needs_root
from tests.support.proxy import Proxy, Tables, Value
from tests.support.registry import ALICE, Registry, Server, TokenServer
from tests.support.stage import AUTH_HOST, OPEN_HOST, TOKEN_HOST, EndToEndTestCase
from tests.support.turns import Entry, Script, Turn

#: Wants tokens; its content is read by whoever it would let in.
GONE_HOST: Final = "gone.example.test"
#: Wants a password, which the proxy has.
SHARED_HOST: Final = "shared.example.test"

MiB: Final = 1 << 20

AnyClient = TypeVar("AnyClient", bound=Client)


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
        self.watch_all(client.processes)
        return client

    def start_faulty_upstream(self) -> FaultyUpstream:
        """An upstream that does as it is told."""
        upstream = FaultyUpstream(self.new_directory() / "upstream")
        self.addCleanup(upstream.process.stop)
        self.watch(upstream.process)
        return upstream

    def watch_all(self, processes: tuple[Process, ...]) -> None:
        """Show the logs of *processes* if the test fails."""
        for process in processes:
            self.watch(process)


@needs_root
@needs("docker-registry", "htpasswd", "skopeo")
class UpstreamGoneTests(ResilienceTestCase):
    """The registry and its token server are stopped after a pull."""

    def check(self, kind: type[Client]) -> None:
        """Public and shared content is pulled again; what needs upstream's word is not."""
        servers, tables = self.start_upstreams()
        proxy = self.start_proxy(tables)
        client = self.start_client(kind, proxy)
        public = self.publish_and_pull(servers, client, f"{GONE_HOST}/public/app:latest")
        shared = self.publish_and_pull(servers, client, f"{SHARED_HOST}/team/app:latest")
        private = f"{GONE_HOST}/private/app:latest"
        registry = servers[GONE_HOST]
        assert isinstance(registry, Registry)
        registry.push("private/app", "latest", images.image(layers=1))
        client.pull(private, ALICE).check()
        client.clear()

        for server in servers.values():
            server.process.stop()

        for reference, image in (
            (f"{GONE_HOST}/public/app:latest", public),
            (f"{GONE_HOST}/public/app@{public.digest}", public),
            (f"{SHARED_HOST}/team/app:latest", shared),
        ):
            client.pull(reference).check()
            self.assertEqual(client.image_id(reference), image.image_id)
            client.clear()
        for login in (None, ALICE):
            print("XX", kind, client.pull(private, login))

    def publish_and_pull(self, servers: dict[str, Server], client: Client, reference: str) -> Image:
        """A new image that the proxy has and *client* has not."""
        host, _, name = reference.partition("/")
        repository, _, tag = name.partition(":")
        registry = servers[host]
        assert isinstance(registry, Registry)
        image = images.image()
        registry.push(repository, tag, image)
        client.pull(reference).check()
        client.clear()
        return image

    def start_upstreams(self) -> tuple[dict[str, Server], dict[str, dict[str, Value]]]:
        """Servers by name, and the configuration of a proxy before them."""
        keys = self.stage.keys
        realm = f"https://{AUTH_HOST}/token"
        directory = self.new_directory()
        tokens = TokenServer(directory, keys, realm=realm)
        self.addCleanup(tokens.process.stop)
        gone = Registry.with_tokens(directory, tokens)
        self.addCleanup(gone.process.stop)
        shared = Registry.with_password(self.new_directory(), keys)
        self.addCleanup(shared.process.stop)
        servers: dict[str, Server] = {AUTH_HOST: tokens, GONE_HOST: gone, SHARED_HOST: shared}
        tables: dict[str, dict[str, Value]] = {}
        for host, server in servers.items():
            self.watch(server.process)
            tables[f'registries."{host}"'] = {
                "upstream": [server.url],
                "ca_file": str(keys.ca),
                "relay_private": True,
            }
        tables[f'registries."{SHARED_HOST}"'] |= {
            "username": ALICE.user,
            "password": ALICE.password,
        }
        return servers, tables

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

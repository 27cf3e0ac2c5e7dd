"""The registries behind the servers that are measured. They run beside the clients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from bench.setting import Peer, Setting, check
from bench.way import ADDRESS, Refused, Way
from tests.support import images
from tests.support.images import Image
from tests.support.process import free_port
from tests.support.programs import program
from tests.support.registry import Keys, Registry

#: What clients call the registry.
HOST: Final = "registry.example.test"
#: The repository that everything is in.
REPOSITORY: Final = "bench/image"
# How often a blob is got at most until it comes from a cache: docker-registry stores it
# in the background, by a second request of its own.
_TRIES: Final = 10


@frozen
class Upstream:
    """A registry with TLS."""

    tls_port: int
    keys: Keys

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://{ADDRESS}:{self.tls_port}"

    @property
    def way(self) -> Way:
        """The way straight to it."""
        return Way(self.tls_port, HOST, REPOSITORY, self.keys.ca)


@frozen
class RealRegistry(Upstream):
    """docker-registry."""

    registry: Registry
    storage: Path

    def push_image(self, tag: str, layers: int, size: int) -> Image:
        """Push an image of so many layers of *size* bytes each."""
        image = images.image(layers, size, oci=True)
        self.registry.push(REPOSITORY, tag, image)
        return image


@contextmanager
def real_registry(setting: Setting) -> Iterator[RealRegistry]:
    """A docker-registry that anybody may read and write."""
    directory = setting.subdirectory("upstream")
    keys = _keys(setting)
    registry = Registry(directory, keys)
    try:
        yield RealRegistry(registry.port, keys, registry, directory / "storage")
    finally:
        registry.process.stop()


@frozen
class FileServer(Upstream):
    """nginx that gives blobs from files, as fast as it can or as it is told.

    A docker-registry would be the slowest of all that take part in a first pull.

    Attributes:
        directory: what it serves, with ``v2/`` in it.
        paced: it gives so many bytes a second, without TLS: with it nginx is more than a
            quarter too slow when the machine is busy, and who is measured beside it looks good.
    """

    plain_port: int
    directory: Path
    paced: bool = False

    @property
    def url(self) -> str:
        """Where servers get content from."""
        return self.plain_url if self.paced else super().url

    @property
    def way(self) -> Way:
        """The way straight to it."""
        way = super().way
        return evolve(way, port=self.plain_port, ca_file=None) if self.paced else way

    @property
    def plain_url(self) -> str:
        """Where it is without TLS."""
        return f"http://{ADDRESS}:{self.plain_port}"

    def make_blob(self, size: int) -> str:
        """Have a blob of random bytes; its digest."""
        content = os.urandom(size)
        digest = images.digest(content)
        directory = self.directory / "v2" / REPOSITORY / "blobs"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / digest).write_bytes(content)
        # Nothing is left to be written while others are measured.
        os.sync()
        return digest

    def gets(self, digest: str) -> int:
        """How often this blob was asked for with GET so far."""
        # What was answered before this is answered is in the log: there is one worker.
        with closing(self.way.open()) as connection:
            connection.send(self.way.request("GET", "/v2/"))
            connection.take_answer(is_head=False)
        log = (self.directory.parent / "access.log").read_text()
        return log.splitlines().count(f"GET {self.way.blob(digest)}")

    def fill(self, peer: Peer, digest: str) -> None:
        """Have *peer* get the blob, until it is in its cache.

        Raises:
            Refused: it is not, or it is not right.
        """
        for _ in range(_TRIES):
            before = self.gets(digest)
            check(peer.way, peer.way.blob(digest), digest)
            if self.gets(digest) == before:
                return
        raise Refused(f"{peer.name} does not keep what it got")


@contextmanager
def file_server(setting: Setting, rate: int | None = None) -> Iterator[FileServer]:
    """Start one.

    Args:
        rate: bytes a second for each connection.
    """
    directory = setting.subdirectory("upstream")
    files = directory / "files"
    (files / "v2").mkdir(parents=True)
    keys = _keys(setting)
    tls_port, plain_port = free_port(), free_port()
    config = directory / "nginx.conf"
    # keepalive_requests: a cache that keeps its connection is not to be made to open another.
    config.write_text(
        f"""
        daemon off; user root; worker_processes 1; pid {directory}/pid;
        error_log {directory}/error.log warn;
        events {{ worker_connections 1024; }}
        http {{
            log_format requests "$request_method $request_uri";
            access_log {directory}/access.log requests;
            default_type application/octet-stream;
            sendfile on; keepalive_requests 1000000;
            {f"limit_rate {rate};" if rate else ""}
            server {{
                listen {ADDRESS}:{plain_port};
                listen {ADDRESS}:{tls_port} ssl;
                ssl_protocols TLSv1.2 TLSv1.3;
                ssl_certificate {keys.certificate}; ssl_certificate_key {keys.key};
                root {files};
                add_header Docker-Distribution-API-Version registry/2.0 always;
                location = /v2/ {{ return 200 "{{}}"; }}
                location ~ /blobs/(sha256:[0-9a-f]+)$ {{ add_header Docker-Content-Digest $1; }}
            }}
        }}
        """
    )
    command = [program("nginx"), "-e", f"{directory}/error.log", "-c", str(config)]
    with setting.serving("file-server", command, tls_port, measured=False):
        yield FileServer(tls_port, keys, plain_port, files, paced=rate is not None)


def _keys(setting: Setting) -> Keys:
    return Keys.make(setting.subdirectory("keys"), HOST)

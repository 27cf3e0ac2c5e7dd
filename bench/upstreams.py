"""The registries behind the servers that are measured. They run beside the clients."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from bench.setting import Setting
from bench.way import ADDRESS, Way
from tests.support import images
from tests.support.images import Content, Image
from tests.support.process import Process, free_port
from tests.support.programs import program
from tests.support.registry import Keys, Registry

#: What clients call the registry.
HOST: Final = "registry.example.test"
#: The repository that everything is in.
REPOSITORY: Final = "bench/image"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"


@frozen
class Upstream:
    """A registry, on a port with TLS and on one without."""

    tls_port: int
    plain_port: int
    keys: Keys

    @property
    def tls_url(self) -> str:
        """Where it is, with TLS."""
        return f"https://{ADDRESS}:{self.tls_port}"

    @property
    def plain_url(self) -> str:
        """Where it is, without."""
        return f"http://{ADDRESS}:{self.plain_port}"

    @property
    def way(self) -> Way:
        """The way straight to it."""
        return Way(self.tls_port, HOST, REPOSITORY, self.keys.ca)


@frozen
class RealRegistry(Upstream):
    """docker-registry."""

    registry: Registry

    def push_blob(self, size: int) -> str:
        """Push random bytes; their digest."""
        blob = Content(_LAYER, os.urandom(size))
        self.registry.push_blob(REPOSITORY, blob)
        return blob.digest

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
    with ExitStack() as stack:
        registry = Registry(directory, keys)
        stack.callback(registry.process.stop)
        # A second one over the same storage.
        port = free_port()
        config = json.loads((directory / "config.yml").read_text())
        config["http"] = {"addr": f"{ADDRESS}:{port}"}
        file = directory / "plain.yml"
        file.write_text(json.dumps(config))
        command = [program("docker-registry"), "serve", str(file)]
        stack.enter_context(setting.serving("plain-upstream", command, port, measured=False))
        yield RealRegistry(registry.port, port, keys, registry)


@frozen
class FileServer(Upstream):
    """nginx that gives blobs from files, as fast as it can or as it is told.

    A docker-registry would be the slowest of all that take part in a first pull.
    """

    directory: Path
    process: Process

    def make_blob(self, size: int) -> str:
        """Have a blob of random bytes; its digest."""
        content = os.urandom(size)
        digest = images.digest(content)
        directory = self.directory / "v2" / REPOSITORY / "blobs"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / digest).write_bytes(content)
        return digest

    def gets(self) -> Counter[str]:
        """How often each target was asked for with GET so far."""
        lines = (self.directory.parent / "access.log").read_text().splitlines()
        requests = (line.split(" ") for line in lines)
        return Counter(target for method, target in requests if method == "GET")


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
    with setting.serving("file-server", command, tls_port, measured=False) as process:
        yield FileServer(tls_port, plain_port, keys, files, process)


def _keys(setting: Setting) -> Keys:
    return Keys.make(setting.subdirectory("keys"), HOST)

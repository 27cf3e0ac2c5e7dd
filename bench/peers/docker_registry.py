"""docker-registry: as a pull-through cache without TLS, and as the registry itself with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.setting import Peer, Setting
from bench.upstreams import REPOSITORY, FileServer, RealRegistry
from bench.way import ADDRESS, Way
from tests.support.process import free_port
from tests.support.programs import program


@contextmanager
def docker_registry(setting: Setting, upstream: FileServer) -> Iterator[Peer]:
    """A cache before *upstream*, empty."""
    way = Way(free_port(), ADDRESS, REPOSITORY)
    storage = setting.subdirectory("docker-registry") / "storage"
    proxy = {"proxy": {"remoteurl": upstream.plain_url}}
    with _serving(setting, "docker-registry", way, storage, proxy) as peer:
        yield peer


@contextmanager
def straight(setting: Setting, upstream: RealRegistry) -> Iterator[Peer]:
    """A registry with the content of *upstream*, which runs where servers run."""
    keys = upstream.keys
    # Clients find it by its address: there is no name service that knows it.
    way = Way(free_port(), ADDRESS, REPOSITORY, keys.ca)
    tls = {"certificate": str(keys.certificate), "key": str(keys.key)}
    with _serving(setting, "straight", way, upstream.storage, {}, tls=tls) as peer:
        yield peer


@contextmanager
def _serving(
    setting: Setting, name: str, way: Way, storage: Path, more: dict[str, Any], **http: Any
) -> Iterator[Peer]:
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"{ADDRESS}:{way.port}", **http},
        **more,
    }
    file = setting.subdirectory(name) / "config.yml"
    # JSON is YAML.
    file.write_text(json.dumps(config))
    command = [program("docker-registry"), "serve", str(file)]
    with setting.serving(name, command, way.port) as process:
        yield Peer(name, process, way)

"""docker-registry as a pull-through cache, without TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from bench.setting import Peer, Setting
from bench.upstreams import REPOSITORY, FileServer
from bench.way import ADDRESS, Way
from tests.support.process import free_port
from tests.support.programs import program


@contextmanager
def docker_registry(setting: Setting, upstream: FileServer) -> Iterator[Peer]:
    """Before *upstream*, with an empty cache."""
    directory = setting.subdirectory("docker-registry")
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
        "http": {"addr": f"{ADDRESS}:{port}"},
        "proxy": {"remoteurl": upstream.plain_url},
    }
    file = directory / "config.yml"
    # JSON is YAML.
    file.write_text(json.dumps(config))
    command = [program("docker-registry"), "serve", str(file)]
    with setting.serving("docker-registry", command, port) as process:
        yield Peer("docker-registry", process, Way(port, ADDRESS, REPOSITORY))

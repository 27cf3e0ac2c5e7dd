"""drayage (PyPI), a pull-through cache in Rust, as a mirror without TLS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.setting import Peer, Setting
from bench.upstreams import HOST, REPOSITORY, FileServer
from bench.way import ADDRESS, Way
from tests.support.process import free_port


@contextmanager
def drayage(setting: Setting, upstream: FileServer) -> Iterator[Peer]:
    """Before *upstream*, with an empty cache."""
    directory = setting.subdirectory("drayage")
    (directory / "cache").mkdir()
    port = free_port()
    config = directory / "config.toml"
    # A host's table has its name with underscores.
    table = HOST.replace(".", "_").replace("-", "_")
    config.write_text(
        f"""
        listen = "{ADDRESS}:{port}"
        cache_dir = "{directory}/cache"
        [upstreams.{table}]
        registry = "{upstream.plain_url}"
        """
    )
    command = [str(Path(sys.executable).with_name("drayage")), "serve", "--config", str(config)]
    with setting.serving("drayage", command, port) as process:
        yield Peer("drayage", process, Way(port, ADDRESS, f"{HOST}/{REPOSITORY}"))

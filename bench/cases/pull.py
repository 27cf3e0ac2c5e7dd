"""Real clients pull an image that is in the cache, or straight from its registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.case import Case, Contestants, Figure, Sample, at_most
from bench.peers.docker_registry import straight
from bench.peers.regproxy import regproxy
from bench.setting import Peer, Setting
from bench.upstreams import REPOSITORY, real_registry
from bench.way import ADDRESS, Refused
from tests.support.clients import Client, Docker, Skopeo
from tests.support.images import Image

_TAG = "latest"


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Have the image in the cache, and two clients of each kind."""
    scale = setting.scale
    with ExitStack() as stack:
        upstream = stack.enter_context(real_registry(setting))
        image = upstream.push_image(_TAG, scale.image, scale.layer)
        proxy = stack.enter_context(regproxy(setting, upstream))
        registry = stack.enter_context(straight(setting, upstream))
        contestants: dict[str, Callable[[], Sample]] = {}
        for peer in (proxy, registry):
            way = peer.way
            host = way.host if way.connect else f"{ADDRESS}:{way.port}"
            clients = [_client(kind, setting, peer, stack) for kind in (Docker, Skopeo)]
            take = partial(measure, clients, f"{host}/{REPOSITORY}:{_TAG}", image)
            # It is warm after that.
            take()
            contestants[peer.name] = take
        yield contestants


def _name(kind: type[Client]) -> str:
    return kind.__name__.lower()


def _client(kind: type[Client], setting: Setting, peer: Peer, stack: ExitStack) -> Client:
    way = peer.way
    directory = setting.subdirectory(f"{_name(kind)}-{peer.name}")
    # Go's clients use no proxy for a loopback address.
    proxy_url = f"http://{ADDRESS}:{way.port}" if way.connect else ""
    assert way.ca_file is not None
    client = kind(directory, proxy_url, way.ca_file)
    stack.callback(client.close)
    return client


def measure(clients: Sequence[Client], reference: str, image: Image) -> Sample:
    """Each client pulls the image, and forgets it."""
    sample = {}
    for client in clients:
        begun = time.monotonic()
        client.pull(reference).check()
        sample[_name(type(client))] = time.monotonic() - begun
        if client.image_id(reference) != image.image_id:
            raise Refused(f"{reference} is not the image that was pushed")
        client.clear()
    return sample


CASE = Case(
    name="pull",
    title="real pull, warm: image of 6 layers, 300 MiB",
    figures=(Figure("docker", "dockerd", "s"), Figure("skopeo", "skopeo", "s")),
    targets=(
        at_most("docker", 1.0, of="straight"),
        at_most("skopeo", 1.0, of="straight"),
    ),
    begin=begin,
)

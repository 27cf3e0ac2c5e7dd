"""Small answers from the cache on kept TLS connections: manifests, and HEADs of all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.case import Case, Contestants, Figure, Sample, at_least
from bench.hammer import Question, hammer
from bench.peers.nginx import nginx
from bench.peers.regproxy import regproxy
from bench.setting import Peer, Setting, check, use
from bench.upstreams import real_registry
from tests.support.images import Image

TAG = "latest"


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Have an image in every cache."""
    with ExitStack() as stack:
        upstream = stack.enter_context(real_registry(setting))
        image = upstream.push_image(TAG, layers=1, size=4096)
        peers = setting.start(stack, upstream, regproxy, nginx)
        for peer in peers:
            warm(peer, image)
        yield {peer.name: partial(measure, setting, peer, image) for peer in peers}


def warm(peer: Peer, image: Image) -> None:
    """Get all that will be asked for."""
    way = peer.way
    for reference in (TAG, image.digest):
        check(way, way.manifest(reference), image.digest)
    check(way, way.blob(image.image_id), image.image_id)


def measure(setting: Setting, peer: Peer, image: Image) -> Sample:
    """A client's questions for an image that it may have, again and again."""
    way = peer.way
    questions = [
        Question("HEAD", way.manifest(TAG)),
        Question("GET", way.manifest(TAG)),
        Question("GET", way.manifest(image.digest)),
        Question("HEAD", way.blob(image.image_id)),
    ]
    answered = 0

    def work() -> None:
        nonlocal answered
        answered = hammer(way, questions, setting.scale.requests)

    used = use(peer, work)
    return {"per_cpu_second": answered / used.server}


CASE = Case(
    name="small",
    title="manifests and HEADs, kept alive, TLS",
    figures=(Figure("per_cpu_second", "requests of the server", "/CPU s", 0),),
    targets=(at_least("per_cpu_second", 0.35, of="nginx"),),
    begin=begin,
)

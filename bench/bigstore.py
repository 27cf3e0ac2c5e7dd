"""A store of a million blobs: what a proxy over it takes to start, to serve and to keep house.

``python -m bench.bigstore [--count N] [--directory DIR] [--json FILE]``

The store is made of real files of some bytes each, and of an index that has for each of them
what a pull leaves: a row of content, one of membership, one of a tag. Then

- a real ``twistd regproxy`` starts over a store of one blob, and over this one. The index
  lacks one of the files, so that the log tells when files and index have been brought
  together; a client asks for content all the while;
- in a process of their own the parts that keep house run one after the other, beside a
  clock that tells how late the reactor is.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

from twisted.internet import task
from twisted.internet.defer import ensureDeferred

from regproxy.config.model import DAY, CacheSection, Config
from regproxy.oci.media_types import normalise_accept
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.store.disk import BlobDirectory, ThreadWorkers
from regproxy.store.eviction import Eviction
from regproxy.store.forgetting import Forgetting
from regproxy.store.housekeeping import Leisure
from regproxy.store.index import Index, TagKey
from regproxy.store.reconciliation import Reconciliation
from regproxy.store.store import Store
from regproxy.wiring import Foundation
from tests.support.process import environment
from tests.support.proxy import ADDRESS, Proxy

MILLION: Final = 1_000_000
HOST: Final = Host("registry.example.test")
ACCEPT: Final = "application/vnd.oci.image.manifest.v1+json"
REPOSITORIES: Final = 1000
#: Nothing is asked upstream, where nobody is.
TABLES: Final[dict[str, dict[str, Any]]] = {
    "cache": {"max_size": "1024GiB"},
    "freshness": {"default": "365d"},
    f'registries."{HOST}"': {"upstream": ["https://127.0.0.1:9"], "access": "shared"},
}

# Look-ups of which the percentiles are told; seconds that the rest of a start may take.
SAMPLE: Final = 5000
PATIENCE: Final = 600.0
# Seconds from one look at how late the reactor is to the next.
_BEAT: Final = 0.002

Figures = dict[str, float]


def content_of(number: int) -> bytes:
    """What is in a blob."""
    return b"blob %d" % number


def digest_of(number: int) -> Digest:
    """What it is called."""
    return Digest.of(content_of(number))


def repository_of(number: int) -> Repository:
    """Where it is from."""
    return Repository(f"team-{number % REPOSITORIES:03}/application")


def tag_of(number: int) -> Tag:
    """The one tag that points to it."""
    return Tag(f"build-{number}")


# How it is made.


def build(cache: Path, count: int) -> None:
    """Make a store of *count* blobs below *cache*, and one that the index does not know."""
    directory = BlobDirectory(cache)
    directory.prepare()
    path = cache / "index.sqlite3"
    index = Index(path, _NoWorkers())
    index.open()
    index.close()
    for prefix in range(256):
        (cache / "blobs" / "sha256" / f"{prefix:02x}").mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        # Gibibytes for the time of making it, so that the order does not matter.
        connection.execute("PRAGMA cache_size = -4000000")
        files = _files(directory, count)
        while rows := list(islice(files, 10_000)):
            _insert(connection, rows)
    _write(directory, count)


def _files(directory: BlobDirectory, count: int) -> Iterator[tuple[int, str, os.stat_result]]:
    for number in range(count):
        yield number, *_write(directory, number)


def _write(directory: BlobDirectory, number: int) -> tuple[str, os.stat_result]:
    digest = digest_of(number)
    descriptor = os.open(directory.path(digest), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(descriptor, content_of(number))
        return str(digest), os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _insert(
    connection: sqlite3.Connection, rows: Sequence[tuple[int, str, os.stat_result]]
) -> None:
    now = time.time()
    chance = random.Random(rows[0][0])
    accept = normalise_accept([ACCEPT.encode()])
    connection.executemany(
        "INSERT INTO content (digest, size, stored_at, last_access, verified_at, changed)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            (digest, stat.st_size, now, *_times(now, chance), stat.st_ctime_ns)
            for _, digest, stat in rows
        ),
    )
    connection.executemany(
        "INSERT INTO membership VALUES (?, ?, ?, ?, ?)",
        (
            (str(HOST), str(repository_of(number)), digest, ACCEPT, now)
            for number, digest, _ in rows
        ),
    )
    connection.executemany(
        "INSERT INTO tag VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                str(HOST),
                str(repository_of(number)),
                str(tag_of(number)),
                accept,
                digest,
                ACCEPT,
                now - chance.uniform(0, 30 * DAY),
                now,
            )
            for number, digest, _ in rows
        ),
    )


def _times(now: float, chance: random.Random) -> tuple[float, float]:
    """When content was last used, and verified: neither so long ago that anything is due."""
    return now - chance.uniform(0, 50 * DAY), now - chance.uniform(0, 20 * DAY)


class _NoWorkers:
    """For an index that is opened and closed only."""

    def run(self, call: Callable[[], Any]) -> Any:
        raise AssertionError("nothing is written")


# From outside: a real process, and a client.


class Client:
    """A client that keeps its connection."""

    def __init__(self, proxy: Proxy) -> None:
        context = ssl.create_default_context(cafile=str(proxy.ca_file))
        port = int(proxy.url.rpartition(":")[2])
        self._connection = http.client.HTTPSConnection(ADDRESS, port, timeout=60, context=context)
        self._connection.set_tunnel(HOST.name, 443)

    def get(self, number: int) -> float:
        """Seconds until one blob is here; the even ones are asked for by their tag."""
        kind, reference = (
            ("blobs", digest_of(number)) if number % 2 else ("manifests", tag_of(number))
        )
        target = f"/v2/{repository_of(number)}/{kind}/{reference}"
        begun = time.monotonic()
        self._connection.request("GET", target, headers={"Accept": ACCEPT})
        response = self._connection.getresponse()
        body = response.read()
        seconds = time.monotonic() - begun
        if (response.status, body) != (200, content_of(number)):
            raise AssertionError(f"{target} was answered with {response.status}: {body[:200]!r}")
        return seconds

    def close(self) -> None:
        """Leave."""
        self._connection.close()


def measure_process(proxy: Proxy, count: int) -> Figures:
    """Start *proxy*, which is over a store of *count* blobs, and use it."""
    chance = random.Random(1)
    told = proxy.process.log.stat().st_size
    begun = time.monotonic()
    proxy.start()
    try:
        client = Client(proxy)
        client.get(0)
        figures = {"start to first hit, s": time.monotonic() - begun}
        meanwhile = [client.get(chance.randrange(count))]
        while "brought up to date: 1 blobs added, 0 removed" not in proxy.process.read_log(told):
            meanwhile += [client.get(chance.randrange(count)) for _ in range(20)]
            if time.monotonic() - begun > PATIENCE:
                raise AssertionError(proxy.process.tail(told))
        figures["start to files and index as one, s"] = time.monotonic() - begun
        figures |= percentiles("hit meanwhile", meanwhile)
        afterwards = [client.get(chance.randrange(count)) for _ in range(SAMPLE)]
        figures |= percentiles("hit afterwards", afterwards)
        client.close()
        for name, field in ("RSS", "VmRSS"), ("RSS at most", "VmHWM"):
            figures[f"{name}, MiB"] = memory(proxy.process.pid, field)
    finally:
        begun = time.monotonic()
        proxy.process.stop()
    return figures | {"stop, s": time.monotonic() - begun}


def memory(pid: int, field: str) -> float:
    """MiB of *field* in ``/proc/PID/status``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise LookupError(field)


def percentiles(name: str, seconds: Sequence[float]) -> Figures:
    """What of *seconds* tells most, in ms."""
    ordered = sorted(seconds)
    parts = {"median": 0.5, "99 %": 0.99, "most": 1.0}
    return {
        f"{name}, {part}, ms": 1000 * ordered[min(int(len(ordered) * share), len(ordered) - 1)]
        for part, share in parts.items()
    }


# From inside: the parts, one after the other.


class Lateness:
    """Tells how late the reactor comes to what is due."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.seconds: list[float] = []
        self._beat(reactor.seconds())

    def _beat(self, due: float) -> None:
        now = self._reactor.seconds()
        self.seconds.append(max(0.0, now - due))
        self._reactor.callLater(_BEAT, self._beat, now + _BEAT)

    async def during(self, name: str, work: Callable[[], Awaitable[object]]) -> Figures:
        """How long *work* takes, and how late the reactor is meanwhile."""
        self.seconds.clear()
        begun = time.monotonic()
        await work()
        figures = {f"{name}, s": time.monotonic() - begun}
        # The beat that was due last comes as late as the others.
        await task.deferLater(self._reactor, 2 * _BEAT)
        return figures | percentiles(f"reactor late during {name}", self.seconds)


async def measure_parts(reactor: Any, data: Path, count: int) -> Figures:
    """Open the store below *data*, and let it keep house."""
    chance = random.Random(2)
    foundation = Foundation.lay(reactor, Config(data, cache=CacheSection(max_size=1 << 40)))
    workers = ThreadWorkers(reactor, foundation.disk_pool)
    index, store = foundation.index, foundation.store
    before = memory(os.getpid(), "VmRSS")
    begun = time.monotonic()
    index.open()
    figures = {"open, s": time.monotonic() - begun}
    foundation.disk_pool.start()
    foundation.index_pool.start()
    late = Lateness(reactor)

    async def reconcile() -> None:
        pause = Leisure(reactor).pause
        await Reconciliation(foundation.directory, index.inventory, workers, pause).run()

    async def forget() -> None:
        # As if nobody had used anything for three days: what has lost its content goes.
        later = lambda: time.time() + 3 * DAY  # noqa: E731
        await Forgetting(index.inventory, Leisure(reactor).pause, later).run(60 * DAY)

    async def ask() -> None:
        for _ in range(1000):
            begun = time.monotonic()
            await foundation.housekeeping.stats()
            asked.append(time.monotonic() - begun)

    async def use() -> None:
        for number in range(0, count, 10):
            store.uses.touch(digest_of(number))
            if number % 1000 == 0:
                await task.deferLater(reactor, 0)
        await store.flush_access_times()

    async def evict() -> None:
        # Last uses are spread over fifty days.
        rules = CacheSection(max_size=1 << 40, inactive=49.5 * DAY)
        await Eviction(foundation.directory, index.inventory, workers, store.uses, time.time).run(
            rules
        )

    try:
        figures |= await late.during("nothing", lambda: task.deferLater(reactor, 2.0))
        figures |= await late.during("reading the index", lambda: index.repair(workers))
        figures |= await late.during("bringing files and index together", reconcile)
        asked: list[float] = []
        figures |= await late.during("1000 statistics", ask)
        figures |= percentiles("statistics", asked)
        figures |= await late.during("eviction of 1 %", evict)
        figures |= await late.during("forgetting of 1 %", forget)
        figures |= await late.during("use of 10 %", use)
        figures |= look_up(index, store, [chance.randrange(count) for _ in range(SAMPLE)])
        figures["RSS grown by, MiB"] = memory(os.getpid(), "VmRSS") - before
    finally:
        foundation.disk_pool.stop()
        foundation.index_pool.stop()
        index.close()
    return figures


def look_up(index: Index, store: Store, numbers: Sequence[int]) -> Figures:
    """What a hit looks up, piece by piece."""
    accept = normalise_accept([ACCEPT.encode()])
    tags, memberships, blobs = [], [], []
    for number in numbers:
        digest, repository = digest_of(number), repository_of(number)
        begun = time.monotonic()
        index.tag(TagKey(HOST, repository, tag_of(number), accept))
        tags.append(time.monotonic() - begun)
        begun = time.monotonic()
        index.membership(HOST, repository, digest)
        memberships.append(time.monotonic() - begun)
        begun = time.monotonic()
        blob = store.open(digest)
        if blob is not None:
            blob.close()
        blobs.append(time.monotonic() - begun)
    return (
        percentiles("tag", tags)
        | percentiles("membership", memberships)
        | percentiles("blob", blobs)
    )


# All of it.


def run(directory: Path, count: int) -> dict[str, Figures]:
    """All figures of a store of *count* blobs below *directory*, beside those of one blob."""
    proxy = Proxy(directory, TABLES)
    proxy.process.stop()
    found = {}
    for blobs in (1, count):
        shutil.rmtree(proxy.data / "cache")
        begun = time.monotonic()
        build(proxy.data / "cache", blobs)
        made = time.monotonic() - begun
        database = (proxy.data / "cache" / "index.sqlite3").stat().st_size / (1 << 20)
        figures = {"blobs": float(blobs), "making it, s": made, "index, MiB": database}
        figures |= measure_process(proxy, blobs)
        arguments = [sys.executable, "-m", __spec__.name, "--count", str(blobs), "--inside"]
        inside = subprocess.run(
            [*arguments, str(proxy.data)], stdout=subprocess.PIPE, check=True, env=environment()
        )
        found[f"{blobs} blobs"] = figures | json.loads(inside.stdout)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=MILLION)
    parser.add_argument("--directory", type=Path, help="where the store is made")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        task.react(
            lambda reactor: ensureDeferred(
                measure_parts(reactor, options.inside, options.count)
            ).addCallback(lambda figures: print(json.dumps(figures)))
        )
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        found = run(Path(directory), options.count)
    for name in max(found.values(), key=len):
        print(f"{name:60}", *(f"{figures[name]:12.2f}" for figures in found.values()))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""A store of a million blobs: what it takes to start over it, to serve it, and to keep house.

The store is made of real files of some bytes each, and of an index that has for each of them
what a pull leaves: a row of content, one of membership, one of a tag. Then

- a real process starts over it, and one over a store of one blob. The index lacks one of
  the files, so that the log tells when files and index have been brought together; a client
  asks for content all the while;
- in a process of their own the parts that keep house run one after the other, beside a
  beat that tells how the reactor gets on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from twisted.internet import task
from twisted.internet.defer import Deferred, ensureDeferred

from bench.case import Case, Contestants, Figure, Sample, at_most
from bench.machine import memory
from bench.setting import MiB, Setting
from bench.way import ACCEPT, Connection, Refused, Way
from regproxy.config.model import DAY, CacheSection, Config
from regproxy.oci.media_types import normalise_accept
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.store.disk import BlobDirectory, ThreadWorkers
from regproxy.store.eviction import Eviction
from regproxy.store.forgetting import Forgetting
from regproxy.store.housekeeping import Leisure
from regproxy.store.index import Index
from regproxy.store.inventory import INSERT
from regproxy.store.reconciliation import Reconciliation
from regproxy.wiring import Foundation
from tests.support.process import environment
from tests.support.proxy import Proxy, Value
from tests.support.workers import Now, no_pause

HOST: Final = Host("registry.example.test")
MEDIA_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
REPOSITORIES: Final = 1000
#: Nothing is asked upstream, where nobody is; nothing leaves by itself.
TABLES: Final[dict[str, dict[str, Value]]] = {
    "cache": {"max_size": "1024GiB"},
    "freshness": {"default": "365d"},
    f'registries."{HOST}"': {"upstream": ["https://127.0.0.1:9"], "access": "shared"},
}
#: What makes an index from being brought up to date tell so.
UP_TO_DATE: Final = "The index was brought up to date: 1 blobs added, 0 removed"

# Questions for the statistics.
_QUESTIONS: Final = 1000
# Seconds that may pass until then; seconds from one beat beside the parts to the next.
_PATIENCE: Final = 600.0
_BEAT: Final = 0.002
# Rows of one statement while the store is made.
_ROWS: Final = 10_000
# Seconds since the last use, and since the verification, are spread evenly over these.
_NEW: Final = (0, 25 * DAY)
_OLD: Final = (25 * DAY, 50 * DAY)
_VERIFIED: Final = (0, 20 * DAY)


# What is in it.


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


@frozen
class _File:
    """A file that was written."""

    number: int
    digest: str
    stat: os.stat_result

    @classmethod
    def write(cls, directory: BlobDirectory, number: int) -> _File:
        """Write the blob *number*."""
        digest = digest_of(number)
        descriptor = os.open(directory.path(digest), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(descriptor, content_of(number))
            return cls(number, str(digest), os.fstat(descriptor))
        finally:
            os.close(descriptor)


def make(cache: Path, blobs: int) -> None:
    """Make a store of so many *blobs* below *cache*."""
    directory = BlobDirectory(cache)
    directory.prepare()
    for prefix in range(256):
        (cache / "blobs" / "sha256" / f"{prefix:02x}").mkdir(parents=True)
    path = cache / "index.sqlite3"
    index = Index(path, Now())
    index.open()
    index.close()
    files = (_File.write(directory, number) for number in range(blobs))
    with closing(sqlite3.connect(path)) as connection, connection:
        # Gibibytes, so that it does not matter that digests come in no order.
        connection.execute("PRAGMA cache_size = -4000000")
        while batch := list(islice(files, _ROWS)):
            _insert(connection, batch, in_use(blobs))
        # As if each had been looked into: it is no manifest, and its tag an image all the same.
        connection.execute("DELETE FROM pending")
        connection.execute(
            "UPDATE image SET (shown, bytes, last_used) = (SELECT TRUE, size, last_access"
            " FROM content WHERE content.digest = image.digest) WHERE tag != ''"
        )


def in_use(blobs: int) -> int:
    """How many of the blobs a client asks for: the others are older, and are evicted."""
    return max(1, blobs // 2)


def _insert(connection: sqlite3.Connection, files: Sequence[_File], used: int) -> None:
    now = time.time()
    chance = random.Random(files[0].number)
    accept = normalise_accept([ACCEPT.encode()])
    names = [(str(HOST), str(repository_of(each.number)), each) for each in files]
    connection.executemany(
        INSERT,
        (
            (
                each.digest,
                each.stat.st_size,
                now,
                now - chance.uniform(*(_NEW if each.number < used else _OLD)),
                now - chance.uniform(*_VERIFIED),
                each.stat.st_ctime_ns,
            )
            for each in files
        ),
    )
    connection.executemany(
        "INSERT INTO membership VALUES (?, ?, ?, ?, ?)",
        ((host, name, each.digest, MEDIA_TYPE, now) for host, name, each in names),
    )
    connection.executemany(
        "INSERT INTO tag VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (host, name, str(tag_of(each.number)), accept, each.digest, MEDIA_TYPE, now, now)
            for host, name, each in names
        ),
    )


# From outside: a real process, and a client.


class _Stored(Proxy):
    """A proxy that runs where servers are to run, over a store that is made."""

    def __init__(self, setting: Setting, name: str, blobs: int) -> None:
        self._setting = setting
        self.blobs = blobs
        # The first start makes the CA and an empty store, the ones that count find them.
        super().__init__(setting.subdirectory(name), TABLES)
        self.process.stop()
        shutil.rmtree(self.data / "cache")
        make(self.data / "cache", blobs)
        self._unknown = count(blobs)
        # What is counted after the start has come to its end.
        self._hits = setting.scale.stored // 200

    def arguments(self) -> list[str]:
        return self._setting.pinned(super().arguments())

    def run(self) -> Sample:
        """Start it, and use it."""
        _File.write(BlobDirectory(self.data / "cache"), next(self._unknown))
        told = self.process.log.stat().st_size
        chance = random.Random(1)
        used = in_use(self.blobs)
        begun = time.monotonic()
        self.start()
        try:
            way = Way(self.port, HOST.name, "", self.ca_file, connect=True)
            with closing(way.open()) as client:
                get(client, way, 0)
                sample = {"start": time.monotonic() - begun}
                meanwhile: list[float] = []
                while not meanwhile or UP_TO_DATE not in self.process.read_log(told):
                    meanwhile += [get(client, way, chance.randrange(used)) for _ in range(20)]
                    if time.monotonic() - begun > _PATIENCE:
                        raise Refused(self.process.tail(told))
                sample["reconciled"] = time.monotonic() - begun
                after = [get(client, way, chance.randrange(used)) for _ in range(self._hits)]
            sample |= _spread("meanwhile", meanwhile) | _spread("after", after)
            sample["rss"] = memory(self.process.pid) / MiB
        finally:
            begun = time.monotonic()
            self.process.stop()
        return sample | {"stop": time.monotonic() - begun}


def get(client: Connection, way: Way, number: int) -> float:
    """Seconds until one blob is here; the even ones are asked for by their tag.

    Raises:
        Refused: something else came.
    """
    target = f"/v2/{repository_of(number)}/"
    target += f"blobs/{digest_of(number)}" if number % 2 else f"manifests/{tag_of(number)}"
    begun = time.monotonic()
    client.send(way.request("GET", target))
    status, _, body = client.read_head()
    expected = content_of(number)
    while status == 200 and len(body) < len(expected):
        body += client.receive()
    seconds = time.monotonic() - begun
    if (status, body) != (200, expected):
        raise Refused(f"{target} was answered with {status}: {body[:200]!r}")
    return seconds


def _spread(name: str, seconds: Sequence[float]) -> Sample:
    """The median of *seconds*, and what one in a hundred exceeds, in ms."""
    ordered = sorted(seconds)
    return {
        name: 1000 * ordered[len(ordered) // 2],
        f"{name}_99": 1000 * ordered[len(ordered) * 99 // 100],
    }


# From inside: the parts that keep house.


class Beat:
    """Tells how late the reactor comes to what is due, and what of the CPU it uses meanwhile.

    It is late when a call holds it, and when another thread or process runs in its place.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._late: list[float] = []
        self._held: list[float] = []
        self._used = time.thread_time()
        self._beat(reactor.seconds())

    def _beat(self, due: float) -> None:
        now, used = self._reactor.seconds(), time.thread_time()
        self._late.append(max(0.0, now - due))
        self._held.append(used - self._used)
        self._used = used
        self._reactor.callLater(_BEAT, self._beat, now + _BEAT)

    async def during(self, name: str, work: Callable[[], Awaitable[object]]) -> Sample:
        """How long *work* takes, and how it goes with the reactor meanwhile."""
        self._late.clear()
        self._held.clear()
        begun = time.monotonic()
        await work()
        took = time.monotonic() - begun
        # The beat that was due last comes as late as the others.
        await task.deferLater(self._reactor, 2 * _BEAT)
        late = _spread(f"{name}_late", self._late)
        return {name: took, f"{name}_held": 1000 * max(self._held)} | late


async def keep_house(reactor: Any, data: Path) -> Sample:
    """Open the store below *data*, and have each part work once."""
    foundation = Foundation.lay(reactor, Config(data, cache=CacheSection(max_size=1 << 40)))
    workers = ThreadWorkers(reactor, foundation.disk_pool)
    directory, index, store = foundation.directory, foundation.index, foundation.store
    inventory = index.inventory
    index.open()
    foundation.disk_pool.start()
    foundation.index_pool.start()
    asked: list[float] = []

    async def reconcile() -> None:
        await Reconciliation(directory, inventory, workers, Leisure(reactor).pause).run()

    async def ask() -> None:
        for _ in range(_QUESTIONS):
            begun = time.monotonic()
            await foundation.housekeeping.stats()
            asked.append(time.monotonic() - begun)

    async def evict() -> None:
        (oldest,) = await inventory.oldest(None, 1)
        rules = CacheSection(max_size=1 << 40, inactive=0.99 * (time.time() - oldest.last_access))
        await Eviction(directory, inventory, workers, store.uses, time.time).run(rules)

    async def forget() -> None:
        # As if nobody had used anything for some days: what has lost its content goes. Without
        # the pauses, which make three quarters of its time.
        await Forgetting(inventory, no_pause, lambda: time.time() + 3 * DAY).run(60 * DAY)

    async def use() -> None:
        blobs = (await inventory.total()).blobs
        for number in range(0, blobs, 10):
            store.uses.touch(digest_of(number))
            if number % 1000 == 0:
                await task.deferLater(reactor, 0)
        await store.flush_access_times()

    try:
        beat = Beat(reactor)
        sample = await beat.during("rest", lambda: task.deferLater(reactor, 1.0))
        sample |= await beat.during("repair", lambda: index.repair(workers))
        sample |= await beat.during("reconcile", reconcile)
        sample |= await beat.during("ask", ask)
        sample |= await beat.during("evict", evict)
        sample |= await beat.during("forget", forget)
        sample |= await beat.during("use", use)
    finally:
        foundation.disk_pool.stop()
        foundation.index_pool.stop()
        index.close()
    return sample | _spread("statistics", asked)


# Both.


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Make the two stores."""
    one = _Stored(setting, "one", 1)
    many = _Stored(setting, "many", setting.scale.stored)

    def measure() -> Sample:
        alone = one.run()
        sample = many.run()
        sample["grown"] = max(sample["rss"] - alone["rss"], 0.0)
        program = f"from {__name__} import main; main({str(many.data)!r})"
        command = setting.pinned([sys.executable, "-c", program])
        inside = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment())
        sample.update(json.loads(inside.stdout))
        return sample

    yield {"regproxy": measure}


_PARTS: Final = {
    "rest": "nothing",
    "repair": "reading the index",
    "reconcile": "comparing files and index",
    "ask": "1,000 questions",
    "evict": "evicting 1 %",
    "forget": "forgetting rows without content",
    "use": "noting the use of 10 %",
}


def _figures(name: str, label: str) -> Iterator[Figure]:
    yield Figure(name, label, "s", 1)
    yield Figure(f"{name}_late_99", "  reactor late, 99th percentile", "ms", 1)
    yield Figure(f"{name}_held", "  reactor held, CPU, at most", "ms", 1)


CASE: Final = Case(
    name="big_store",
    title="store of 1,000,000 blobs: start, hits, housekeeping",
    figures=(
        Figure("start", "start to first hit", "s"),
        Figure("rss", "RSS", "MiB", 0),
        Figure("grown", "RSS over a store of one blob", "MiB", 0),
        Figure("reconciled", "start to files and index as one", "s", 1),
        Figure("meanwhile", "hit meanwhile", "ms"),
        Figure("meanwhile_99", "hit meanwhile, 99th percentile", "ms"),
        Figure("after", "hit afterwards", "ms"),
        Figure("after_99", "hit afterwards, 99th percentile", "ms"),
        Figure("stop", "stop", "s"),
        Figure("statistics", "statistics", "ms"),
        Figure("statistics_99", "statistics, 99th percentile", "ms"),
        *(figure for part in _PARTS.items() for figure in _figures(*part)),
    ),
    targets=(at_most("start", 3), at_most("grown", 200)),
    begin=begin,
)


def main(data: str) -> None:
    """Keep house in the store below *data*, and print what it took."""

    def run(reactor: Any) -> Deferred[None]:
        keeping = ensureDeferred(keep_house(reactor, Path(data)))
        return keeping.addCallback(lambda sample: print(json.dumps(sample)))

    task.react(run)

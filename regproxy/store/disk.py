"""Blobs as files: where they are, how they are read, how they become durable.

Layout below the cache directory::

    blobs/sha256/ab/abcd…    whole, verified content, named by its digest
    fills/                   transfers in flight; never served
    quarantine/              what was found damaged; never served, removed after a week
    index.sqlite3            see regproxy.store.index

The functions that write run in a worker thread; the ones that read run anywhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from regproxy.oci.names import Digest
from regproxy.store.errors import StoreUnusable
from regproxy.store.partial import Partial

T = TypeVar("T")
R = TypeVar("R")

# Errors that say "not without waiting" (EAGAIN) or "this file system does not
# know how to tell" (EOPNOTSUPP): preadv2(2), RWF_NOWAIT.
_WOULD_WAIT: Final = frozenset({errno.EAGAIN, errno.EOPNOTSUPP})


class Workers(Protocol):
    """Runs blocking calls off the reactor thread."""

    def run(self, call: Callable[[], T]) -> Deferred[T]:
        """The result of ``call()``, run in a worker thread."""


@frozen
class ThreadWorkers:
    """:class:`Workers` over a thread pool that somebody else starts and stops."""

    reactor: IReactorFromThreads
    pool: ThreadPool

    def run(self, call: Callable[[], T]) -> Deferred[T]:
        """The result of ``call()``, run in one of the pool's threads."""
        deferred: Deferred[T] = deferToThreadPool(self.reactor, self.pool, call)
        return deferred


def shielded(work: Deferred[T], unwanted: Callable[[T], object]) -> Deferred[T]:
    """The result of *work*, which goes on when the returned Deferred is cancelled.

    A worker thread cannot be stopped, and a transfer belongs to nobody: what comes too late is
    given to *unwanted*, and how it failed is of no interest any more.
    """
    waiter: Deferred[T] = Deferred()
    work.addCallbacks(
        lambda result: unwanted(result) if waiter.called else waiter.callback(result),
        lambda failure: None if waiter.called else waiter.errback(failure),
    )
    return waiter


class Descriptor:
    """An open file that several hold; the last one to let go closes it.

    Held and released in the reactor thread. A worker may use ``number`` for as long as
    somebody holds the file for it: a number that was closed is soon another file's.

    Attributes:
        number: the file descriptor; -1 once it is closed.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._holders = 1

    def hold(self) -> Descriptor:
        """One holder more.

        Raises:
            ValueError: it is closed.
        """
        if not self._holders:
            raise ValueError("the file is closed")
        self._holders += 1
        return self

    def release(self) -> None:
        """One holder less."""
        self._holders -= 1
        if not self._holders:
            number, self.number = self.number, -1
            os.close(number)


def read_into(descriptor: Descriptor, buffer: memoryview, offset: int) -> int:
    """Fill *buffer* from *offset* on, as far as the page cache can; how many bytes.

    Raises:
        OSError: the disk does not give them.
    """
    try:
        return os.preadv(descriptor.number, [buffer], offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno not in _WOULD_WAIT:
            raise
        return 0


def read(workers: Workers, descriptor: Descriptor, length: int, offset: int) -> Deferred[bytes]:
    """Up to *length* bytes at *offset*: at once from the page cache, else by a worker.

    A read that the page cache can answer in part answers with that part. Fails with
    OSError when the disk does.
    """
    buffer = bytearray(length)
    try:
        got = read_into(descriptor, memoryview(buffer), offset)
    except OSError as error:
        return fail(error)
    if got:
        del buffer[got:]
        return succeed(bytes(buffer))
    # Nothing is not always the end of the file: preadv2(2), BUGS, Linux 5.9 and 5.10.
    return with_file(workers, descriptor, lambda number: os.pread(number, length, offset))


def with_file(workers: Workers, descriptor: Descriptor, call: Callable[[int], T]) -> Deferred[T]:
    """The result of *call* with the number of *descriptor*, held until a worker is done with it."""
    held = descriptor.hold()

    def over(result: R) -> R:
        held.release()
        return result

    return shielded(workers.run(lambda: call(held.number)).addBoth(over), lambda _: None)


@frozen
class BlobDirectory:
    """The files of one cache directory."""

    root: Path

    def path(self, digest: Digest) -> Path:
        """Where whole content stands."""
        return Path(self._name(digest))

    def has(self, digest: Digest) -> bool:
        """Whether the whole content is here."""
        return os.path.exists(self._name(digest))

    @property
    def fills(self) -> Path:
        """Where transfers are written until they are whole."""
        return self.root / "fills"

    @property
    def quarantine(self) -> Path:
        """Where is kept for a while what was found below ``blobs/`` and does not belong there."""
        return self.root / "quarantine"

    def prepare(self) -> None:
        """Make the directories.

        Raises:
            StoreUnusable: it cannot be created or written.
        """
        try:
            # What is private upstream is not for every user of this machine either.
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (self.root / "blobs", self.fills, self.quarantine):
                directory.mkdir(exist_ok=True)
            self.probe()
        except OSError as error:
            raise StoreUnusable(
                f"cache directory {self.root} cannot be written ({error.strerror}):"
                " give another one as [cache] directory, or the user the right to write there"
            ) from error

    def probe(self) -> None:
        """Write a byte, to see whether that can be done.

        Raises:
            OSError: it cannot.
        """
        probe = self.fills / ".probe"
        probe.write_bytes(b"x")
        # Another process may be trying the same.
        probe.unlink(missing_ok=True)

    def open(self, digest: Digest) -> tuple[int, os.stat_result] | None:
        """A descriptor for reading and what is known of the file; None when it is not here."""
        try:
            descriptor = os.open(self._name(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        return descriptor, os.fstat(descriptor)

    def set_aside(self, path: Path, seen: os.stat_result) -> bool:
        """Move the file at *path* to the quarantine; False when it is not the one *seen* any more.

        Raises:
            OSError: it cannot be moved.
        """
        aside = self.quarantine / "-".join(path.relative_to(self.root / "blobs").parts)
        try:
            if not os.path.samestat(path.stat(), seen):
                return False
            path.rename(aside)
        except FileNotFoundError:
            return False
        # How long it is kept counts from now.
        os.utime(aside)
        return True

    def commit(self, partial: Partial, digest: Digest, size: int) -> None:
        """Make verified content durable under its name: fsync, rename, fsync of the directories.

        After a crash at any point the name is either absent or whole.
        """
        final = self.path(digest)
        # An earlier transfer that believed in another size may have left more.
        os.ftruncate(partial.descriptor, size)
        os.fsync(partial.descriptor)
        created = _make_directories(final.parent, self.root)
        partial.become(final)
        _sync_directory(final.parent)
        for directory in created:
            _sync_directory(directory.parent)

    def _name(self, digest: Digest) -> str:
        # For each request; to join a Path takes longer than to open the file.
        return f"{self.root}/blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def _make_directories(path: Path, root: Path) -> list[Path]:
    created = []
    while path != root and not path.exists():
        created.append(path)
        path = path.parent
    for directory in reversed(created):
        directory.mkdir(exist_ok=True)
    return created


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Content that is not whole yet, as a file and a side-car that says what it has."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from attrs import frozen

from regproxy.oci.names import Digest
from regproxy.policy.spans import Spans

# One read back of bytes that came before the ones they follow.
_READ: Final = 1 << 20
# More than the side requests of one fill can leave.
_MAX_SPANS: Final = 10_000


@frozen
class Partial:
    """A file below ``fills/`` that this process alone writes. All calls may block.

    Attributes:
        descriptor: open for reading and writing; it carries the lock, and whoever
            opened it closes it.
        path: where it is. The side-car is beside it.
        stored: what it had when it was opened.
        size: the size of the whole, if it is known.
        lasting: whether a later transfer would find it.
    """

    descriptor: int
    path: Path
    stored: Spans
    size: int | None
    lasting: bool = True

    @classmethod
    def open(cls, fills: Path, digest: Digest, size: int | None) -> Self:
        """The partial file of *digest*: an earlier one where nobody writes it, else a new one.

        Args:
            size: of the whole, if it is announced. Where the earlier file is of another
                size nothing of it is used.

        Raises:
            OSError: the disk does not take it.
        """
        path = _path(fills, digest)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with contextlib.ExitStack() as unwanted:
            unwanted.callback(os.close, descriptor)
            if not _take(path, descriptor):
                descriptor, name = tempfile.mkstemp(f".{path.name}", dir=fills)
                os.fchmod(descriptor, 0o644)
                return cls(descriptor, Path(name), Spans(), size, lasting=False)
            # It is somebody's again, and not for the sweep.
            os.utime(descriptor)
            known, stored = _read_side_car(_side_car(path), os.fstat(descriptor).st_size)
            if not _fits(size, known, stored):
                # Nor may a later process believe in it.
                _side_car(path).unlink()
                known, stored = None, Spans()
            unwanted.pop_all()
            return cls(descriptor, path, stored, known if size is None else size)

    def write(self, pieces: list[tuple[int, bytes]]) -> None:
        """Write bytes at their offsets; neighbours in one go."""
        for offset, data in _runs(pieces):
            view = memoryview(data)
            while view:
                written = os.pwrite(self.descriptor, view, offset)
                offset += written
                view = view[written:]

    def read_back(self, known: dict[int, bytes], start: int, end: int) -> Iterator[memoryview]:
        """The bytes from *start* to *end*: those of *known* from memory, the others from disk."""
        while start < end:
            data = known.get(start) or os.pread(self.descriptor, min(_READ, end - start), start)
            if not data:
                raise OSError(f"{self.path} ends at {start}")
            chunk = memoryview(data)[: end - start]
            yield chunk
            start += len(chunk)

    def note(self, size: int | None, stored: Spans) -> None:
        """Write the side-car: of a whole of *size* bytes, *stored* are here.

        It is not synchronised to the disk. What a power cut makes of it is found out
        by the digest.
        """
        if not self.lasting:
            return
        side_car = _side_car(self.path)
        temporary = side_car.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps({"size": size, "stored": list(stored)}))
            temporary.replace(side_car)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def put_away(self, size: int | None, kept: Spans) -> None:
        """Leave it for a later transfer that has use for *kept*; remove it when that is nothing."""
        if kept.total and self.lasting:
            self.note(size, kept)
        elif _names(self.path, self.descriptor):
            # In this order: a side-car without its file says nothing.
            self.path.unlink()
            _side_car(self.path).unlink(missing_ok=True)
        # Readers that have not noticed yet may have it open for a while.
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def become(self, final: Path) -> None:
        """It is whole: rename it to *final*.

        Raises:
            OSError: it is gone, or another file is in its place.
        """
        if not _names(self.path, self.descriptor):
            raise FileNotFoundError(f"{self.path} was removed by somebody")
        self.path.rename(final)
        _side_car(self.path).unlink(missing_ok=True)


def resumable(fills: Path, digest: Digest) -> int:
    """The first byte that a partial file of *digest* lacks; 0 when there is none to go on with."""
    path = _path(fills, digest)
    try:
        length = path.stat().st_size
    except FileNotFoundError:
        return 0
    return _read_side_car(_side_car(path), length)[1].run(0)


def joined(stored: Spans, pieces: list[tuple[int, bytes]]) -> Spans:
    """*stored* once *pieces* are there too."""
    result = Spans(stored)
    for offset, data in pieces:
        result.add(offset, offset + len(data))
    return result


def sweep(fills: Path, before: float) -> int:
    """Remove the files of *fills* last written *before* (seconds since the epoch); how many.

    A file that somebody writes stays, and so does its side-car.
    """
    removed = 0
    for path in fills.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime >= before or (path.suffix == ".json" and _has_file(path)):
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                # Somebody may have had it in the meantime.
                if _take(path, descriptor) and os.fstat(descriptor).st_mtime < before:
                    path.unlink()
                    _side_car(path).unlink(missing_ok=True)
                    removed += 1
            finally:
                os.close(descriptor)
    return removed


def _path(fills: Path, digest: Digest) -> Path:
    return fills / f"{digest.algorithm}-{digest.hex}.part"


def _has_file(side_car: Path) -> bool:
    return side_car.with_suffix("").exists()


def _fits(size: int | None, known: int | None, stored: Spans) -> bool:
    """Whether *stored* can be a part of content of *size* bytes."""
    if size is None or (known is None and not stored.total):
        return True
    return known in (None, size) and all(end <= size for _, end in stored)


def _take(path: Path, descriptor: int) -> bool:
    """Lock the file, unless somebody has it or has just put it away or committed it."""
    try:
        # A lock, not a name, tells whose it is: it ends with its process.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return _names(path, descriptor)


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _side_car(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_side_car(path: Path, length: int) -> tuple[int | None, Spans]:
    """What the side-car says, as far as the file of *length* bytes bears it out."""
    try:
        content = json.loads(path.read_bytes())
        size = None if content["size"] is None else _position(content["size"])
        most = length if size is None else min(length, size)
        stored = Spans(
            (_position(start), min(_position(end), most))
            for start, end in content["stored"][:_MAX_SPANS]
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        # Lost or torn: the transfer begins anew.
        return None, Spans()
    return size, stored


def _position(value: object) -> int:
    """*value*, if it counts bytes.

    Raises:
        ValueError: it does not.
    """
    if type(value) is not int or value < 0:
        raise ValueError("not a position in a file")
    return value


def _runs(pieces: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """*pieces* with each run of neighbours joined."""
    run: list[bytes] = []
    start, end = 0, -1
    for offset, data in pieces:
        if offset != end and run:
            yield start, b"".join(run)
            run = []
        if not run:
            start = offset
        run.append(data)
        end = offset + len(data)
    if run:
        yield start, run[0] if len(run) == 1 else b"".join(run)

"""Content that is not whole yet, as a file and a side-car that says what it has."""

from __future__ import annotations

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
        size: the size of the whole, if the side-car knew it.
    """

    descriptor: int
    path: Path
    stored: Spans
    size: int | None

    @classmethod
    def open(cls, fills: Path, digest: Digest) -> Self:
        """The partial file of *digest*: an earlier one where nobody writes it, else a new one.

        Raises:
            OSError: the disk does not take it.
        """
        path = fills / f"{digest.algorithm}-{digest.hex}.part"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # A lock, not a name, tells whose it is: it ends with its process.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _names(path, descriptor):
                # Whoever had it before has just put it away, or committed it.
                raise BlockingIOError
        except BlockingIOError:
            os.close(descriptor)
            descriptor, name = tempfile.mkstemp(f".{path.name}", dir=fills)
            os.fchmod(descriptor, 0o644)
            return cls(descriptor, Path(name), Spans(), None)
        except BaseException:
            os.close(descriptor)
            raise
        # It is somebody's again, and not for the sweep.
        os.utime(descriptor)
        size, stored = _read_side_car(_side_car(path), os.fstat(descriptor).st_size)
        return cls(descriptor, path, stored, size)

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
        side_car = _side_car(self.path)
        temporary = side_car.with_suffix(".tmp")
        temporary.write_text(json.dumps({"size": size, "stored": list(stored)}))
        temporary.replace(side_car)

    def put_away(self, size: int | None, kept: Spans | None) -> None:
        """Leave it for a later transfer if *kept* tells what it has, else remove it."""
        if kept is not None:
            self.note(size, kept)
        else:
            _side_car(self.path).unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def become(self, final: Path) -> None:
        """It is whole: rename it to *final*."""
        self.path.rename(final)
        _side_car(self.path).unlink(missing_ok=True)


def resumable(fills: Path, digest: Digest) -> int:
    """The first byte that a partial file of *digest* lacks; 0 when there is none to go on with."""
    path = fills / f"{digest.algorithm}-{digest.hex}.part"
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
        content = json.loads(path.read_text())
        size, spans = content["size"], content["stored"]
        stored = Spans((int(start), min(int(end), length)) for start, end in spans[:_MAX_SPANS])
    except (OSError, ValueError, KeyError, TypeError):
        # Lost or torn: the transfer begins anew.
        return None, Spans()
    if not (size is None or isinstance(size, int)) or any(start < 0 for start, _ in stored):
        return None, Spans()
    return size, stored


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

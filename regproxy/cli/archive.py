"""Tar archives that others wrote, read within bounds.

Nothing is unpacked: files of an archive are found by their names and read where they stand. An
entry that could mean something else to another reader, or that images do not have, makes the
whole archive unusable: devices, hard links, sparse files, names that lead out of it or are there
twice.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NoReturn, cast

from attrs import frozen

from regproxy.cli.client import Source
from regproxy.cli.errors import CommandFailed
from regproxy.oci.errors import shown

#: Entries of an archive. An image of 127 layers, as docker once saved it, has some 400.
MAX_ENTRIES: Final = 100_000
# Characters of a name. They are all kept; those in archives of images have some 150.
_MAX_NAME: Final = 512
# Of a header that stands before an entry's own and is read into memory: long names and the like.
_MAX_EXTENSION: Final = 1 << 16
_EXTENSIONS: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# What tarfile and the decompressors raise for what they cannot read. RecursionError: headers that
# each announce another one.
_UNREADABLE: Final = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
    zlib.error,
    lzma.LZMAError,
)


class ArchiveUnusable(CommandFailed):
    """An archive that is damaged, hostile, or holds no images."""


@frozen
class File:
    """A regular file of an archive: where its content stands in it."""

    offset: int
    size: int


class Archive:
    """An archive that is open for reading.

    Attributes:
        files: by name, without a leading ``./``.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.files: dict[str, File] = {}
        self._links: dict[str, str] = {}
        self._survey()

    def find(self, name: str) -> File:
        """The file called *name*, or that the symbolic link called so stands for.

        Raises:
            ArchiveUnusable: there is none.
        """
        name = _normal(name)
        if (target := self._links.get(name)) is not None:
            # One step, so there are no loops; docker writes none that need more.
            name = _normal(posixpath.join(posixpath.dirname(name), target))
        try:
            return self.files[name]
        except KeyError:
            raise ArchiveUnusable(f"{shown(name)} is missing in the archive") from None

    def read(self, file: File, limit: int) -> bytes:
        """The content of *file*, which may have at most *limit* bytes."""
        if file.size > limit:
            raise ArchiveUnusable(f"a description of {file.size} bytes: {limit} are read at most")
        return self.open(file).read(file.size)

    def open(self, file: File) -> Source:
        """The content of *file*, to be read bit by bit; one file at a time."""
        return _Reader(self._stream, file)

    def _survey(self) -> None:
        """Look at each entry's header."""
        with (
            _readable(),
            tarfile.open(fileobj=self._stream, mode="r:", tarinfo=_BoundedTarInfo) as tar,
        ):
            seen = 0
            while (entry := tar.next()) is not None:
                # They would be kept for ever, with all that their extensions say.
                tar.members.clear()  # type: ignore[attr-defined]
                seen += 1
                if seen > MAX_ENTRIES:
                    raise ArchiveUnusable(f"the archive has more than {MAX_ENTRIES} entries")
                self._take(entry)

    def _take(self, entry: tarfile.TarInfo) -> None:
        name = _normal(entry.name)
        if entry.size < 0:
            raise ArchiveUnusable(f"{shown(name)} has a negative size")
        if entry.isdir():
            return
        if name in self.files or name in self._links:
            raise ArchiveUnusable(f"{shown(name)} is twice in the archive")
        if entry.issym():
            self._links[name] = _bounded(entry.linkname)
        elif entry.isreg():
            self.files[name] = File(entry.offset_data, entry.size)
        else:
            raise ArchiveUnusable(f"{shown(name)} is a file of a kind that images do not have")


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The archive at *path*, which may be compressed with gzip, bzip2 or xz.

    Raises:
        ArchiveUnusable: it is none, or not one to be trusted. Those that are raised while it is
            open get the path before their messages.
        CommandFailed: the file cannot be read.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}") from None
    with stream:
        try:
            yield Archive(_plain(stream))
        except ArchiveUnusable as error:
            raise ArchiveUnusable(f"{path}: {error.message}") from None


class _Reader:
    """One file's content. The stream is shared: it is put where this file goes on."""

    def __init__(self, stream: BinaryIO, file: File) -> None:
        self._stream = stream
        self._next = file.offset
        self._end = file.offset + file.size

    def read(self, size: int = -1, /) -> bytes:
        left = self._end - self._next
        wanted = left if size < 0 else min(size, left)
        with _readable():
            self._stream.seek(self._next)
            block = self._stream.read(wanted)
        if len(block) < wanted:
            raise ArchiveUnusable("the archive ends too early")
        self._next += wanted
        return block


def _plain(stream: BinaryIO) -> BinaryIO:
    """*stream*, decompressed if it is compressed."""
    with _readable():
        magic = stream.read(6)
        stream.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if magic.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(stream))
    if magic == b"\xfd7zXZ\0":
        return cast(BinaryIO, lzma.LZMAFile(stream))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise ArchiveUnusable("compressed with zstd: unpack it first, with unzstd")
    return stream


def _normal(name: str) -> str:
    """*name* without detours.

    Raises:
        ArchiveUnusable: it leads out of the archive.
    """
    normal = posixpath.normpath(_bounded(name))
    if normal.startswith(("/", "../")) or normal == ".." or not normal.isprintable():
        raise ArchiveUnusable(f"{shown(name)} is no name of a file in an archive")
    return normal


def _bounded(name: str) -> str:
    if len(name) > _MAX_NAME:
        raise ArchiveUnusable(f"{shown(name)} is too long for a name of a file of an image")
    return name


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise ArchiveUnusable(f"not a tar archive, or a damaged one: {error}") from None


class _BoundedTarInfo(tarfile.TarInfo):
    """A header that makes tarfile read no more than a little into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BoundedTarInfo:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            # It would be gone back to, for ever.
            raise tarfile.ReadError("a negative size")
        if header.type in _EXTENSIONS and header.size > _MAX_EXTENSION:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        return header

    # The other forms of sparse files, whose maps would be read into memory whatever their length.
    def _proc_gnusparse_00(self, *_: object) -> NoReturn:
        raise tarfile.ReadError("a sparse file")

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00

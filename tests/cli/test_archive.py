"""Tests of regproxy.cli.archive."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Iterable, Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli import archive
from regproxy.cli.archive import Archive, ArchiveUnusable, File, open_archive
from regproxy.cli.errors import CommandFailed
from tests.support.archives import entry, link, tar, written

MIB = 1 << 20


def opened(content: bytes) -> Archive:
    return Archive(io.BytesIO(content))


class ArchiveTests(SynchronousTestCase):
    """Archive"""

    def test_files(self) -> None:
        """They are found by their names, in all the formats that tar has had."""
        long = "/".join(["d" * 90] * 3)
        contents = {"a": b"1", "./b/c": b"22", long: b"", "big": bytes(100_000)}
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            made = opened(tar(contents, [entry("b/", type=tarfile.DIRTYPE)], format=form))
            found = {name: made.read(file, MIB) for name, file in made.files.items()}
            self.assertEqual(found, {"a": b"1", "b/c": b"22", long: b"", "big": bytes(100_000)})
            self.assertEqual(made.find("./b/../a"), made.files["a"])

    def test_two_at_a_time(self) -> None:
        """Readers of one stream do not disturb each other."""
        made = opened(tar({"a": b"abc", "b": b"123"}))
        first, second = (made.open(made.find(name)) for name in "ab")
        read = [first.read(2), second.read(1), first.read(5), second.read(), first.read(1)]
        self.assertEqual(read, [b"ab", b"1", b"c", b"23", b""])

    def test_links(self) -> None:
        """One that leads to a file of the archive stands for it."""
        made = opened(tar({"x/layer.tar": b"layer"}, [link("y/layer.tar", "../x/layer.tar")]))
        self.assertEqual(made.find("y/layer.tar"), made.files["x/layer.tar"])
        self.assertNotIn("y/layer.tar", made.files)

    def test_links_elsewhere(self) -> None:
        """Nothing outside the archive is read, and nobody goes round in circles."""
        for target in ("/etc/passwd", "../../etc/passwd", "a", "missing", "b"):
            made = opened(tar({}, [link("a", target), link("b", "a")]))
            for name in "ab":
                self.assertRaises(ArchiveUnusable, made.find, name)

    def test_missing(self) -> None:
        error = self.assertRaises(ArchiveUnusable, opened(tar({})).find, "index.json")
        self.assertEqual(error.message, "'index.json' is missing in the archive")

    def test_limit(self) -> None:
        made = opened(tar({"a": b"12345"}))
        self.assertEqual(made.read(made.find("a"), 5), b"12345")
        self.assertRaises(ArchiveUnusable, made.read, made.find("a"), 4)


class HostileTests(SynchronousTestCase):
    """Archive, when somebody wishes ill."""

    def refused(
        self,
        expected: str,
        files: Mapping[str, bytes] = {},
        others: Iterable[tarfile.TarInfo] = (),
    ) -> None:
        error = self.assertRaises(ArchiveUnusable, opened, tar(files, others))
        self.assertIn(expected, error.message)

    def test_names(self) -> None:
        """A name that leads out of the archive is refused, though nothing is unpacked."""
        for name in ("/etc/passwd", "../a", "a/../../b", "..", "a\x1bb", "a\nb", "a\u202eb"):
            self.refused("is no name of a file in an archive", {name: b""})

    def test_long_names(self) -> None:
        """All names are kept in memory."""
        long = "a" * 513
        opened(tar({long[1:]: b""}, [link("b", long[1:])]))
        self.refused("is too long", {long: b""})
        self.refused("is too long", {}, [link("b", long)])

    def test_kinds(self) -> None:
        """Images need files, directories and symbolic links only."""
        for kind in (tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            self.refused("of a kind that images do not have", {"b": b""}, [link("a", "b", kind)])

    def test_twice(self) -> None:
        """Readers differ in which of two they take."""
        self.refused("'a' is twice", {"a": b"1", "./a": b"2"})
        self.refused("'a' is twice", {"a": b"1"}, [link("a", "b")])
        self.refused("'a' is twice", {}, [link("a", "b"), link("./a", "c")])

    def test_many(self) -> None:
        self.patch(archive, "MAX_ENTRIES", 3)
        opened(tar(dict.fromkeys("abc", b"")))
        self.refused("more than 3 entries", dict.fromkeys("abcd", b""))

    def test_sparse(self) -> None:
        """A file of holes is as large as its author likes."""
        made = entry("a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
        self.refused("a sparse file", {}, [made])
        made = entry("a", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"})
        self.refused("a sparse file", {}, [made])
        made = entry("a", pax_headers={"GNU.sparse.size": "9"})
        self.refused("a sparse file", {}, [made])
        self.refused("a sparse file", {}, [entry("a", type=tarfile.GNUTYPE_SPARSE)])

    def test_negative_sizes(self) -> None:
        """They make tarfile of some releases go back for ever (CVE-2025-8194)."""
        for kind in (tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            content = tar({}, [entry("a", type=kind, size=-512)], format=tarfile.GNU_FORMAT)
            error = self.assertRaises(ArchiveUnusable, opened, content)
            self.assertIn("damaged one: a negative size", error.message)
        self.refused("has a negative size", {}, [entry("a", pax_headers={"size": "-512"})])

    def test_long_headers(self) -> None:
        """Such a header would be read into memory as a whole."""
        for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
            self.refused("a header of 65537 bytes", {}, [entry("a", type=kind, size=65537)])

    def test_headers_without_end(self) -> None:
        """Each one announces the next."""
        header = entry("x", type=tarfile.XHDTYPE).tobuf()
        self.assertRaises(ArchiveUnusable, opened, header * 20_000)

    def test_memory(self) -> None:
        """Headers of all entries together would fill it."""
        pax = {"comment": "x" * 60_000}
        content = tar({}, (entry(f"f{number}", pax_headers=pax) for number in range(300)))
        self.assertGreater(len(content), 16 * MIB)
        stream = io.BytesIO(content)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertEqual(len(Archive(stream).files), 300)
        self.assertLess(tracemalloc.get_traced_memory()[1], 2 * MIB)

    def test_cut_short(self) -> None:
        """A file whose end is missing is noticed, at the latest when it is read."""
        content = tar({"a": bytes(5000), "b": b"1" * 5000})
        self.assertRaises(ArchiveUnusable, opened, content[:3000])
        self.assertRaises(ArchiveUnusable, opened, content[:9000])
        stream = io.BytesIO(content)
        made = Archive(stream)
        stream.truncate(3000)
        self.assertRaises(ArchiveUnusable, made.open(made.find("a")).read)

    def test_no_archives(self) -> None:
        for content in (b"", b"x" * 5000, b"\0" * 511):
            error = self.assertRaises(ArchiveUnusable, opened, content)
            self.assertIn("not a tar archive, or a damaged one", error.message)

    @given(st.data())
    def test_noise(self, data: st.DataObject) -> None:
        """Whatever the bytes are, there is an archive or the one error."""
        content = bytearray(
            tar({"a" * 150: b"1", "b": b"2"}, [link("c", "b")], format=tarfile.PAX_FORMAT)[:6144]
        )
        places = st.integers(0, len(content) - 1)
        for place, value in data.draw(st.dictionaries(places, st.integers(0, 255))).items():
            content[place] = value
            # A wrong checksum would hide all else.
            start = place - place % 512
            content[start + 148 : start + 156] = b" " * 8
            total = sum(content[start : start + 512])
            content[start + 148 : start + 156] = b"%06o\0 " % total
        try:
            made = opened(bytes(content))
            for file in made.files.values():
                made.open(file).read()
        except ArchiveUnusable:
            pass


class OpenTests(SynchronousTestCase):
    """open_archive"""

    def read(self, content: bytes) -> bytes:
        with open_archive(written(self.mktemp(), content)) as made:
            return made.read(made.find("a"), MIB)

    def test_compressed(self) -> None:
        plain = tar({"a": b"content"})
        for compress in (bytes, gzip.compress, bz2.compress, lzma.compress):
            self.assertEqual(self.read(compress(plain)), b"content")

    def test_damaged(self) -> None:
        """What is compressed may be damaged in more ways."""
        plain = tar({"a": bytes(range(256)) * 100})
        for compress in (gzip.compress, bz2.compress, lzma.compress):
            good = compress(plain)
            for bad in (good[: len(good) // 2], good[:40] + b"\xff" * 40 + good[80:]):
                self.assertRaises(ArchiveUnusable, self.read, bad)

    def test_zstd(self) -> None:
        error = self.assertRaises(ArchiveUnusable, self.read, b"\x28\xb5\x2f\xfd0000")
        self.assertIn("unpack it first, with unzstd", error.message)

    def test_path_in_messages(self) -> None:
        path = written(self.mktemp(), tar({}))
        for read in ("missing", None):
            with self.assertRaises(ArchiveUnusable) as raised, open_archive(path) as made:
                made.find(read) if read else made.read(File(0, 5), 4)
            self.assertTrue(raised.exception.message.startswith(f"{path}: "))

    def test_no_file(self) -> None:
        for path, expected in ((self.mktemp(), "No such file"), (".", "Is a directory")):
            with self.assertRaises(CommandFailed) as raised, open_archive(Path(path)):
                pass
            self.assertIn(f"{path} cannot be read: {expected}", raised.exception.message)

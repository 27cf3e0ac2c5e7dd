"""The client that leaves bodies encrypted sees exactly where they end."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bench.drain import skip_records
from bench.way import Refused

# RFC 8446 section 5.2: application data, the version that all records have, the length.
_HEAD = b"\x17\x03\x03"
_OVERHEAD = 17


def records(sizes: Sequence[int]) -> bytes:
    """What carries contents of these *sizes*, with head-like bytes where the contents would be."""
    lengths = [size + _OVERHEAD for size in sizes]
    return b"".join(
        _HEAD + length.to_bytes(2, "big") + (_HEAD * length)[:length] for length in lengths
    )


def send(to: socket.socket, data: bytes, cuts: Sequence[int]) -> None:
    """Send *data* in pieces, each of which one read gets, cut where *cuts* says."""
    places = sorted({cut % len(data) for cut in cuts} - {0})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        to.sendall(data[start:end])


SIZES = st.lists(st.integers(1, 3000), min_size=1, max_size=8)
CUTS = st.lists(st.integers(0, 30000), max_size=12)


class RecordTests(SynchronousTestCase):
    """Records through a socket that keeps pieces apart."""

    @given(SIZES, CUTS)
    def test_whole(self, sizes: list[int], cuts: list[int]) -> None:
        """All is taken to the last byte of the last record, and nothing behind it."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with here, there:
            send(there, records(sizes), cuts)
            there.sendall(b"behind")
            skip_records(here, sum(sizes))
            self.assertEqual(here.recv(100), b"behind")

    @given(SIZES, CUTS)
    def test_missing_byte(self, sizes: list[int], cuts: list[int]) -> None:
        """A body that lacks its last byte is not taken for a whole one."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with here:
            with there:
                send(there, records(sizes)[:-1], cuts)
            with self.assertRaises(Refused):
                skip_records(here, sum(sizes))

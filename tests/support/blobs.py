"""Content in memory that arrives as the test says."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest


@implementer(IBlob)
class MemoryBlob:
    """A blob on its way.

    Attributes:
        slow: reads that wait for the test, each with what it will get.
        wanted: what readers have waited for, as (offset, end).
    """

    def __init__(self, content: bytes, arrived: int = 0, size: int | None = None) -> None:
        self.digest = Digest.of(content)
        self.size = size
        self.verified = False
        self.closed = False
        self.slow: list[tuple[Deferred[bytes], bytes]] | None = None
        self.wanted: list[tuple[int, int | None]] = []
        self._content = content
        self._arrived = arrived
        self._failure: Failure | None = None
        self._waiters: list[Deferred[None]] = []

    @classmethod
    def whole(cls, content: bytes) -> MemoryBlob:
        """Content that is here."""
        blob = cls(content, len(content), len(content))
        blob.verified = True
        return blob

    def readable(self, offset: int) -> int:
        return 0 if self._failure else max(0, self._arrived - offset)

    def when_readable(self, offset: int, end: int | None) -> Deferred[None]:
        self.wanted.append((offset, end))
        waiter: Deferred[None] = Deferred()
        if self._failure:
            waiter.errback(self._failure)
        else:
            self._waiters.append(waiter)
        return waiter

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        data = self._content[offset : min(offset + length, self._arrived)]
        if self.slow is None:
            return succeed(data)
        waiting: Deferred[bytes] = Deferred()
        self.slow.append((waiting, data))
        return waiting

    def read_into(self, buffer: memoryview, offset: int) -> int:
        data = b"" if self.slow is not None else self._content[offset : self._arrived]
        got = min(len(buffer), len(data))
        buffer[:got] = data[:got]
        return got

    def file(self) -> int | None:
        return None

    def close(self) -> None:
        self.closed = True

    # The source.

    def arrive(self, count: int) -> None:
        """*count* bytes more."""
        self._arrived = min(len(self._content), self._arrived + count)
        self._changed()

    def verify(self) -> None:
        """All is here and right."""
        self._arrived = self.size = len(self._content)
        self.verified = True
        self._changed()

    def fail(self, error: Exception) -> None:
        """It will never be whole."""
        self._failure = Failure(error)
        self._changed()

    def _changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if self._failure:
                waiter.errback(self._failure)
            else:
                waiter.callback(None)

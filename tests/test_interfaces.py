from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from regproxy.interfaces import IBlob, IUpstream
from regproxy.registry.straight import FallbackBlob, StraightBlob
from regproxy.store.fill import FillReader
from regproxy.store.store import StoredBlob
from regproxy.upstream.client import Upstream
from tests.support.blobs import MemoryBlob


class InterfaceTests(SynchronousTestCase):
    """What stands on both sides of each seam fits."""

    def test_blobs(self) -> None:
        for kind in (StoredBlob, FillReader, StraightBlob, FallbackBlob):
            self.assertTrue(IBlob.implementedBy(kind), kind)
            verifyClass(IBlob, kind)

    def test_fake_blob(self) -> None:
        verifyObject(IBlob, MemoryBlob.whole(b"content"))

    def test_upstream(self) -> None:
        self.assertTrue(IUpstream.implementedBy(Upstream))
        verifyClass(IUpstream, Upstream)

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest
from regproxy.store.errors import (
    DigestMismatch,
    FillFailed,
    IndexFailed,
    SizeMismatch,
    StoreError,
    StoreUnusable,
)


class StoreErrorTests(SynchronousTestCase):
    def test_one_tree(self) -> None:
        for kind in (StoreUnusable, IndexFailed, FillFailed, DigestMismatch, SizeMismatch):
            self.assertTrue(issubclass(kind, StoreError), kind)

    def test_a_reader_need_not_know_why_content_is_wrong(self) -> None:
        self.assertIsInstance(SizeMismatch(3, 2), FillFailed)
        self.assertIsInstance(DigestMismatch(Digest.of(b"a"), Digest.of(b"b")), FillFailed)

    def test_texts(self) -> None:
        self.assertEqual(str(SizeMismatch(3, 2)), "2 bytes came where 3 were announced")
        right, wrong = Digest.of(b"a"), Digest.of(b"b")
        self.assertEqual(
            str(DigestMismatch(right, wrong)), f"content is {wrong} where {right} was asked for"
        )

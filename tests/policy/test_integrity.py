from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord, Doubt, doubt

CONTENT = b"layer"
DIGEST = Digest.of(CONTENT)
KNOWN = ContentRecord(DIGEST, 5, stored_at=1.0, last_access=2.0, verified_at=100.0, changed=7)


class DoubtTests(SynchronousTestCase):
    def judge(
        self, record: ContentRecord | None = KNOWN, size: int = 5, changed: int = 7
    ) -> Doubt | None:
        return doubt(DIGEST, size, changed, record, due_before=50.0)

    def test_none(self) -> None:
        self.assertIsNone(self.judge())

    def test_unknown(self) -> None:
        self.assertIs(self.judge(None), Doubt.UNKNOWN)

    def test_never_verified(self) -> None:
        """Its row was made from the file: that the two agree means nothing."""
        adopted = evolve(KNOWN, verified_at=0.0)
        self.assertIs(self.judge(adopted), Doubt.UNKNOWN)
        self.assertIs(self.judge(adopted, size=4), Doubt.UNKNOWN)

    def test_size(self) -> None:
        for size in (0, 4, 6):
            self.assertIs(self.judge(size=size), Doubt.SIZE)

    def test_changed(self) -> None:
        """Also to an earlier time: a clock was set back, or a backup restored."""
        for changed in (6, 8):
            self.assertIs(self.judge(changed=changed), Doubt.CHANGED)

    def test_due(self) -> None:
        self.assertIsNone(self.judge(evolve(KNOWN, verified_at=50.0)))
        self.assertIs(self.judge(evolve(KNOWN, verified_at=49.9)), Doubt.DUE)

    def test_never_due(self) -> None:
        verdict = doubt(DIGEST, 5, 7, evolve(KNOWN, verified_at=0.1), float("-inf"))
        self.assertIsNone(verdict)

    def test_empty(self) -> None:
        """A file of no bytes is right or wrong without being read."""
        self.assertIs(doubt(DIGEST, 0, 7, None, 50.0), Doubt.SIZE)
        for algorithm in ("sha256", "sha512"):
            digest = Digest.of(b"", algorithm)
            self.assertIs(doubt(digest, 0, 7, None, 50.0), Doubt.UNKNOWN)

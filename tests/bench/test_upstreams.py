"""The file server, and the clients that measure: what they see is what there is."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from bench.drain import at_once, drain
from bench.hammer import Question, hammer
from bench.setting import TINY, MiB, Peer, Setting, check
from bench.upstreams import file_server
from bench.way import Refused
from tests.support.images import digest
from tests.support.programs import needs


@needs("curl", "nginx")
class FileServerTests(SynchronousTestCase):
    """Clients straight at a file server."""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.server = stack.enter_context(file_server(Setting(directory, TINY)))
        self.way = self.server.way
        self.blob = self.server.make_blob(MiB + 1)
        self.target = self.way.blob(self.blob)

    def test_check(self) -> None:
        """Content is what its digest says, or is refused."""
        check(self.way, self.target, self.blob)
        with self.assertRaises(Refused):
            check(self.way, self.target, digest(b"other"))
        with self.assertRaises(Refused):
            check(self.way, self.way.blob(digest(b"other")), digest(b"other"))

    def test_drain(self) -> None:
        """With TLS and without: the size, and times in their order."""
        plain = evolve(self.way, port=self.server.plain_port, ca_file=None)
        for way in (self.way, plain):
            drained = drain(way, self.target)
            self.assertEqual(drained.size, MiB + 1)
            self.assertLess(0, drained.first_after)
            self.assertLessEqual(drained.first_after, drained.seconds)

    def test_paced(self) -> None:
        """It takes its time: of the first second's bytes nginx is generous, not of the next."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        with file_server(Setting(directory, TINY), rate=MiB) as server:
            drained = drain(server.way, server.way.blob(server.make_blob(3 * MiB)))
        self.assertGreater(drained.seconds, 1.5)

    def test_drain_refused(self) -> None:
        with self.assertRaises(Refused):
            drain(self.way, self.way.blob(digest(b"other")))

    def test_gets(self) -> None:
        """Each GET of the blob counts, HEADs and other blobs do not."""
        other = self.way.blob(self.server.make_blob(10))
        at_once([lambda: drain(self.way, self.target)] * 3)
        drain(self.way, other)
        hammer(self.way, [Question("HEAD", self.target)], 0.0)
        self.assertEqual(self.server.gets(self.blob), 3)

    def test_hammer(self) -> None:
        """It counts what it asked."""
        small = self.server.make_blob(700)
        questions = [Question(method, self.way.blob(small)) for method in ("GET", "HEAD")]
        answered = hammer(self.way, questions, 0.1)
        self.assertEqual(self.server.gets(small), (answered + 1) // 2)

    def test_hammer_refused(self) -> None:
        with self.assertRaises(Refused):
            hammer(self.way, [Question("GET", self.way.blob(digest(b"other")))], 0.1)

    def test_fill_of_a_server_that_keeps_nothing(self) -> None:
        """Whoever asks the upstream each time is not taken for a cache."""
        process: Any = None  # It is not asked for.
        with self.assertRaises(Refused):
            self.server.fill(Peer("itself", process, self.way), self.blob)

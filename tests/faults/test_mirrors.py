"""Mirrors that fail, lie or are slow, and registries that are known to be down."""

from __future__ import annotations

from time import monotonic

from attrs import evolve, frozen

from tests.support.faults import HEAD, IDLE, Blob, FaultProxy, FaultTestCase, KiB, MiB
from tests.support.proxy import ADDRESS, Value
from tests.support.turns import End, Script, Turn

SIZE = MiB
STOP = SIZE // 2


@frozen
class Registry:
    """A registry with a mirror, each a path of the upstream."""

    host: str
    mirror: str
    origin: str

    def at(self, blob: Blob) -> Blob:
        """*blob* as clients call it."""
        return evolve(blob, host=self.host)


class MirrorFaultTestCase(FaultTestCase):
    """Registries whose mirrors are asked at once, since nobody is looked at."""

    def setUp(self) -> None:
        super().setUp()
        # Paths of the upstream that no other test has.
        self.registries = [
            Registry(f"m{n}.example.test", f"{self.host}-mirror-{n}", f"{self.host}-origin-{n}")
            for n in range(5)
        ]
        port = self.upstream.port
        tables: dict[str, dict[str, Value]] = {}
        for each in self.registries:
            servers = [f"http://{ADDRESS}:{port}/{name}" for name in (each.mirror, each.origin)]
            tables[f'registries."{each.host}"'] = {
                "upstream": servers,
                "plain_http": True,
                "relay_private": True,
                "access": "shared",
            }
        self.new_proxy(FaultProxy, **tables)
        self.registry = self.registries[0]

    def both(self, size: int, *turns: Turn) -> Blob:
        """A blob that the mirror serves in these *turns*, and the origin rightly."""
        blob = self.blob(size, *turns, host=self.registry.mirror)
        name = self.upstream.put(blob.content)
        self.upstream.script(self.registry.origin, blob.path, Script((Turn(content=name),)))
        return self.registry.at(blob)

    def starts(self, blob: Blob) -> tuple[list[int], list[int]]:
        """Where the requests to mirror and origin began."""
        return (
            [entry.start for entry in self.upstream.log(self.registry.mirror, blob.path)],
            [entry.start for entry in self.upstream.log(self.registry.origin, blob.path)],
        )


class MirrorTests(MirrorFaultTestCase):
    """What one of them does, the next makes good."""

    def test_good(self) -> None:
        """The origin is not asked."""
        blob = self.both(SIZE)
        self.assert_whole(self.fetch(blob), blob)
        self.assertEqual(self.starts(blob), ([0], []))

    def test_breaks_off(self) -> None:
        """The rest comes from the origin, from where it stopped; the client sees a pause."""
        turns = (
            Turn(stop=STOP),
            Turn(stop=STOP, end=End.RESET),
            Turn(stop=STOP, end=End.STALL),
        )
        for turn, registry in zip(turns, self.registries, strict=False):
            self.registry = registry
            blob = self.both(SIZE, turn)
            self.assert_whole(self.fetch(blob), blob)
            mirror, (start,) = self.starts(blob)
            self.assertEqual(mirror, [0])
            self.assertGreaterEqual(start, STOP)

    def test_drips(self) -> None:
        """One byte a second is as good as nothing."""
        blob = self.both(SIZE, Turn(rate=1))
        self.assert_whole(self.fetch(blob), blob)
        mirror, origin = self.starts(blob)
        self.assertEqual((mirror, len(origin)), ([0], 1))

    def test_no_answer(self) -> None:
        """Whatever it says instead of content, the origin is asked."""
        turns = (
            Turn(status=404),
            Turn(status=401),
            Turn(status=503),
            Turn(stop=-1),
            Turn(stop=-1, end=End.STALL),
        )
        for turn, registry in zip(turns, self.registries, strict=True):
            self.registry = registry
            blob = self.both(SIZE, turn)
            self.assert_whole(self.fetch(blob), blob)
            self.assertEqual(self.starts(blob), ([0], [0]), turn)

    def test_lies(self) -> None:
        """Nobody gets a wrong byte for whole; whoever asks again gets the right ones."""
        turns = Turn(flip=STOP), Turn(announced=SIZE + 1, surplus=1), Turn(announced=SIZE // 2)
        for turn, registry in zip(turns, self.registries, strict=False):
            self.registry = registry
            blob = self.both(SIZE, turn)
            self.assert_cut(self.fetch(blob))
            self.assert_not_stored(blob)
            self.assert_whole(self.fetch(blob), blob)
            self.assertEqual(self.starts(blob), ([0], [0]), turn)
            # It is not trusted with others either, for a while.
            other = self.both(KiB)
            self.assert_whole(self.fetch(other), other)
            self.assertEqual(self.starts(other), ([], [0]))


class KnownDownTests(MirrorFaultTestCase):
    """A registry that does not answer any more."""

    def seconds(self, blob: Blob) -> float:
        """How long it takes to get *blob*."""
        began = monotonic()
        self.assert_whole(self.fetch(blob), blob)
        return monotonic() - began

    def test_stored_tags(self) -> None:
        """The first client waits for it, others do not; when it is back it is asked again."""
        origin = self.registry.origin
        tag = self.registry.at(self.tag("first", host=origin))
        self.assert_whole(self.fetch(tag), tag)
        self.upstream.script(origin, tag.path, Script((Turn(stop=-1, end=End.STALL),)), "HEAD")
        self.assertGreaterEqual(self.seconds(tag), HEAD)
        for _ in range(5):
            self.assertLess(self.seconds(tag), HEAD)
        asked = [entry.method for entry in self.upstream.log(origin, tag.path)]
        self.assertEqual(asked, ["GET", "HEAD"])
        new = self.tag("second", host=origin)
        self.wait_for(lambda: self.fetch(tag).digest == new.digest)

    def test_cold_content(self) -> None:
        """Who has nothing else does not get an error from a memory."""
        gone = self.blob(KiB, Turn(stop=-1), host=self.registry.origin)
        self.assertGreaterEqual(self.fetch(self.registry.at(gone)).status, 500)
        blob = self.both(KiB, Turn(status=404))
        self.assertLess(self.seconds(blob), IDLE)

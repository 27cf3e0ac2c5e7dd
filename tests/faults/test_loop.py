"""The reactor has one thread: none of our own callbacks may hold it for long."""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import loop_watch
from tests.support.faults import PATIENT, FaultProxy, FaultTestCase, KiB, MiB, together
from tests.support.loop_watch import SLOW, Hold, Watch, burn
from tests.support.process import free_port
from tests.support.proxy import ADDRESS, Proxy, command
from tests.support.turns import Framing, Turn

#: Seconds of processor time that one callback may take.
LIMIT: Final = 0.05
# Clients at once, and how many things each asks for.
_CLIENTS: Final = 20
_THINGS: Final = 16


class WatchedProxy(FaultProxy):
    """A proxy whose reactor is watched."""

    #: See :mod:`tests.support.loop_watch`.
    planted = ""

    def arguments(self) -> list[str]:
        """The command line."""
        _, *arguments = command(self.config)
        watch = [str(self._report), str(LIMIT), self.planted]
        return [sys.executable, loop_watch.__file__, *watch, *arguments]

    @property
    def _report(self) -> Path:
        return self.directory / "holds.jsonl"

    def holds(self) -> list[Hold]:
        """What has held the reactor for longer than that."""
        if not self._report.exists():
            return []
        return [Hold(**json.loads(line)) for line in self._report.read_text().splitlines()]


class PlantedProxy(WatchedProxy):
    """One that takes its time to write a line of the access log."""

    planted = "regproxy.web.access_log:AccessLog.record"


class LoopTests(FaultTestCase):
    """The reactor under load."""

    def assert_not_held(self, proxy: Proxy) -> None:
        assert isinstance(proxy, WatchedProxy)
        self.assertEqual("\n".join(map(str, proxy.holds())), "")

    def test_load(self) -> None:
        """Many clients, warm and cold content, tags, and somebody who reads the metrics."""
        port = free_port()
        listen = [f"tcp:{port}:interface={ADDRESS}"]
        proxy = self.new_proxy(WatchedProxy, limits=PATIENT, management={"listen": listen})
        hosts = [self.host, *(self.stage.new_host() for _ in range(3))]
        warm = [self.blob(size, host=host) for host in hosts for size in (KiB, MiB)]
        warm.append(self.blob(32 * MiB))
        for blob in warm:
            self.assert_whole(self.fetch(blob), blob)
        cold = [
            self.blob(size, Turn(framing=framing), host=host)
            for host in hosts
            for size in (64 * KiB, 4 * MiB)
            for framing in (Framing.LENGTH, Framing.CHUNKED)
        ]
        tags = [self.tag(f"at {host}", host=host) for host in hosts]

        def pull(number: int) -> None:
            for blob in random.Random(number).sample([*warm, *cold, *tags], _THINGS):
                self.assert_whole(self.fetch(blob), blob)

        def scrape() -> None:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            for _ in range(_THINGS):
                with opener.open(f"http://{ADDRESS}:{port}/metrics", timeout=30) as answer:
                    self.assertIn(b"regproxy_store_bytes", answer.read())

        calls: list[Callable[[], None]] = [partial(pull, number) for number in range(_CLIENTS)]
        together([scrape, *calls])
        self.assert_not_held(proxy)

    def test_herd(self) -> None:
        """A crowd that waits for the bytes of one transfer, and is woken as they come."""
        proxy = self.new_proxy(WatchedProxy, limits=PATIENT)
        blob = self.blob(MiB, Turn(rate=MiB))
        for outcome in together([partial(self.fetch, blob)] * 200):
            self.assert_whole(outcome, blob)
        self.assert_not_held(proxy)

    def test_planted(self) -> None:
        """Somebody who does hold it is found, by name."""
        proxy = self.new_proxy(PlantedProxy)
        blob = self.blob(KiB)
        self.assert_whole(self.fetch(blob), blob)
        assert isinstance(proxy, PlantedProxy)
        self.wait_for(lambda: proxy.holds() != [])
        for hold in proxy.holds():
            self.assertGreaterEqual(hold.seconds, SLOW)
            self.assertIn("in burn", hold.stack)
            self.assertIn("in log_once", hold.stack)


class WatchTests(SynchronousTestCase):
    """Whoever holds a reactor, the watch finds it."""

    def holds(self, plant: Callable[[Any], object]) -> list[Hold]:
        """What holds a reactor of its own with *plant* in it."""
        reactor = EPollReactor()
        found: list[Hold] = []
        watch = Watch(LIMIT, found.append)
        watch.install(reactor)
        self.addCleanup(watch.stop)
        plant(reactor)
        reactor.callLater(0.2, reactor.stop)
        reactor.run(installSignalHandlers=False)
        for reader in tuple(reactor._internalReaders):
            reader.connectionLost(Failure(ConnectionDone()))
        return found

    def assert_found(self, name: str, plant: Callable[[Any], object]) -> None:
        (hold,) = self.holds(plant)
        self.assertEqual(hold.callback, name)
        self.assertGreaterEqual(hold.seconds, SLOW)
        self.assertIn("in burn", hold.stack)

    def test_timed_call(self) -> None:
        self.assert_found("tests.support.loop_watch.burn", lambda it: it.callLater(0, burn))

    def test_call_from_a_thread(self) -> None:
        def plant(reactor: Any) -> None:
            threading.Thread(target=reactor.callFromThread, args=(burn,)).start()

        self.assert_found("tests.support.loop_watch.burn", plant)

    def test_socket(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        theirs.close()

        class Reader(FileDescriptor):
            def fileno(self) -> int:
                return ours.fileno()

            def doRead(self) -> None:
                burn()
                self.stopReading()

        name = f"{Reader.__qualname__} of NoneType"
        self.assert_found(name, lambda reactor: Reader(reactor).startReading())

    def test_innocent(self) -> None:
        """Many that are short hold nobody, nor does one that waits while others run."""

        def plant(reactor: Any) -> None:
            for _ in range(20):
                reactor.callLater(0, sum, range(10000))
            reactor.callLater(0, time.sleep, SLOW)

        self.assertEqual(self.holds(plant), [])

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.web.stall import StallWatch


@implementer(IPushProducer)
class Producer:
    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class StallWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.producer = Producer()
        self.stalls = 0
        self.watch = StallWatch(self.producer, self.clock, 60.0, self.stalled)

    def stalled(self) -> None:
        self.stalls += 1

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_passes_everything_on(self) -> None:
        verifyObject(IPushProducer, self.watch)
        self.watch.pauseProducing()
        self.watch.resumeProducing()
        self.watch.pauseProducing()
        self.watch.stopProducing()
        self.assertEqual(self.producer.told, ["pause", "resume", "pause", "stop"])

    def test_time_does_not_run_while_the_consumer_keeps_up(self) -> None:
        self.clock.advance(1000)
        self.watch.pauseProducing()
        self.clock.advance(59)
        self.watch.resumeProducing()
        self.watch.pauseProducing()
        self.clock.advance(59)
        self.watch.resumeProducing()
        self.clock.advance(1000)
        self.assertEqual(self.stalls, 0)

    def test_stalls_once(self) -> None:
        self.watch.pauseProducing()
        self.clock.advance(30)
        # Told again, it has been behind since the first time.
        self.watch.pauseProducing()
        self.clock.advance(30)
        self.clock.advance(1000)
        self.assertEqual(self.stalls, 1)

    def test_stop(self) -> None:
        self.watch.pauseProducing()
        self.watch.stop()
        self.watch.stop()
        self.clock.advance(1000)
        self.assertEqual(self.stalls, 0)

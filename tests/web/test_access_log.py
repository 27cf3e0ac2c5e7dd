from __future__ import annotations

import json
from typing import cast

from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.kinds import RequestKind
from regproxy.web.access_log import AccessLog, AccessRecord

RECORD = AccessRecord(
    time=0.1234,
    client="192.0.2.7",
    way="connect",
    method="GET",
    registry="registry.example.test",
    repository="library/debian",
    reference="latest",
    status=200,
    bytes=3,
    duration=0.123456,
    cache="hit",
    reason=None,
    kind=RequestKind.TAG,
)


class AccessLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def line(self, record: AccessRecord) -> str:
        clock = Clock()
        AccessLog(clock).record(record)
        clock.advance(0)
        (event,) = self.events
        return eventAsText(event, includeTimestamp=False, includeSystem=False)

    def test_one_line_of_json(self) -> None:
        self.assertEqual(
            json.loads(self.line(RECORD)),
            {
                "time": "1970-01-01T00:00:00.123+00:00",
                "client": "192.0.2.7",
                "way": "connect",
                "method": "GET",
                "registry": "registry.example.test",
                "repository": "library/debian",
                "reference": "latest",
                "status": 200,
                "bytes": 3,
                "duration": 0.1235,
                "cache": "hit",
                "reason": None,
                "kind": "tag",
            },
        )

    def test_a_client_cannot_forge_lines(self) -> None:
        reference = 'x"}\n{"status": 200} {time} \x1b[2J'
        line = self.line(evolve(RECORD, reference=reference))
        self.assertEqual(len(line.splitlines()), 1)
        self.assertNotIn("\x1b", line)
        self.assertEqual(json.loads(line)["reference"], reference)

    def test_counted(self) -> None:
        counted: list[AccessRecord] = []
        AccessLog(Clock(), counted.append).record(RECORD)
        self.assertEqual(counted, [RECORD])

    def test_observers_get_the_record(self) -> None:
        self.line(RECORD)
        (event,) = self.events
        self.assertIs(event["access"], RECORD)
        self.assertEqual(event["log_namespace"], "regproxy.access")

    def test_all_of_one_turn_in_their_order(self) -> None:
        clock = Clock()
        log = AccessLog(clock)
        records = [evolve(RECORD, bytes=number) for number in range(3)]
        for record in records[:2]:
            log.record(record)
        self.assertEqual(self.events, [])
        (call,) = clock.getDelayedCalls()
        self.assertEqual(call.getTime(), clock.seconds())
        clock.advance(0)
        log.record(records[2])
        log.flush()
        self.assertEqual([event["access"] for event in self.events], records)
        clock.advance(0)
        self.assertEqual(len(self.events), 3)

"""Tests for :mod:`regproxy.management.encoding`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

from attrs import frozen, resolve_types
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.bounds import Between, Count
from regproxy.management.encoding import MAX_MESSAGES, Malformed, decode, encode, from_texts, plain
from regproxy.management.values import Job, JobImage, JobKind, JobState, Page, Unit


@frozen
class Inner:
    """A value in a value."""

    number: Annotated[int, Between(1, 5)] | None = None


@frozen
class Sent:
    """What a client may send."""

    names: Annotated[tuple[str, ...], Count(1, 2)]
    share: float = 0.5
    loud: bool = False
    kind: JobKind | None = None
    inner: Inner = Inner()


@frozen
class Asked:
    """Parameters."""

    limit: int = 7
    loud: bool = False
    kind: JobKind | None = None
    text: str = ""


# Hypothesis takes no types that are texts.
for cls in (Job, JobImage):
    resolve_types(cls)

# There is no UTC for the first and the last hours that a datetime can name.
TIMES = st.datetimes(
    datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.timezones() | st.just(UTC)
).map(lambda time: time.astimezone(UTC))
JOBS = st.builds(
    Job,
    started_at=TIMES,
    ended_at=st.none() | TIMES,
    images=st.lists(st.builds(JobImage), max_size=2).map(tuple),
    failures=st.lists(st.text(), max_size=2).map(tuple),
)


class RoundTripTests(SynchronousTestCase):
    """encode and decode"""

    @given(st.builds(Page[Job], items=st.lists(JOBS, max_size=3).map(tuple)))
    def test_round_trip(self, page: Page[Job]) -> None:
        self.assertEqual(decode(encode(page), Page[Job]), page)

    @given(TIMES)
    def test_times(self, time: datetime) -> None:
        """In UTC, as RFC 3339 has it."""
        text = plain(time)
        self.assertRegex(text, r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z\Z")
        self.assertEqual(datetime.fromisoformat(text), time)

    def test_offset(self) -> None:
        time = datetime(2026, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))
        self.assertEqual(plain(time), "2026-01-31T12:00:00Z")
        self.assertEqual(decode(b'"2026-01-31T13:00:00+01:00"', datetime), time)

    def test_lines(self) -> None:
        """There are none: JSON stands in one line of an event, whatever is in it."""
        self.assertEqual(encode("a\r\n\u2028"), b'"a\\r\\n\\u2028"')

    def test_defaults(self) -> None:
        self.assertEqual(decode(b'{"names": ["a"]}', Sent), Sent(("a",)))


class DecodeTests(SynchronousTestCase):
    """What is not as it should be is refused, each thing with its place."""

    def refused(self, value: object, cls: type[Any] = Sent) -> tuple[str, ...]:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        with self.assertRaises(Malformed) as caught:
            decode(data, cls)
        messages: tuple[str, ...] = caught.exception.messages
        self.assertEqual(str(caught.exception), "; ".join(messages))
        return messages

    def test_no_json(self) -> None:
        for data in (b"", b"{", b"\xff", b"[NaN]", b"[-Infinity]", b"1" * 5000, b"[" * 100000):
            (message,) = self.refused(data)
            self.assertTrue(message.startswith("not JSON: "), message)

    def test_many(self) -> None:
        """What is told of a request, and logged, is not many times what was sent."""
        sent = {"names": ["a"], **{f"x{number}": 1 for number in range(100 * MAX_MESSAGES)}}
        self.assertEqual(len(self.refused(sent)), MAX_MESSAGES)

    def test_all_at_once(self) -> None:
        sent = {"names": ["a", 1], "loud": 1, "inner": {"number": 6, "x": 1}, "nmae": 1}
        self.assertEqual(
            set(self.refused(sent)),
            {
                "names[1]: expected a string, found an integer",
                "loud: expected true or false, found an integer",
                "inner.number: expected a number from 1 to 5",
                "inner.x: unknown key (allowed: number)",
                "nmae: unknown key; did you mean names? (allowed: names, share, loud, kind, inner)",
            },
        )

    def test_types(self) -> None:
        """Nothing is taken for something else, not true for 1 either."""
        for key, value, expected in (
            ("share", "0.5", "share: expected a number, found a string"),
            ("share", True, "share: expected a number, found true or false"),
            ("loud", None, "loud: expected true or false, found null"),
            ("kind", "gcc", "kind: expected one of warm, verify, gc"),
            ("kind", 1, "kind: expected a string, found an integer"),
            ("inner", [], "inner: expected an object, found an array"),
            ("inner", {"number": True}, "inner.number: expected an integer, found true or false"),
            ("inner", {"number": 1.0}, "inner.number: expected an integer, found a number"),
            ("names", "ab", "names: expected an array, found a string"),
            ("names", [], "names: expected 1 to 2 items"),
        ):
            self.assertEqual(self.refused({"names": ["a"], key: value}), (expected,))

    def test_numbers(self) -> None:
        """A whole number is a number."""
        self.assertEqual(decode(b'{"names": ["a"], "share": 1}', Sent).share, 1.0)

    def test_missing(self) -> None:
        self.assertEqual(self.refused({}), ("names: missing",))
        self.assertEqual(self.refused([]), ("expected an object, found an array",))

    def test_bad_times(self) -> None:
        for text in ("2026-13-01T00:00:00Z", "today", "2026-01-31T12:00:00"):
            (message,) = self.refused(text, datetime)
            self.assertIn("2026-01-31T12:00:00Z", message)

    @given(
        st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), st.lists)
    )
    def test_anything(self, value: object) -> None:
        """Whatever comes is refused with a text."""
        self.assertTrue(all(self.refused(value)))

    @given(st.binary())
    def test_any_bytes(self, data: bytes) -> None:
        self.assertTrue(all(self.refused(data)))


class TextsTests(SynchronousTestCase):
    """from_texts"""

    @given(st.integers(-(10**15), 10**15), st.booleans(), st.sampled_from(JobKind), st.text())
    def test_values(self, limit: int, loud: bool, kind: JobKind, text: str) -> None:
        """As JSON writes them, but for the quotes."""
        texts = {"limit": str(limit), "loud": json.dumps(loud), "kind": str(kind), "text": text}
        self.assertEqual(from_texts(texts, Asked), Asked(limit, loud, kind, text))

    def test_nothing(self) -> None:
        self.assertEqual(from_texts({}, Asked), Asked())

    def test_refused(self) -> None:
        for key, text, expected in (
            *(
                ("limit", text, "limit: expected an integer")
                for text in ("", "1.0", "01", " 1", "\N{ARABIC-INDIC DIGIT ONE}")
            ),
            ("limit", "1" * 17, "limit: expected an integer"),
            *(("loud", text, "loud: expected true or false") for text in ("", "1", "True")),
            ("kind", "", "kind: expected one of warm, verify, gc"),
            ("color", "red", "color: unknown key (allowed: limit, loud, kind, text)"),
        ):
            with self.assertRaises(Malformed) as caught:
                from_texts({key: text}, Asked)
            self.assertEqual(caught.exception.messages, (expected,))


class ValuesTests(SynchronousTestCase):
    """Keys are those of the attributes."""

    def test_keys(self) -> None:
        job = Job(
            "a", JobKind.GC, JobState.DONE, datetime(2026, 1, 1, tzinfo=UTC), None, 1, 2, Unit.ITEMS
        )
        self.assertEqual(
            json.loads(encode(job)),
            {
                "id": "a",
                "kind": "gc",
                "state": "done",
                "started_at": "2026-01-01T00:00:00Z",
                "ended_at": None,
                "done": 1,
                "total": 2,
                "unit": "items",
                "message": None,
                "failures": [],
                "images": [],
            },
        )

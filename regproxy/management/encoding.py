"""Values as JSON, and JSON as values; nothing is converted silently, and no key is ignored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from types import GenericAlias
from typing import Annotated, Any, Final, NoReturn, Protocol, TypeVar, get_args, get_origin

from attrs import has
from cattrs import BaseValidationError, Converter
from cattrs.gen import make_dict_structure_fn

from regproxy.config.structure import path_text, problems

#: Of what is wrong, as many things are told: the log tells them too.
MAX_MESSAGES: Final = 20

_T = TypeVar("_T")

_KINDS: Final[Mapping[type[Any], str]] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    type(None): "null",
}
# Numbers as JSON writes them (RFC 8259 section 6), those only that a double can hold.
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")


class Malformed(Exception):
    """What was sent is not what is asked for.

    Attributes:
        messages: one line for each of the first things that are wrong, with its place.
    """

    def __init__(self, *messages: str) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


class Bound(Protocol):
    """What a value has to keep to, besides its type: the extra of an ``Annotated``."""

    def check(self, value: Any) -> None:
        """Raise ValueError, with a text for people, when *value* does not."""

    def schema(self) -> dict[str, Any]:
        """The same as keywords of JSON Schema."""


def plain(value: object) -> Any:
    """*value* made of what JSON has: dicts, lists, texts, numbers."""
    return _of_json.unstructure(value)


def encode(value: object) -> bytes:
    """*value* as JSON, in ASCII."""
    return json.dumps(plain(value), allow_nan=False, separators=(",", ":")).encode()


def decode(data: bytes, cls: type[_T]) -> _T:
    """The value of *cls* that *data* is in JSON.

    Raises:
        Malformed: it is none.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
    return _structured(_of_json, value, cls)


def from_texts(texts: Mapping[str, str], cls: type[_T]) -> _T:
    """The value of *cls* whose attributes are what *texts* say; numbers are as in JSON.

    Raises:
        Malformed: it is none.
    """
    return _structured(_of_texts, dict(texts), cls)


def _structured(converter: Converter, value: object, cls: type[_T]) -> _T:
    try:
        return converter.structure(value, cls)
    except (BaseValidationError, ValueError) as error:
        lines = []
        for path, message in islice(problems(error), MAX_MESSAGES):
            place = path_text(path)
            lines.append(f"{place}: {message}" if place else message)
        raise Malformed(*lines) from None


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _expect(kind: type[_T], value: object) -> _T:
    # To Python, true is an integer.
    if type(value) is not kind:
        found = _KINDS.get(type(value), "something else")
        raise ValueError(f"expected {_KINDS[kind]}, found {found}")
    return value


def _converter(hooks: Mapping[type[Any], Callable[[Any], Any]]) -> Converter:
    """A converter that reads plain values by *hooks*."""
    converter = Converter(forbid_extra_keys=True)

    def record(cls: type[Any]) -> Callable[[Any, Any], Any]:
        read = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
        return lambda value, cls: read(_expect(dict, value), cls)

    def sequence(value: Any, cls: Any) -> tuple[Any, ...]:
        members: Any = GenericAlias(list, get_args(cls)[0])
        return tuple(converter.structure(_expect(list, value), members))

    def bounded(value: Any, cls: Any) -> Any:
        kind, *bounds = get_args(cls)
        read = converter.structure(value, kind)
        for bound in bounds:
            bound.check(read)
        return read

    converter.register_structure_hook_factory(has, record)
    converter.register_structure_hook_func(_is(tuple), sequence)
    converter.register_structure_hook_func(_is(Annotated), bounded)
    converter.register_structure_hook(StrEnum, _choice)
    converter.register_structure_hook(datetime, lambda value, _: _time(value))
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, _ignoring_type(hook))
    converter.register_unstructure_hook(datetime, _time_text)
    return converter


def _is(origin: object) -> Callable[[Any], bool]:
    """A test for a generic type such as ``tuple[str, ...]``."""
    return lambda cls: get_origin(cls) is origin


def _ignoring_type(hook: Callable[[Any], _T]) -> Callable[[Any, Any], _T]:
    return lambda value, _: hook(value)


def _choice(value: Any, cls: type[StrEnum]) -> StrEnum:
    text = _expect(str, value)
    try:
        return cls(text)
    except ValueError:
        allowed = ", ".join(cls)
        raise ValueError(f"expected one of {allowed}") from None


def _time(value: Any) -> datetime:
    try:
        time = datetime.fromisoformat(_expect(str, value))
    except ValueError:
        raise ValueError("expected a time as in 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        raise ValueError("expected a time with its offset, as in 2026-01-31T12:00:00Z")
    return time.astimezone(UTC)


def _time_text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _number(value: Any) -> float:
    return float(value) if type(value) is int else _expect(float, value)


def _integer_text(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("expected an integer")
    return int(text)


def _boolean_text(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("expected true or false")
    return text == "true"


_of_json: Final = _converter(
    {
        str: lambda value: _expect(str, value),
        bool: lambda value: _expect(bool, value),
        int: lambda value: _expect(int, value),
        float: _number,
    }
)
_of_texts: Final = _converter({str: str, bool: _boolean_text, int: _integer_text})

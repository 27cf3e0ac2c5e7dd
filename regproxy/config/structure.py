"""What TOML has turned into the model and back, and every problem with its key path.

cattrs walks the classes of the model; the hooks here say how one value is read.
None of them converts silently: a number is not a text, a text is not a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar, get_args, get_origin

from attrs import fields, has
from cattrs import (
    AttributeValidationNote,
    BaseValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from regproxy.config.model import Access, Auth, HostPattern, Push, RegistrySection, TagSource
from regproxy.config.units import format_duration, format_size, parse_duration, parse_size
from regproxy.config.wayout import Family, ParentProxy
from regproxy.oci.errors import HostInvalid, shown
from regproxy.oci.names import Host

KeyPath = tuple[str | int, ...]
Problem = tuple[KeyPath, str]

_T = TypeVar("_T")


class Problems(Exception):
    """Bad values; each path starts at the value that was being read."""

    def __init__(self, found: Iterable[Problem]) -> None:
        super().__init__()
        self.found = tuple(found)


def problems(error: BaseException, path: KeyPath = ()) -> Iterator[Problem]:
    """The problems in what structuring raised, each with its path from the top."""
    match error:
        case Problems():
            for inner, message in error.found:
                yield (*path, *inner), message
        case ForbiddenExtraKeysError():
            known = [attribute.name for attribute in fields(error.cl)]
            for key in sorted(error.extra_fields):
                yield (*path, key), _unknown(key, known)
        case BaseValidationError():
            for inner_error in error.exceptions:
                yield from problems(inner_error, (*path, *_step(inner_error)))
        case KeyError():
            yield path, "missing"
        case _:
            yield path, str(error)


def path_text(path: KeyPath) -> str:
    """A path as TOML writes it: ``registries."ghcr.io".auth``, ``freshness.rule[0]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", step)
            text += ("." if text else "") + (step if bare else json.dumps(step))
    return text


def make_converter(directory: Path, finish: dict[type[Any], Callable[[Any], Any]]) -> Converter:
    """A converter between what TOML has and the model.

    Args:
        directory: where relative paths start.
        finish: checks across the keys of a section, by its class. Called once every
            key could be read; gives the section to take, or raises Problems.
    """
    converter = Converter(forbid_extra_keys=True)

    def section(cls: type[Any]) -> Callable[[Any, Any], Any]:
        structure = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
        finished = finish.get(cls, lambda value: value)

        def read(value: Any, _: Any) -> Any:
            if cls is ParentProxy and isinstance(value, str):
                # Most have nothing but their address.
                value = {"url": value}
            return finished(structure(_expect(dict, value), cls))

        return read

    def sequence(value: Any, cls: Any) -> tuple[Any, ...]:
        members: Any = GenericAlias(list, get_args(cls)[0])
        return tuple(converter.structure(_expect(list, value), members))

    def paths(value: Any, cls: Any) -> tuple[Path, ...]:
        """One path need not be in a list."""
        return sequence([value] if isinstance(value, str) else value, cls)

    def registries(value: Any, _: Any) -> dict[Host, RegistrySection]:
        return _registries(converter, _expect(dict, value))

    converter.register_structure_hook_factory(has, section)
    converter.register_structure_hook_func(_is(tuple), sequence)
    converter.register_structure_hook_func(lambda cls: bool(cls == tuple[Path, ...]), paths)
    converter.register_structure_hook_func(_is(dict), registries)
    converter.register_structure_hook(str, lambda value, _: _expect(str, value))
    converter.register_structure_hook(bool, lambda value, _: _expect(bool, value))
    converter.register_structure_hook(int, lambda value, _: _unit(parse_size, value))
    converter.register_structure_hook(float, lambda value, _: _unit(parse_duration, value))
    converter.register_structure_hook(Path, lambda value, _: _path(directory, value))
    converter.register_structure_hook(Host, lambda value, _: _host(value))
    converter.register_structure_hook(HostPattern, lambda value, _: _pattern(value))
    converter.register_structure_hook_func(_is(re.Pattern), lambda value, _: _regex(value))
    for choice in (Auth, Access, Push, TagSource, Family):
        converter.register_structure_hook(choice, _choice)

    converter.register_unstructure_hook(bool, lambda value: value)
    converter.register_unstructure_hook(int, format_size)
    converter.register_unstructure_hook(float, format_duration)
    converter.register_unstructure_hook(Path, str)
    converter.register_unstructure_hook(Host, str)
    converter.register_unstructure_hook(HostPattern, str)
    converter.register_unstructure_hook_func(_is(re.Pattern), lambda value: value.pattern)
    return converter


def _registries(converter: Converter, table: dict[str, Any]) -> dict[Host, RegistrySection]:
    found: list[Problem] = []
    sections: dict[Host, RegistrySection] = {}
    keys: dict[Host, str] = {}
    for key, value in table.items():
        try:
            host = Host.parse(key).canonical
        except HostInvalid as error:
            found.append(((key,), error.message))
            continue
        first = keys.setdefault(host, key)
        if first != key:
            found.append(((key,), f"the same registry as {path_text(('registries', first))}"))
        try:
            sections[host] = converter.structure(value, RegistrySection)
        except (ValueError, Problems, BaseValidationError) as error:
            found.extend(problems(error, (key,)))
    if found:
        raise Problems(found)
    return sections


def _is(origin: object) -> Callable[[Any], bool]:
    """A test for a generic type such as ``tuple[str, ...]``."""
    return lambda cls: get_origin(cls) is origin


def _step(error: BaseException) -> KeyPath:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name,)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()


def _unknown(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown key{hint} (allowed: {', '.join(known)})"


_KINDS = {
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a text",
}


def _kind(value: Any) -> str:
    """Never the value itself: it may be a password without its quotes."""
    return _KINDS.get(type(value), "a date or time")


def _expect(kind: type[_T], value: Any) -> _T:
    if not isinstance(value, kind):
        raise ValueError(f"expected {_KINDS[kind]}, found {_kind(value)}")
    return value


def _unit(parse: Callable[[object], float], value: Any) -> float:
    try:
        return parse(value)
    except ValueError as error:
        found = shown(value) if isinstance(value, str) else _kind(value)
        raise ValueError(f"{error}, found {found}") from None


def _path(directory: Path, value: Any) -> Path:
    text = _expect(str, value)
    if not text or "\0" in text:
        raise ValueError(f"expected a path, found {shown(text)}")
    return directory / text


def _host(value: Any) -> Host:
    try:
        return Host.parse(_expect(str, value)).canonical
    except HostInvalid as error:
        raise ValueError(error.message) from None


def _pattern(value: Any) -> HostPattern:
    text = _expect(str, value)
    try:
        return HostPattern.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}, found {shown(text)}") from None


def _regex(value: Any) -> re.Pattern[str]:
    text = _expect(str, value)
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression, found {shown(text)}: {error}") from None


def _choice(value: Any, cls: type[StrEnum]) -> StrEnum:
    text = _expect(str, value)
    allowed = " or ".join(f'"{member}"' for member in cls)
    try:
        return cls(text)
    except ValueError:
        raise ValueError(f"expected {allowed}, found {shown(text)}") from None

"""JSON Schemas of values, from their attributes' types and what their docstrings say of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from attrs import NOTHING, Attribute, fields, has, resolve_types

from regproxy.management.encoding import plain

_PLAIN: Final[Mapping[Any, dict[str, Any]]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    datetime: {"type": "string", "format": "date-time"},
    NoneType: {"type": "null"},
    Any: {},
}


class Schemas:
    """Schemas of types; those of classes refer to each other by name.

    Args:
        prefix: of references, before a name.
        sent: whether they are of what clients send. Of that, what has a default may be left out,
            and nothing else may be there. What is answered is complete, and may be more in a
            later version.

    Attributes:
        named: the schemas of the classes that were asked for, and of those that they name.
    """

    def __init__(self, prefix: str, *, sent: bool) -> None:
        self.named: dict[str, dict[str, Any]] = {}
        self._prefix = prefix
        self._sent = sent

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of *kind*: a class of values, or what an attribute of one is declared as."""
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            schema = self.of(arguments[0])
            for bound in arguments[1:]:
                schema |= bound.schema()
            return schema
        if origin in (UnionType, Union):
            return _union(list(map(self.of, arguments)))
        if origin is tuple:
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        return {"$ref": self._prefix + self._name(kind, origin, arguments)}

    def _name(self, kind: Any, origin: Any, arguments: tuple[Any, ...]) -> str:
        cls = origin or kind
        if not (isinstance(cls, type) and (has(cls) or issubclass(cls, StrEnum))):
            raise TypeError(f"{kind} is no class of values")
        name = "Of".join([cls.__name__, *(each.__name__ for each in arguments)])
        if name not in self.named:
            # Before what it consists of, which may be more of it.
            self.named[name] = {}
            variables = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=True))
            self.named[name] = self._class(cls, variables)
        return name

    def _class(self, cls: type[Any], variables: Mapping[Any, Any]) -> dict[str, Any]:
        if issubclass(cls, StrEnum):
            return {"description": summary_of(cls), "type": "string", "enum": list(map(str, cls))}
        attributes = attributes_of(cls)
        said = descriptions_of(cls)
        properties = {}
        for each in attributes:
            schema = self.of(_filled(each.type, variables))
            schema["description"] = said[each.name]
            if self._sent:
                schema |= default_of(each)
            properties[each.name] = schema
        return {
            "description": summary_of(cls),
            "type": "object",
            "properties": properties,
            "required": [
                each.name for each in attributes if each.default is NOTHING or not self._sent
            ],
            **({"additionalProperties": False} if self._sent else {}),
        }


def attributes_of(cls: type[Any]) -> tuple[Attribute[Any], ...]:
    """The attributes of *cls*, with their types."""
    resolve_types(cls)
    return tuple(fields(cls))


def default_of(attribute: Attribute[Any]) -> dict[str, Any]:
    """The keyword that says what *attribute* is when it is left out, unless that is null."""
    default = attribute.default
    return {} if default is NOTHING or default is None else {"default": plain(default)}


def summary_of(subject: object) -> str:
    """The first sentence of a docstring, in one line."""
    return _line((inspect.getdoc(subject) or "").partition("\n\n")[0])


def descriptions_of(cls: type[Any]) -> dict[str, str]:
    """What the docstring of *cls* says of each attribute, below ``Attributes:``."""
    _, _, text = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
    return {name: _line(said) for name, said in found}


def _line(text: str) -> str:
    """*text* of a docstring in one line, in the words of Markdown."""
    return " ".join(text.split()).replace("``", "`")


def _filled(kind: Any, variables: Mapping[Any, Any]) -> Any:
    """*kind* with its type variables filled in."""
    parameters = getattr(kind, "__parameters__", ())
    return kind[tuple(variables[each] for each in parameters)] if parameters else kind


def _union(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of what is one of *schemas*: of null and something plain, or of several."""
    if len(schemas) == 2 and schemas[1] == {"type": "null"} and "type" in schemas[0]:
        first = schemas[0]
        return {**first, "type": [first["type"], "null"]}
    return {"anyOf": schemas}

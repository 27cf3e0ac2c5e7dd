"""Clients that know an API from its document only, and look whether it is true."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from attrs import frozen
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

METHODS: Final = ("get", "put", "post", "delete", "patch")
# What HTTP lets a client put into a field (RFC 9110 section 5.5), and into a path.
_FIELD: Final = st.characters(codec="ascii", categories=("L", "N", "P", "S"))
_TEXT: Final = st.characters(codec="utf-8")
_SEGMENT: Final = st.characters(codec="utf-8", exclude_characters="\0")

formats: Final = FormatChecker(())


@formats.checks("date-time", raises=ValueError)
def _is_time(text: object) -> bool:
    return not isinstance(text, str) or datetime.fromisoformat(text).tzinfo is not None


@frozen
class Request:
    """What to send.

    Attributes:
        operation: its ``operationId``.
        target: below the server's URL.
        answers: what the document says of the answers, by status.
    """

    operation: str
    method: str
    target: str
    fields: Mapping[str, str]
    body: bytes
    answers: Mapping[str, Any]


class Document:
    """An API, as its document has it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    @property
    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Path, method and description of each."""
        for path, item in self._document["paths"].items():
            for method in METHODS:
                if method in item:
                    yield path, method, item[method]

    def requests(self) -> st.SearchStrategy[Request]:
        """Requests that are as the document asks for."""
        return st.sampled_from(list(self.operations)).flatmap(lambda each: self._of(*each))

    def one_of_each(self) -> Iterator[tuple[str, st.SearchStrategy[Request]]]:
        """The same, by ``operationId``."""
        for path, method, operation in self.operations:
            yield operation["operationId"], self._of(path, method, operation)

    def check(self, request: Request, status: int, media_type: str, body: bytes) -> None:
        """See that an answer is one that the document tells of.

        Raises:
            AssertionError: it is none.
        """
        name = f"{request.operation}, {request.target}: {status}"
        assert str(status) in request.answers, f"{name} is not documented"
        content = request.answers[str(status)].get("content", {})
        if not content:
            assert not body, f"{name} has a body"
            return
        assert media_type in content, f"{name}: {media_type} is not documented"
        schema = content[media_type].get("schema")
        if schema is not None:
            self.validate(schema, json.loads(body))

    def validate(self, schema: Mapping[str, Any], value: object) -> None:
        """See that *value* is as *schema* says, and has nothing that it does not say."""
        components = deepcopy(self._document["components"])
        for each in components["schemas"].values():
            if "properties" in each:
                each["additionalProperties"] = False
        whole = {**schema, "components": components}
        Draft202012Validator(whole, format_checker=formats).validate(value)

    def _of(self, path: str, method: str, operation: dict[str, Any]) -> st.SearchStrategy[Request]:
        # A cursor is nothing to make up.
        parameters = [each for each in operation.get("parameters", []) if each["name"] != "cursor"]
        return st.builds(
            self._request,
            st.just((path, method, operation)),
            st.fixed_dictionaries(
                {
                    (each["in"], each["name"]): self._parameter(each)
                    for each in parameters
                    if each["required"]
                },
                optional={
                    (each["in"], each["name"]): self._parameter(each)
                    for each in parameters
                    if not each["required"]
                },
            ),
            self._body(operation.get("requestBody")),
        )

    def _request(
        self,
        what: tuple[str, str, dict[str, Any]],
        parameters: Mapping[tuple[str, str], str],
        body: tuple[str, bytes] | None,
    ) -> Request:
        path, method, operation = what
        query, fields = {}, {}
        for (place, name), value in parameters.items():
            if place == "path":
                path = path.replace(f"{{{name}}}", quote(value, safe=""))
            elif place == "query":
                query[name] = value
            else:
                fields[name] = value
        if body is not None:
            fields["Content-Type"] = body[0]
        return Request(
            operation["operationId"],
            method.upper(),
            f"{path}?{urlencode(query)}" if query else path,
            fields,
            b"" if body is None else body[1],
            operation["responses"],
        )

    def _parameter(self, parameter: Mapping[str, Any]) -> st.SearchStrategy[str]:
        characters = {"path": _SEGMENT, "header": _FIELD}.get(parameter["in"], _TEXT)
        values = self.values(parameter["schema"], characters)
        # "." and ".." are no segments (RFC 3986 section 5.2.4): clients take them away.
        texts = values.map(lambda value: value if isinstance(value, str) else json.dumps(value))
        return texts.filter(lambda text: parameter["in"] != "path" or text not in ("", ".", ".."))

    def _body(self, body: Mapping[str, Any] | None) -> st.SearchStrategy[tuple[str, bytes] | None]:
        if body is None:
            return st.none()
        ((media_type, content),) = body["content"].items()
        if "schema" not in content:
            return st.binary(min_size=1, max_size=64).map(lambda data: (media_type, data))
        values = self.values(content["schema"])
        return values.map(lambda value: (media_type, json.dumps(value).encode()))

    def values(
        self, schema: Mapping[str, Any], characters: st.SearchStrategy[str] = _TEXT
    ) -> st.SearchStrategy[Any]:
        """What *schema* lets be sent."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return st.deferred(
                lambda: self.values(self._document["components"]["schemas"][name], characters)
            )
        if "anyOf" in schema:
            return st.one_of([self.values(each, characters) for each in schema["anyOf"]])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return st.one_of([self._kind(kind, schema, characters) for kind in kinds])

    def _kind(
        self, kind: str, schema: Mapping[str, Any], characters: st.SearchStrategy[str]
    ) -> st.SearchStrategy[Any]:
        match kind:
            case "null":
                return st.none()
            case "boolean":
                return st.booleans()
            case "integer":
                return st.integers(schema.get("minimum", 0), schema.get("maximum", 10**6))
            case "number":
                least, most = schema.get("minimum", 0), schema.get("maximum", 10**6)
                return st.floats(least, most, allow_nan=False)
            case "string" if "pattern" in schema:
                return st.from_regex(schema["pattern"].removesuffix("$") + r"\Z", fullmatch=True)
            case "string":
                least, most = schema.get("minLength", 0), min(schema.get("maxLength", 20), 20)
                return st.text(characters, min_size=least, max_size=most)
            case "array":
                return st.lists(
                    self.values(schema["items"]),
                    min_size=schema.get("minItems", 0),
                    max_size=min(schema.get("maxItems", 3), 3),
                )
        properties = {key: self.values(each) for key, each in schema.get("properties", {}).items()}
        required = {key: properties.pop(key) for key in schema.get("required", [])}
        return st.fixed_dictionaries(required, optional=properties)

"""The document about the API (OpenAPI 3.1), made of the rows that requests are answered by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

from attrs import NOTHING

from regproxy import __version__
from regproxy.management.operations import AnyOperation, Media, Nothing, Operation
from regproxy.management.schema import (
    Schemas,
    attributes_of,
    default_of,
    descriptions_of,
    summary_of,
)
from regproxy.management.values import Problem

_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The token in token_file."},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "A user of htpasswd_file, or the token as the password of any user.",
    },
}
_MALFORMED: Final = "a parameter, or the body, is not as described here"
_REFUSED: Final = "the client is not in one of the networks of read_from, or may not do this"


def document(
    operations: Sequence[AnyOperation], schemes: Sequence[str]
) -> Operation[Nothing, None, dict[str, Any]]:
    """The operation that answers with the document about *operations* and itself.

    Args:
        schemes: what a change needs one of.
    """

    async def show(parameters: Nothing, body: None) -> dict[str, Any]:
        return made

    itself = Operation(
        name="getDocument",
        method="GET",
        path="/openapi.json",
        summary="This document.",
        handler=show,
        parameters=Nothing,
        answer=dict[str, Any],
    )
    made = _made([*operations, itself], schemes)
    return itself


def _made(operations: Iterable[AnyOperation], schemes: Sequence[str]) -> dict[str, Any]:
    sent, answered = (Schemas("#/components/schemas/", sent=each) for each in (True, False))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        item = paths.setdefault(operation.path, {})
        item[operation.method.lower()] = _operation(operation, sent, answered, schemes)
    components: dict[str, Any] = {"schemas": {**sent.named, **answered.named}}
    if schemes:
        components["securitySchemes"] = {each: _SCHEMES[each] for each in schemes}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "regproxy",
            "version": __version__,
            "description": "What a regproxy knows and can be told to do."
            " Sizes are bytes, durations seconds.",
        },
        "servers": [{"url": "/api/v1"}],
        "paths": dict(sorted(paths.items())),
        "components": components,
    }


def _operation(
    operation: AnyOperation, sent: Schemas, answered: Schemas, schemes: Sequence[str]
) -> dict[str, Any]:
    said: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    if parameters := list(_parameters(operation, sent)):
        said["parameters"] = parameters
    if operation.body is not None:
        said["requestBody"] = {
            "required": not isinstance(operation.body, Media),
            "content": _content(operation.body, sent),
        }
    said["responses"] = _responses(operation, answered, schemes)
    if operation.changes and schemes:
        said["security"] = [{each: []} for each in schemes]
    return said


def _parameters(operation: AnyOperation, schemas: Schemas) -> Iterable[dict[str, Any]]:
    texts = descriptions_of(operation.parameters)
    for attribute in attributes_of(operation.parameters):
        name = attribute.name
        in_path, in_header = name in operation.in_path, name in operation.in_header
        yield {
            "name": operation.in_header.get(name, name),
            "in": "path" if in_path else "header" if in_header else "query",
            "required": in_path or attribute.default is NOTHING,
            "description": texts[name],
            "schema": schemas.of(_without_null(attribute.type)) | default_of(attribute),
        }


def _responses(operation: AnyOperation, schemas: Schemas, schemes: Sequence[str]) -> dict[str, Any]:
    reasons: dict[HTTPStatus, list[str]] = {
        HTTPStatus.BAD_REQUEST: [_MALFORMED],
        HTTPStatus.FORBIDDEN: [_REFUSED],
    }
    if operation.body is not None:
        reasons[HTTPStatus.UNSUPPORTED_MEDIA_TYPE] = ["the body is of another media type"]
        if not isinstance(operation.body, Media):
            reasons[HTTPStatus.REQUEST_ENTITY_TOO_LARGE] = ["the body is too long"]
    if operation.changes and schemes:
        reasons[HTTPStatus.UNAUTHORIZED] = ["a login is needed, or not known"]
        reasons[HTTPStatus.TOO_MANY_REQUESTS] = ["too many bad logins"]
        reasons[HTTPStatus.SERVICE_UNAVAILABLE] = ["logins cannot be checked"]
    for error, status in operation.errors.items():
        reasons.setdefault(status, []).append(summary_of(error).removesuffix("."))
    good: dict[str, Any] = {"description": operation.status.phrase}
    if operation.answer is not None:
        good["content"] = _content(operation.answer, schemas)
    problem = {"application/problem+json": {"schema": schemas.of(Problem)}}
    return {
        str(operation.status.value): good,
        **{
            str(status.value): {"description": "; ".join(said), "content": problem}
            for status, said in sorted(reasons.items())
        },
    }


def _content(kind: Any, schemas: Schemas) -> dict[str, Any]:
    if isinstance(kind, Media):
        return {kind.type: {}}
    return {"application/json": {"schema": schemas.of(kind)}}


def _without_null(kind: Any) -> Any:
    """*kind* of a parameter, which is left out where it would be null."""
    if get_origin(kind) in (UnionType, Union):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    return kind

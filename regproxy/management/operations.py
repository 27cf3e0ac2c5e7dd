"""Operations of the API: each is a row, from which requests are answered and the document made."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Generic, Protocol, TypeVar

from attrs import Factory, frozen

from regproxy.management.bounds import Between, Length
from regproxy.management.paging import DEFAULT_LIMIT, MAX_LIMIT
from regproxy.web.site import StrictRequest

P = TypeVar("P")
B = TypeVar("B")
A = TypeVar("A")


@frozen
class Media:
    """A body that is no JSON: its bytes as they are, however many.

    The body of a request is given to the handler as a
    :class:`~regproxy.web.request_body.RequestBody`, None when it is empty. A handler that
    answers with one gives a :class:`Streamed`.
    """

    type: str


class Streamed(Protocol):
    """An answer that is sent piece by piece."""

    async def send(self, request: StrictRequest) -> None:
        """Set the header fields and send the body; cancelled when the client leaves.

        The status and the media type are set already. Whoever raises before the first byte
        has the error answered.
        """


@frozen
class Nothing:
    """No parameters."""


@frozen
class Paged:
    """Which part of a list.

    Attributes:
        limit: how many items at most.
        cursor: ``next`` of the part before; without it the list begins.
    """

    limit: Annotated[int, Between(1, MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: Annotated[str, Length(1, 1024)] | None = None


@frozen(kw_only=True)
class Operation(Generic[P, B, A]):
    """One thing that can be asked for.

    Attributes:
        name: ``operationId``: as in ``listJobs``.
        method: the HTTP method. What answers GET answers HEAD too.
        path: below ``/api/v1``, as in ``/jobs/{id}``; a name in braces stands for one segment,
            percent-encoded, and is an attribute of *parameters*.
        summary: what it does, for people.
        handler: does it, given the parameters and the body.
        answer: the class of what is answered, or a media type; None for nothing (204).
        parameters: a class whose attributes are the parameters: text, numbers, booleans, choices.
        in_header: those of them that are header fields, with the names of these.
        body: the class of what has to be sent, or a media type; None for nothing.
        status: of the answer.
        errors: what else may come of it: the exceptions that the handler raises, each with the
            status of the answer; their texts are shown.
        changes: whether it needs the right to change something.
    """

    name: str
    method: str
    path: str
    summary: str
    handler: Callable[[P, B], Coroutine[Any, Any, A]]
    answer: Any
    parameters: type[P]
    in_header: Mapping[str, str] = Factory(dict)
    body: Any = None
    status: HTTPStatus = HTTPStatus.OK
    errors: Mapping[type[Exception], HTTPStatus] = Factory(dict)
    changes: bool = False

    @property
    def in_path(self) -> frozenset[str]:
        """The parameters that are segments of the path."""
        parts = self.path.split("/")
        return frozenset(part[1:-1] for part in parts if part.startswith("{"))


#: A row whatever its types.
AnyOperation = Operation[Any, Any, Any]

#: The methods that change nothing (RFC 9110 section 9.2.1).
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

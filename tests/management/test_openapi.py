"""Tests for :mod:`regproxy.management.openapi`: the document is valid, and it is true."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import ManagementSection
from regproxy.management.bounds import Count, Length, Pattern
from regproxy.management.openapi import document
from regproxy.management.operations import AnyOperation, Media, Nothing, Operation, Paged
from regproxy.management.values import Job, JobKind, Page, Sample
from tests.support.api import BEARER, LOOPBACK, ApiCase
from tests.support.openapi import Document, Request
from tests.support.sites import responses


class NoThing(Exception):
    """There is no such thing."""


class Gone(Exception):
    """It was there."""


@frozen
class Which:
    """Which thing.

    Attributes:
        name: of it.
        kind: of what it is.
        part: ``1`` or ``2``.
        seen: what is known.
    """

    name: Annotated[str, Length(1, 9)]
    kind: JobKind
    part: Annotated[str, Pattern("1 or 2", "[12]")] | None = None
    seen: bool = False


@frozen
class Sent:
    """What is sent.

    Attributes:
        names: some.
    """

    names: Annotated[tuple[str, ...], Count(1, 3)]


async def unused(parameters: object, body: object) -> Any:
    raise NotImplementedError


CHANGE: Operation[Which, Sent, Job] = Operation(
    name="changeThing",
    method="PUT",
    path="/things/{name}",
    summary="Change it.",
    handler=unused,
    parameters=Which,
    in_header={"seen": "X-Seen"},
    body=Sent,
    answer=Job,
    status=HTTPStatus.ACCEPTED,
    errors={NoThing: HTTPStatus.NOT_FOUND, Gone: HTTPStatus.NOT_FOUND},
    changes=True,
)


def made(*operations: AnyOperation, schemes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The document about *operations*, which is valid."""
    show = document(operations, schemes)
    results: list[dict[str, Any]] = []
    ensureDeferred(show.handler(Nothing(), None)).addCallback(results.append)
    (found,) = results
    OpenAPIV31SpecValidator(found).validate()
    return found


class DocumentTests(SynchronousTestCase):
    """What it says of one operation"""

    maxDiff = None

    def test_parameters(self) -> None:
        operation = made(CHANGE)["paths"]["/things/{name}"]["put"]
        self.assertEqual(
            operation["parameters"],
            [
                {
                    "name": "name",
                    "in": "path",
                    "required": True,
                    "description": "of it.",
                    "schema": {"type": "string", "minLength": 1, "maxLength": 9},
                },
                {
                    "name": "kind",
                    "in": "query",
                    "required": True,
                    "description": "of what it is.",
                    "schema": {"$ref": "#/components/schemas/JobKind"},
                },
                {
                    "name": "part",
                    "in": "query",
                    "required": False,
                    "description": "`1` or `2`.",
                    "schema": {"type": "string", "pattern": "^(?:[12])$"},
                },
                {
                    "name": "X-Seen",
                    "in": "header",
                    "required": False,
                    "description": "what is known.",
                    "schema": {"type": "boolean", "default": False},
                },
            ],
        )

    def test_body(self) -> None:
        found = made(CHANGE)
        body = found["paths"]["/things/{name}"]["put"]["requestBody"]
        schema = {"$ref": "#/components/schemas/Sent"}
        self.assertEqual(
            body, {"required": True, "content": {"application/json": {"schema": schema}}}
        )
        self.assertIs(found["components"]["schemas"]["Sent"]["additionalProperties"], False)

    def test_answers(self) -> None:
        answers = made(CHANGE)["paths"]["/things/{name}"]["put"]["responses"]
        self.assertEqual(set(answers), {"202", "400", "403", "404", "413", "415"})
        self.assertEqual(
            answers["202"]["content"],
            {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}},
        )
        self.assertEqual(answers["404"]["description"], "There is no such thing; It was there")
        for status, answer in answers.items():
            if status != "202":
                self.assertEqual(list(answer["content"]), ["application/problem+json"])

    def test_login(self) -> None:
        found = made(CHANGE, schemes=("basic",))
        operation = found["paths"]["/things/{name}"]["put"]
        self.assertEqual(operation["security"], [{"basic": []}])
        self.assertLess({"401", "429", "503"}, set(operation["responses"]))
        self.assertEqual(list(found["components"]["securitySchemes"]), ["basic"])

    def test_media(self) -> None:
        """Bodies that are no JSON, and no body."""
        take: Operation[Nothing, Any, None] = Operation(
            name="take",
            method="PUT",
            path="/x",
            summary="",
            handler=unused,
            parameters=Nothing,
            body=Media("application/octet-stream"),
            answer=None,
            status=HTTPStatus.NO_CONTENT,
        )
        give: Operation[Nothing, None, Any] = Operation(
            name="give",
            method="GET",
            path="/x",
            summary="",
            handler=unused,
            parameters=Nothing,
            answer=Media("text/event-stream"),
        )
        item = made(take, give)["paths"]["/x"]
        self.assertEqual(
            item["put"]["requestBody"],
            {"required": False, "content": {"application/octet-stream": {}}},
        )
        self.assertNotIn("content", item["put"]["responses"]["204"])
        self.assertNotIn("413", item["put"]["responses"])
        self.assertEqual(item["get"]["responses"]["200"]["content"], {"text/event-stream": {}})

    def test_itself(self) -> None:
        self.assertIn("/openapi.json", made()["paths"])

    def test_pages(self) -> None:
        listing: Operation[Paged, None, Page[Sample]] = Operation(
            name="list",
            method="GET",
            path="/x",
            summary="",
            handler=unused,
            parameters=Paged,
            answer=Page[Sample],
        )
        self.assertIn("PageOfSample", made(listing)["components"]["schemas"])


class TruthTests(ApiCase):
    """Every operation of the served document, over a real site"""

    section = ManagementSection(token_file=Path("token"))

    def setUp(self) -> None:
        super().setUp()
        served = self.ask("GET", "/openapi.json").json
        OpenAPIV31SpecValidator(served).validate()
        self.document = Document(served)

    def drive(self, request: Request, fields: dict[str, str]) -> int:
        """Send *request*, and look at the answer."""
        stream = self.send(
            request.method, request.target, {**request.fields, **fields}, request.body
        )
        data = stream.take()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        given = dict(line.lower().split(": ", 1) for line in lines[1:])
        status = int(lines[0].split()[1])
        media_type = given.get("content-type", "").partition(";")[0]
        if media_type != "text/event-stream":
            ((answer),) = responses(data)
            body = answer.body
        self.document.check(request, status, media_type, body)
        stream.finish()
        # Sooner or later it is over.
        self.parts.bad_logins.good(LOOPBACK.host)
        return status

    @settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None)
    @given(st.data())
    def test_as_it_says(self, data: st.DataObject) -> None:
        """Nothing is answered that is not told of, and what is right is not called wrong."""
        request = data.draw(self.document.requests())
        status = self.drive(request, dict(BEARER))
        self.assertNotIn(status, (400, 401, 403, 413, 415, 429), request)

    @settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None)
    @given(st.data())
    def test_wrong(self, data: st.DataObject) -> None:
        """What is not as it says is refused, as it says."""
        request = data.draw(self.document.requests())
        separator = "&" if "?" in request.target else "?"
        name = data.draw(st.text("abc", min_size=9))
        wrong = evolve(request, target=f"{request.target}{separator}{name}=1")
        self.assertEqual(self.drive(wrong, dict(BEARER)), 400)

    def test_each(self) -> None:
        """None is left out, and none does without its login."""
        for name, requests in self.document.one_of_each():
            self._each(name, requests)

    def _each(self, name: str, requests: st.SearchStrategy[Request]) -> None:
        statuses: dict[bool, set[int]] = {True: set(), False: set()}

        @settings(max_examples=5, deadline=None, database=None)
        @given(requests)
        def drive(request: Request) -> None:
            for login in True, False:
                statuses[login].add(self.drive(request, dict(BEARER) if login else {}))

        drive()
        changes = statuses[False] == {401}
        self.assertTrue(changes or statuses[False] == statuses[True], name)
        self.assertNotIn(500, statuses[True])
        self.assertEqual(changes, self.needs_login(name))

    def needs_login(self, name: str) -> bool:
        return any(
            each["operationId"] == name and "security" in each
            for _, _, each in self.document.operations
        )

"""Tests for :mod:`regproxy.management.schema`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from attrs import fields, frozen, has
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management import values
from regproxy.management.bounds import Between, Count
from regproxy.management.schema import Schemas, descriptions_of, summary_of
from regproxy.management.values import JobKind, Page


@frozen
class Leaf:
    """A leaf.

    Attributes:
        name: as in ``oak``; which
            goes on here.
        size: how large.
    """

    name: str
    size: Annotated[int, Between(1, 9)] | None = 3


@frozen
class Tree:
    """A tree, which has
    trees.

    More about it.

    Attributes:
        leaves: some.
        children: more of it.
        kind: which.
        seen_at: when.
        share: of something.
    """

    leaves: Annotated[tuple[Leaf, ...], Count(0, 2)]
    children: tuple[Tree, ...] = ()
    kind: JobKind = JobKind.GC
    seen_at: datetime | None = None
    share: float | None = None


class SchemaTests(SynchronousTestCase):
    maxDiff = None

    def test_sent(self) -> None:
        """What has a default may be left out; nothing else may be there."""
        schemas = Schemas("#/x/", sent=True)
        self.assertEqual(schemas.of(Tree), {"$ref": "#/x/Tree"})
        self.assertEqual(
            schemas.named,
            {
                "Tree": {
                    "description": "A tree, which has trees.",
                    "type": "object",
                    "properties": {
                        "leaves": {
                            "type": "array",
                            "items": {"$ref": "#/x/Leaf"},
                            "minItems": 0,
                            "maxItems": 2,
                            "description": "some.",
                        },
                        "children": {
                            "type": "array",
                            "items": {"$ref": "#/x/Tree"},
                            "description": "more of it.",
                            "default": [],
                        },
                        "kind": {
                            "$ref": "#/x/JobKind",
                            "description": "which.",
                            "default": "gc",
                        },
                        "seen_at": {
                            "type": ["string", "null"],
                            "format": "date-time",
                            "description": "when.",
                        },
                        "share": {"type": ["number", "null"], "description": "of something."},
                    },
                    "required": ["leaves"],
                    "additionalProperties": False,
                },
                "Leaf": {
                    "description": "A leaf.",
                    "type": "object",
                    "properties": {
                        "name": {
                            "type": "string",
                            "description": "as in `oak`; which goes on here.",
                        },
                        "size": {
                            "type": ["integer", "null"],
                            "minimum": 1,
                            "maximum": 9,
                            "description": "how large.",
                            "default": 3,
                        },
                    },
                    "required": ["name"],
                    "additionalProperties": False,
                },
                "JobKind": {
                    "description": "What a job does.",
                    "type": "string",
                    "enum": ["warm", "verify", "gc"],
                },
            },
        )

    def test_answered(self) -> None:
        """All of it is there, and a later version may have more."""
        schemas = Schemas("#/", sent=False)
        schemas.of(Leaf)
        self.assertEqual(schemas.named["Leaf"]["required"], ["name", "size"])
        self.assertNotIn("additionalProperties", schemas.named["Leaf"])
        self.assertNotIn("default", schemas.named["Leaf"]["properties"]["size"])

    def test_page(self) -> None:
        """A generic class has a name for each that it is of."""
        schemas = Schemas("#/", sent=False)
        self.assertEqual(schemas.of(Page[Leaf]), {"$ref": "#/PageOfLeaf"})
        self.assertEqual(schemas.of(Page[Tree]), {"$ref": "#/PageOfTree"})
        items = schemas.named["PageOfLeaf"]["properties"]["items"]
        self.assertEqual(items["items"], {"$ref": "#/Leaf"})

    def test_union(self) -> None:
        """Null and something with a name of its own."""
        schemas = Schemas("#/", sent=False)
        expected = {"anyOf": [{"$ref": "#/Leaf"}, {"type": "null"}]}
        self.assertEqual(schemas.of(Leaf | None), expected)

    def test_not_a_value(self) -> None:
        for kind in (object, bytes, list[str], set):
            with self.assertRaises(TypeError):
                Schemas("#/", sent=False).of(kind)

    def test_texts(self) -> None:
        self.assertEqual(summary_of(Tree), "A tree, which has trees.")
        self.assertEqual(descriptions_of(Leaf)["size"], "how large.")


class ValuesTests(SynchronousTestCase):
    """Whatever is shown."""

    def classes(self) -> list[type[Any]]:
        return [
            each
            for each in vars(values).values()
            if isinstance(each, type) and each.__module__ == values.__name__ and has(each)
        ]

    def test_each_has_a_schema(self) -> None:
        """And each attribute is told of."""
        schemas = Schemas("#/$defs/", sent=False)
        for cls in self.classes():
            schemas.of(cls[str] if cls is Page else cls)
        Draft202012Validator.check_schema({"$defs": schemas.named})
        self.assertGreater(len(schemas.named), 20)

    def test_nothing_is_told_of_that_is_not_there(self) -> None:
        for cls in self.classes():
            self.assertEqual([each.name for each in fields(cls)], list(descriptions_of(cls)))

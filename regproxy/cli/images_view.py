"""Lists and trees of images for people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from regproxy.cli.output import ago_text, facts, size_text, styled, table
from regproxy.cli.values import Image, ImageTree, Layer, Manifest


def images(found: Iterable[Image], now: datetime) -> Table:
    """A line for each image."""
    made = table("Image", "Digest", "Size", "State", "Last used", right=("Size",))
    for each in found:
        made.add_row(
            styled(each.reference),
            styled(_short(each.digest)),
            size_text(each.bytes),
            _state(each),
            ago_text(each.last_used, now),
        )
    return made


def _state(image: Image) -> Text:
    words = ["complete" if image.complete else "in parts", *(["pinned"] if image.pinned else [])]
    return Text(", ".join(words), style="" if image.complete else "yellow")


def image(tree: ImageTree, now: datetime) -> RenderableType:
    """All about one image."""
    value = tree.image
    return Group(
        facts(
            ("Image", styled(value.reference)),
            ("Digest", styled(value.digest)),
            ("Type", styled(value.media_type)),
            ("Stored", size_text(value.bytes)),
            ("State", _state(value)),
            ("Last used", ago_text(value.last_used, now)),
            ("Checked", ago_text(value.checked_at, now)),
            ("Came", ago_text(value.stored_at, now)),
            ("Brought by", styled(value.brought_by or "not known")),
        ),
        "",
        _manifest(tree.manifest),
    )


def _manifest(node: Manifest) -> Tree:
    kind = node.platform or ("index" if node.children else "manifest")
    tree = Tree(_label(kind, node.digest, node.bytes, node.stored))
    if node.config is not None:
        tree.add(_layer("config", node.config))
    for layer in node.layers:
        tree.add(_layer("layer", layer))
    for child in node.children:
        tree.add(_manifest(child))
    return tree


def _layer(kind: str, layer: Layer) -> Text:
    label = _label(kind, layer.digest, layer.bytes, layer.stored)
    if layer.shared_by > 1:
        label.append(f", in {layer.shared_by} manifests", style="dim")
    return label


def _label(kind: str, digest: str, size: int, stored: bool) -> Text:
    label = styled(f"{kind} {_short(digest)} {size_text(size)}", "" if stored else "dim")
    if not stored:
        label.append(", not stored")
    return label


def _short(digest: str) -> str:
    """Enough of *digest* to tell it from others, as docker shows it."""
    algorithm, _, rest = digest.partition(":")
    return f"{algorithm}:{rest[:12]}"

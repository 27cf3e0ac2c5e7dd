"""Images in a store of its own, as pulls leave them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing

from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.store.index import TagEntry, TagKey
from tests.support import images
from tests.support.caches import CacheCase
from tests.support.images import Content, Image, Index
from tests.support.workers import no_pause

HOST = Host("registry.example.test")
APP = Repository("some/app")
OTHER = Repository("some/other")
OCTETS = "application/octet-stream"
ACCEPT = "a/b"

# A small world, in which everything has something to do with everything.
BLOBS = [Content(OCTETS, b"layer %d" % number * (number + 1)) for number in range(3)]
BLOBS.insert(0, Content(OCTETS, b"config"))


def _image(*layers: int) -> Image:
    blobs = [BLOBS[0], *(BLOBS[number + 1] for number in layers)]
    return Image(images.manifest(images.OCI_MANIFEST, blobs), tuple(blobs))


IMAGES = [_image(0), _image(0, 1), _image(1, 2)]
INDICES = [images.index(*IMAGES[:2]), images.index(*IMAGES[1:])]
MANIFESTS = [*(each.manifest for each in IMAGES), *(each.manifest for each in INDICES)]
#: What each manifest names.
NAMED = {each.digest: list(each.blobs) for each in IMAGES} | {
    each.digest: [image.manifest for image in each.images] for each in INDICES
}
REPOSITORIES = [APP, OTHER]
TAGS = ["one", "two"]


class ImageCase(CacheCase):
    """What pulls bring, and what is worked out from it."""

    def setUp(self) -> None:
        """Have the store, and who keeps its catalog."""
        super().setUp()
        self.catalog = self.index.catalog
        self.curation = self.index.curation
        self.cataloguing = self.index.cataloguing(self.directory, self.workers)

    def catch_up(self) -> None:
        """All is worked out."""
        self.finish(self.cataloguing.run(no_pause))

    def keep(
        self, content: Content, repository: Repository = APP, media_type: str | None = None
    ) -> Digest:
        """Content of *repository* is stored."""
        digest = self.put(content.content)
        self.index.put_membership(HOST, repository, digest, media_type or content.media_type)
        return digest

    def keep_image(
        self, image: Image, repository: Repository = APP, blobs: Iterable[Content] | None = None
    ) -> Digest:
        """A manifest is stored, and its blobs, or some of them."""
        for blob in image.blobs if blobs is None else blobs:
            self.keep(blob, repository, OCTETS)
        return self.keep(image.manifest, repository)

    def tag(
        self,
        content: Content,
        tag: str,
        repository: Repository = APP,
        accept: str = ACCEPT,
        host: Host = HOST,
    ) -> None:
        """Upstream says that *tag* points to a manifest."""
        key = TagKey(host, repository, Tag(tag), accept)
        entry = TagEntry(Digest.parse(content.digest), content.media_type, self.time)
        self.successResultOf(self.index.put_tag(key, entry))

    def pull(self, what: Image | Index, tag: str = "latest", repository: Repository = APP) -> None:
        """All of an image is pulled by its tag."""
        for image in what.images if isinstance(what, Index) else ():
            self.keep_image(image, repository)
        if isinstance(what, Image):
            self.keep_image(what, repository)
        else:
            self.keep(what.manifest, repository)
        self.tag(what.manifest, tag, repository)

    def pretend(self, count: int) -> list[str]:
        """Have so many images in the index, and no files of them; their references, in order."""
        rows = []
        for number in range(count):
            repository = f"team-{number % 100:02}/app"
            rows.append((str(HOST), repository, f"1.{number:05}", str(Digest.of(b"%d" % number))))
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index, index:
            index.executemany(
                "INSERT INTO content (digest, size, stored_at, last_access) VALUES (?, ?, 1.0, ?)",
                ((row[3], number, float(number)) for number, row in enumerate(rows)),
            )
            index.executemany(
                "INSERT INTO tag VALUES (?1, ?2, ?3, '', ?4, 'a/b', 1.0, 1.0)",
                rows,
            )
            index.execute("DELETE FROM pending")
            index.execute(
                "UPDATE image SET (shown, bytes, last_used) = (SELECT 1, size, last_access"
                " FROM content WHERE content.digest = image.digest)"
            )
        return sorted(f"{host}/{repository}:{tag}" for host, repository, tag, _ in rows)

from __future__ import annotations

from twisted.internet.defer import ensureDeferred

from regproxy.management.adoption import Unadoptable, whole
from regproxy.oci.names import Digest
from regproxy.registry.ask import OCTETS
from tests.support import images as make
from tests.support.images import Content, Image, Index
from tests.support.stored_images import ImageCase


class WholeTests(ImageCase):
    def bring(self, *contents: Content) -> None:
        for content in contents:
            self.put(content.content)

    def whole(self, content: Content, media_type: str | None = None) -> dict[str, str]:
        root = Digest.parse(content.digest)
        work = whole(root, media_type or content.media_type, self.cataloguing, self.catalog)
        found = self.successResultOf(ensureDeferred(work))
        return {str(digest): kind for digest, kind in found.items()}

    def refused(self, content: Content, media_type: str | None = None) -> str:
        root = Digest.parse(content.digest)
        work = whole(root, media_type or content.media_type, self.cataloguing, self.catalog)
        return str(self.failureResultOf(ensureDeferred(work), Unadoptable).value)

    def types(self, image: Image) -> dict[str, str]:
        blobs = {blob.digest: OCTETS for blob in image.blobs}
        return {image.digest: image.manifest.media_type, **blobs}

    def test_image(self) -> None:
        for oci in True, False:
            image = make.image(2, 10, oci=oci)
            self.bring(image.manifest, *image.blobs)
            self.assertEqual(self.whole(image.manifest), self.types(image))

    def test_index(self) -> None:
        """With the platforms that are here."""
        one, other = make.image(1, 10), make.image(1, 10)
        index = make.index(one, other)
        self.bring(index.manifest)
        self.assertIn("none of the images", self.refused(index.manifest))
        self.bring(one.manifest, *one.blobs)
        expected = {index.digest: index.manifest.media_type, **self.types(one)}
        self.assertEqual(self.whole(index.manifest), expected)
        self.bring(other.manifest)
        self.assertIn("2 blobs are not stored here: sha256:", self.refused(index.manifest))
        self.bring(*other.blobs)
        self.assertEqual(self.whole(index.manifest), expected | self.types(other))

    def test_not_here(self) -> None:
        image = make.image(1, 10)
        self.assertEqual(self.refused(image.manifest), f"{image.digest} is not stored here")

    def test_no_manifest(self) -> None:
        content = Content(make.OCI_MANIFEST, b"something")
        self.bring(content)
        self.assertIn("not a manifest of an image: it is no JSON", self.refused(content))

    def test_another_media_type(self) -> None:
        image = make.image(1, 10)
        index = make.index(image)
        self.bring(index.manifest, image.manifest, *image.blobs)
        for content, media_type in (
            (image.manifest, make.OCI_INDEX),
            # It says itself that it is Docker's.
            (image.manifest, make.OCI_MANIFEST),
            (index.manifest, make.OCI_MANIFEST),
            (index.manifest, "text/html"),
        ):
            reason = self.refused(content, media_type)
            self.assertEqual(reason, f"{content.digest} is not of the media type {media_type}")

    def test_deep(self) -> None:
        """What is below the levels that anybody uses is not looked at, and not adopted."""
        image = make.image(1, 10)
        index = make.index(image)
        self.bring(image.manifest, *image.blobs, index.manifest)
        for _ in range(9):
            index = make.index(Image(index.manifest, ()))
            self.bring(index.manifest)
        self.assertIn("none of the images", self.refused(index.manifest))

    def test_empty_index(self) -> None:
        content = Index(Content(make.OCI_INDEX, b'{"manifests": []}'), ()).manifest
        self.bring(content)
        self.assertIn("none of the images", self.refused(content))

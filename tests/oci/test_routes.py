"""Tests of regproxy.oci.routes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.errors import (
    BlobDigestInvalid,
    NameInvalid,
    PathInvalid,
    RegistryError,
    TagInvalid,
)
from regproxy.oci.names import Digest, Reference, Repository, Tag
from regproxy.oci.routes import (
    BlobRoute,
    CatalogRoute,
    ManifestRoute,
    OtherRoute,
    Ping,
    ReferrersRoute,
    TagsRoute,
    UploadRoute,
    blob_target,
    manifest_target,
    parse_route,
)
from tests.oci.strategies import digests, references, repositories

DIGEST = Digest.of(b"x")
DEBIAN = Repository("library/debian")


class EndPointTests(SynchronousTestCase):
    """The end-points of the distribution specification."""

    def test_ping(self) -> None:
        """Both spellings of the base are the ping."""
        for target in (b"/v2", b"/v2/", b"/v2/?ns=docker.io"):
            self.assertEqual(parse_route(target), Ping(target=target))

    def test_manifest(self) -> None:
        """A tag and a digest both name a manifest; the query is kept."""
        target = b"/v2/library/debian/manifests/12-slim?ns=docker.io"
        self.assertEqual(parse_route(target), ManifestRoute(DEBIAN, Tag("12-slim"), target=target))
        target = manifest_target(DEBIAN, DIGEST)
        self.assertEqual(parse_route(target), ManifestRoute(DEBIAN, DIGEST, target=target))

    def test_blob(self) -> None:
        """A blob's digest may have an escaped colon; the target stays as it was."""
        for target in (
            blob_target(DEBIAN, DIGEST),
            f"/v2/library/debian/blobs/sha256%3A{DIGEST.hex}".encode(),
            f"/v2/library/debian/blobs/sha256%3a{DIGEST.hex}".encode(),
            f"/v2/library/%64ebian/blobs/{DIGEST}".encode(),
        ):
            self.assertEqual(parse_route(target), BlobRoute(DEBIAN, DIGEST, target=target))

    def test_lists(self) -> None:
        """Tags, referrers and the catalog."""
        target = b"/v2/library/debian/tags/list?n=5&last=a%2Fb"
        self.assertEqual(parse_route(target), TagsRoute(DEBIAN, target=target))
        target = f"/v2/library/debian/referrers/{DIGEST}?artifactType=a/b".encode()
        self.assertEqual(parse_route(target), ReferrersRoute(DEBIAN, DIGEST, target=target))
        target = b"/v2/_catalog?n=5"
        self.assertEqual(parse_route(target), CatalogRoute(target=target))

    def test_uploads(self) -> None:
        """The start of an upload and whatever the registry puts below it."""
        for target in (
            b"/v2/library/debian/blobs/uploads",
            b"/v2/library/debian/blobs/uploads/",
            b"/v2/library/debian/blobs/uploads/?mount=sha256:aa&from=x/y",
            b"/v2/library/debian/blobs/uploads/5f2b-11?_state=x%2Fy",
            b"/v2/library/debian/blobs/uploads/a/b/c",
        ):
            self.assertEqual(parse_route(target), UploadRoute(DEBIAN, target=target))

    def test_words_of_the_protocol_in_names(self) -> None:
        """Names are split from the right."""
        cases = {
            b"/v2/a/manifests/manifests/x": ManifestRoute(
                Repository("a/manifests"), Tag("x"), target=b"/v2/a/manifests/manifests/x"
            ),
            b"/v2/blobs/tags/list": TagsRoute(Repository("blobs"), target=b"/v2/blobs/tags/list"),
            b"/v2/a/blobs/uploads/tags/list": TagsRoute(
                Repository("a/blobs/uploads"), target=b"/v2/a/blobs/uploads/tags/list"
            ),
            b"/v2/a/blobs/uploads/blobs/uploads/x": UploadRoute(
                Repository("a/blobs/uploads"), target=b"/v2/a/blobs/uploads/blobs/uploads/x"
            ),
        }
        for target, route in cases.items():
            self.assertEqual(parse_route(target), route)

    def test_others(self) -> None:
        """Harmless paths that name no content pass."""
        for target in (
            b"/",
            b"/token?service=s&scope=repository:a/b:pull",
            b"/service/token",
            b"/v1/search",
            b"//odd",
            b"/v2x/",
            b"/v2/auth",
            b"/v2/manifests/latest",
            b"/v2/blobs/uploads/",
            b"/v2/_catalog/x",
            b"/v2/repositories/library/",
            b"/v2/a/manifests/",
        ):
            self.assertEqual(parse_route(target), OtherRoute(target=target))

    def test_digests_of_other_algorithms(self) -> None:
        """What cannot be verified is passed through, not refused."""
        for target in (
            b"/v2/a/blobs/blake3:" + b"a" * 64,
            b"/v2/a/manifests/sha256+b64:Zm9v",
            b"/v2/a/referrers/sha384:" + b"a" * 96,
        ):
            self.assertEqual(parse_route(target), OtherRoute(target=target))


class RefusalTests(SynchronousTestCase):
    """Targets that are refused."""

    def test_paths(self) -> None:
        """Whatever could be read in two ways is no path."""
        for target in (
            b"",
            b"*",
            b"v2/",
            b"http://ghcr.io/v2/",
            b"ghcr.io:443",
            b"/v2/#x",
            b"/v2/a?b#c",
            b"/v2/ a",
            b"/v2/\xc3\xa9/tags/list",
            b"/v2/%ff/tags/list",
            b"/v2/a\\b/tags/list",
            b"/v2/a%5cb/tags/list",
            b"/v2/a%00/tags/list",
            b"/v2/a%0d%0ab",
            b"/v2/a%7f",
            b"/v2/a%2",
            b"/v2/a%zz",
            b"/v2/a%2fb/tags/list",
            b"/token%2F",
            b"/./v2/",
            b"/..",
            b"/v2/a/../b/tags/list",
            b"/v2/a/%2e%2E/b/tags/list",
            b"/v2/a//b/tags/list",
            b"/v2//",
            b"/v2//a",
            b"/v2/_catalog/",
            b"/v2/a/tags/list/",
            b"/v2/a/manifests/latest/",
            b"/v2/a/blobs/uploads//",
            b"/v2/a?x\x00y",
            b"/v2/\n",
        ):
            self.assertRaises(PathInvalid, parse_route, target)

    def test_names(self) -> None:
        """A bad name is told by its own code."""
        for target in (
            b"/v2/Debian/manifests/x",
            b"/v2/a%20b/tags/list",
            b"/v2/a%25b/blobs/uploads/",
            b"/v2/a___b/tags/list",
            b"/v2/" + b"a" * 256 + b"/tags/list",
        ):
            self.assertRaises(NameInvalid, parse_route, target)

    def test_references(self) -> None:
        """So are a bad tag and a bad digest."""
        for target in (b"/v2/a/manifests/-x", b"/v2/a/manifests/" + b"x" * 129):
            self.assertRaises(TagInvalid, parse_route, target)
        for target in (
            b"/v2/a/manifests/sha256:aa",
            b"/v2/a/blobs/latest",
            b"/v2/a/blobs/sha512:" + b"a" * 64,
            b"/v2/a/referrers/SHA256:" + b"a" * 64,
            b"/v2/a/blobs/sha256:" + b"A" * 64,
        ):
            self.assertRaises(BlobDigestInvalid, parse_route, target)

    def test_message_has_no_query(self) -> None:
        """A signed query never reaches a message."""
        error = self.assertRaises(PathInvalid, parse_route, b"/v2/a/../b?token=secret")
        self.assertNotIn("secret", error.message)


class PropertyTests(SynchronousTestCase):
    """What holds for every input."""

    @given(repositories, references)
    def test_manifests(self, repository: Repository, reference: Reference) -> None:
        """Every manifest's target is read back."""
        target = manifest_target(repository, reference)
        self.assertEqual(parse_route(target), ManifestRoute(repository, reference, target=target))

    @given(repositories, digests, st.data())
    def test_blobs(self, repository: Repository, digest: Digest, data: st.DataObject) -> None:
        """So is every blob's, whichever of its characters are escaped."""
        plain = blob_target(repository, digest)
        escaped = data.draw(st.sets(st.integers(0, len(plain) - 1)))
        target = b"".join(
            b"%%%02x" % octet if index in escaped and octet != ord("/") else bytes([octet])
            for index, octet in enumerate(plain)
        )
        self.assertEqual(parse_route(target), BlobRoute(repository, digest, target=target))

    @given(
        st.binary()
        | st.lists(
            st.sampled_from(
                [
                    b"/",
                    b"v2",
                    b"%",
                    b"%2e",
                    b".",
                    b"blobs",
                    b"manifests",
                    b"uploads",
                    b"?",
                    b"a",
                    b"\xff",
                ]
            )
        ).map(b"".join)
    )
    def test_arbitrary(self, target: bytes) -> None:
        """Any bytes give a route with this very target, or an error for the client."""
        try:
            route = parse_route(target)
        except RegistryError as error:
            self.assertEqual(error.status, 400)
        else:
            self.assertEqual(route.target, target)

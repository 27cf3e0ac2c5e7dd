"""Tests of regproxy.oci.kinds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.kinds import RequestKind, kind_of
from regproxy.oci.names import Digest
from regproxy.oci.routes import parse_route

DIGEST = Digest.of(b"x")
SHA_384 = "sha384:" + "0" * 96


class KindTests(SynchronousTestCase):
    """kind_of"""

    def test_reads(self) -> None:
        """What GET and HEAD are for."""
        for target, kind in {
            "/v2/": RequestKind.PING,
            f"/v2/a/b/blobs/{DIGEST}": RequestKind.BLOB,
            f"/v2/a/b/manifests/{DIGEST}": RequestKind.MANIFEST,
            "/v2/a/b/manifests/latest": RequestKind.TAG,
            # Docker Hub, ghcr.io, gcr.io, quay.io, GitLab, and Amazon's, which has no parameters.
            "/token?scope=repository%3Aa%2Fb%3Apull&service=registry.docker.io": RequestKind.TOKEN,
            "/token?service=ghcr.io": RequestKind.TOKEN,
            "/v2/token?scope=repository:a/b:pull&service=gcr.io": RequestKind.TOKEN,
            "/v2/auth?service=quay.io": RequestKind.TOKEN,
            "/jwt/auth?client_id=docker&scope=repository:a/b:pull": RequestKind.TOKEN,
            "/token": RequestKind.TOKEN,
            "/tokens": RequestKind.OTHER,
            "/api?customer-service=1": RequestKind.OTHER,
            "/api?of=/token": RequestKind.OTHER,
            f"/v2/a/b/referrers/{DIGEST}": RequestKind.OTHER,
            "/v2/a/b/tags/list": RequestKind.OTHER,
            "/v2/_catalog": RequestKind.OTHER,
            f"/v2/a/b/blobs/{SHA_384}": RequestKind.OTHER,
            "/v2/a/b/blobs/uploads/7": RequestKind.PUSH,
        }.items():
            for method in b"GET", b"HEAD":
                self.assertIs(kind_of(method, parse_route(target.encode())), kind, target)

    def test_others(self) -> None:
        """What changes a repository is a push, where a token is asked for is not."""
        for method, target, kind in (
            (b"POST", "/v2/a/b/blobs/uploads/", RequestKind.PUSH),
            (b"PATCH", "/v2/a/b/blobs/uploads/7", RequestKind.PUSH),
            (b"PUT", "/v2/a/b/manifests/latest", RequestKind.PUSH),
            (b"DELETE", f"/v2/a/b/manifests/{DIGEST}", RequestKind.PUSH),
            (b"POST", "/oauth2/token", RequestKind.TOKEN),
            (b"POST", "/api", RequestKind.OTHER),
        ):
            self.assertIs(kind_of(method, parse_route(target.encode())), kind, target)

    @given(
        st.lists(st.from_regex(r"[a-z-]{1,9}=[a-z/:]{0,9}", fullmatch=True)),
        st.sampled_from(["service=a", "scope=repository:a/b:pull"]),
        st.integers(0, 9),
    )
    def test_parameters(self, others: list[str], telling: str, index: int) -> None:
        """One parameter tells, wherever it stands; others do not."""
        others = [each for each in others if not each.startswith(("service=", "scope="))]
        told = [*others[:index], telling, *others[index:]]
        for parameters, kind in ((others, RequestKind.OTHER), (told, RequestKind.TOKEN)):
            route = parse_route(f"/jwt/auth?{'&'.join(parameters)}".encode())
            self.assertIs(kind_of(b"GET", route), kind)

"""Tests for :mod:`regproxy.oci.mirror`."""

from __future__ import annotations

import re
from urllib.parse import quote

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.errors import BadRequest, HostInvalid, RegistryError
from regproxy.oci.mirror import (
    MirrorTarget,
    NotOfTheMirror,
    lead_back,
    links_lead_back,
    parse_mirror_target,
)
from regproxy.oci.names import Host, Reference, Repository
from regproxy.oci.routes import ManifestRoute, manifest_target, parse_route
from tests.oci.strategies import hosts, references, repositories

GHCR = Host("ghcr.io")
HUB = Host("docker.io")
PORT = Host("registry.example.com", 5000)
PORT_IN_QUERIES = ("registry.example.com:5000", "registry.example.com%3A5000")
PORT_IN_PATHS = (*PORT_IN_QUERIES, "registry.example.com_5000")

# Queries of clients: lists, and the uploads of docker-registry.
fields = st.tuples(
    st.sampled_from(["n", "last", "artifactType", "digest", "_state", "nsx", "Ns"]),
    st.text(st.characters(codec="ascii"), max_size=8),
).map(lambda field: f"{field[0]}={quote(field[1], safe='')}".encode())
queries = st.lists(fields, max_size=4)


def looks_like_a_host(repository: Repository) -> bool:
    first = repository.name.partition("/")[0]
    return "." in first or first == "localhost"


class ParseTests(SynchronousTestCase):
    """Which registry, and what it is asked."""

    def check(self, host: Host, asked: str, *targets: str) -> None:
        """Each of *targets* asks *host* for *asked*, all of them below ``/v2/``."""
        for target in targets:
            read = parse_mirror_target(b"/v2/" + target.encode())
            self.assertEqual((read.host, read.target), (host, b"/v2/" + asked.encode()), target)

    def test_ns(self) -> None:
        """containerd."""
        self.check(HUB, "library/alpine/manifests/3", "library/alpine/manifests/3?ns=docker.io")
        self.check(GHCR, "me/app/blobs/sha256:0", "me/app/blobs/sha256:0?ns=ghcr.io")
        self.check(PORT, "app/tags/list", *map("app/tags/list?ns={}".format, PORT_IN_QUERIES))
        self.check(Host("registry", 5000), "app/tags/list", "app/tags/list?ns=registry:5000")
        self.check(GHCR, "", "?ns=ghcr.io", "ghcr.io?ns=ghcr.io", "ghcr.io/?ns=ghcr.io")
        # The rest of a query stays as it is.
        self.check(GHCR, "x/tags/list?n=5&last=a%2Bb", "x/tags/list?n=5&ns=ghcr.io&last=a%2Bb")

    def test_both(self) -> None:
        """containerd with override_path: the path may name the registry again."""
        self.check(GHCR, "me/app/manifests/1", "ghcr.io/me/app/manifests/1?ns=ghcr.io")
        self.check(HUB, "me/app/manifests/1", "index.docker.io/me/app/manifests/1?ns=docker.io")
        self.check(
            PORT,
            "app/manifests/1",
            *(f"{path}/app/manifests/1?ns={PORT}" for path in PORT_IN_PATHS),
        )
        # Amazon's pull-through caches: their repositories are called like hosts.
        ecr = Host("1234.dkr.ecr.eu-west-1.amazonaws.com")
        self.check(ecr, "ghcr.io/me/app/manifests/1", f"ghcr.io/me/app/manifests/1?ns={ecr}")
        self.check(GHCR, "../app/manifests/1", "../app/manifests/1?ns=ghcr.io")

    def test_path(self) -> None:
        """podman, docker."""
        self.check(GHCR, "me/app/manifests/1", "ghcr.io/me/app/manifests/1")
        self.check(HUB, "library/alpine/manifests/3", "docker.io/library/alpine/manifests/3")
        self.check(GHCR, "me/app/tags/list?n=5", "ghcr.io/me/app/tags/list?n=5")
        self.check(PORT, "app/manifests/1", *(f"{path}/app/manifests/1" for path in PORT_IN_PATHS))
        for text, host in (
            ("localhost", Host("localhost")),
            ("localhost:5000", Host("localhost", 5000)),
            ("127.0.0.1_5000", Host("127.0.0.1", 5000)),
            ("[::1]:5000", Host("::1", 5000)),
        ):
            self.check(host, "app/manifests/1", f"{text}/app/manifests/1")
        self.check(GHCR, "", "ghcr.io/", "ghcr.io")
        self.check(GHCR, "_catalog?n=5", "ghcr.io/_catalog?n=5")

    def test_default(self) -> None:
        """dockerd."""
        for target in (
            b"/v2/library/alpine/manifests/3",
            b"/v2/app_5000/manifests/3",
            b"/v2/me/ghcr.io/manifests/3",
            b"/v2/registry/manifests/3?",
            b"/v2//x",
            b"/v2/",
            b"/v2",
        ):
            self.assertEqual(parse_mirror_target(target), MirrorTarget(None, None, target))

    def test_name(self) -> None:
        """What the client calls the registry is told as well."""
        for target, namespace in (
            (b"/v2/library/alpine/manifests/3?ns=docker.io", "docker.io"),
            (b"/v2/docker.io/library/alpine/manifests/3?ns=Docker.io", "Docker.io"),
            (b"/v2/docker.io/library/alpine/manifests/3", "docker.io"),
            (b"/v2/registry.example.com_5000/app/manifests/1", "registry.example.com_5000"),
            (b"/v2/app/manifests/1?ns=registry.example.com%3A5000", "registry.example.com:5000"),
        ):
            self.assertEqual(parse_mirror_target(target).namespace, namespace)

    def test_elsewhere(self) -> None:
        """Where some registries have uploads go on: only if the registry is named."""
        read = parse_mirror_target(b"/artifacts-uploads/7?ns=eu-docker.pkg.dev&state=x")
        self.assertEqual(read.target, b"/artifacts-uploads/7?state=x")
        for target in b"/", b"/artifacts-uploads/7", b"/v1/search", b"/v2x/", b"*", b"/%762/app":
            with self.assertRaises(NotOfTheMirror):
                parse_mirror_target(target)

    def test_no_host(self) -> None:
        for target in (
            b"/v2/app/manifests/1?ns=",
            b"/v2/app/manifests/1?ns",
            b"/v2/app/manifests/1?ns=https://ghcr.io",
            b"/v2/app/manifests/1?ns=ghcr.io/me",
            b"/v2/app/manifests/1?ns=ghcr.io%0d%0aX:%20y",
            b"/v2/app/manifests/1?ns=%C3%A9.example",
            b"/v2/../app/manifests/1",
            b"/v2/./app",
            b"/v2/%2e%2e/app",
            b"/v2/ghcr.io%2Fme/app/manifests/1",
            b"/v2/ghcr.io:0/app/manifests/1",
            b"/v2/..",
        ):
            with self.assertRaises(HostInvalid, msg=str(target)):
                parse_mirror_target(target)

    def test_twice(self) -> None:
        """Two proxies might take two of them: neither is taken."""
        for query in b"ns=ghcr.io&ns=ghcr.io", b"ns=ghcr.io&n%73=quay.io", b"ns&n=1&ns=quay.io":
            with self.assertRaises(BadRequest) as caught:
                parse_mirror_target(b"/v2/app/tags/list?" + query)
            self.assertNotIsInstance(caught.exception, HostInvalid)

    @given(hosts, repositories, references, queries, st.data())
    def test_namespace(
        self,
        host: Host,
        repository: Repository,
        reference: Reference,
        query: list[bytes],
        data: st.DataObject,
    ) -> None:
        """``ns`` goes, wherever it stands, and nothing else does."""
        assume(not looks_like_a_host(repository))
        path = manifest_target(repository, reference)
        namespace = (
            b"ns=" + data.draw(st.sampled_from([quote(str(host), safe=""), str(host)])).encode()
        )
        place = data.draw(st.integers(0, len(query)))
        sent = path + b"?" + b"&".join([*query[:place], namespace, *query[place:]])
        expected = path + (b"?" + b"&".join(query) if query else b"")
        self.assertEqual(parse_mirror_target(sent), MirrorTarget(str(host), host, expected))

    @given(hosts, repositories, references, queries)
    def test_prefix(
        self, host: Host, repository: Repository, reference: Reference, query: list[bytes]
    ) -> None:
        """What stands behind the host is what the registry is asked, to the byte."""
        text = str(host)
        assume(("." in text or ":" in text) and not re.fullmatch("[^:]*_[0-9]+", text))
        path = manifest_target(repository, reference)
        rest = path.removeprefix(b"/v2/") + (b"?" + b"&".join(query) if query else b"")
        read = parse_mirror_target(b"/v2/" + text.encode() + b"/" + rest)
        self.assertEqual((read.host, read.target), (host, b"/v2/" + rest))

    @given(repositories, references)
    def test_neither(self, repository: Repository, reference: Reference) -> None:
        """A repository that cannot be a host is of the default registry, untouched."""
        assume(not looks_like_a_host(repository))
        target = manifest_target(repository, reference)
        self.assertEqual(parse_mirror_target(target), MirrorTarget(None, None, target))

    @given(st.binary(max_size=30) | st.from_regex(rb"/v2/[!-~]*\?(&?ns=[!-~]*)*", fullmatch=True))
    def test_total(self, target: bytes) -> None:
        """Whatever comes is read or refused, and ``ns`` never goes on to the registry."""
        try:
            read = parse_mirror_target(target)
        except RegistryError:
            return
        self.assertEqual(read.host is None, read.namespace is None)
        if read.host is not None:
            # What is told back in a header field.
            assert read.namespace is not None
            self.assertTrue(read.namespace.isprintable() and read.namespace.isascii())
        query = read.target.partition(b"?")[2].split(b"&")
        self.assertNotIn(b"ns", [field.partition(b"=")[0] for field in query])


class LeadBackTests(SynchronousTestCase):
    """References in answers."""

    ORIGINS = (b"https://ghcr.io", b"https://10.0.0.7:5000", b"https://10.0.0.8/prefix")

    def test_examples(self) -> None:
        for reference, expected in (
            (b"/v2/app/blobs/uploads/7", b"/v2/app/blobs/uploads/7?ns=ghcr.io"),
            (b"/v2/x/blobs/uploads/7?_state=x%3D", b"/v2/x/blobs/uploads/7?_state=x%3D&ns=ghcr.io"),
            (b"https://ghcr.io/v2/x/blobs/uploads/7", b"/v2/x/blobs/uploads/7?ns=ghcr.io"),
            (b"https://10.0.0.7:5000/v2/x/tags/list?n=1", b"/v2/x/tags/list?n=1&ns=ghcr.io"),
            (b"https://10.0.0.8/prefix/v2/me/app", b"/v2/me/app?ns=ghcr.io"),
            (b"/artifacts-uploads/7", b"/artifacts-uploads/7?ns=ghcr.io"),
            (b"list?last=b", b"list?last=b&ns=ghcr.io"),
            (b"?last=b", b"?last=b&ns=ghcr.io"),
            (b"/v2/x#part", b"/v2/x?ns=ghcr.io#part"),
        ):
            self.assertEqual(lead_back(reference, self.ORIGINS, GHCR), expected)

    def test_elsewhere(self) -> None:
        """Storage, and whoever would like to be taken for the registry."""
        for reference in (
            b"https://storage.example/upload?sig=1",
            b"https://ghcr.io.evil.example/v2/",
            b"https://ghcr.io:8443/v2/",
            b"http://ghcr.io/v2/",
            b"//storage.example/upload",
            b"https://ghcr.io//storage.example/upload",
        ):
            self.assertEqual(lead_back(reference, self.ORIGINS, GHCR), reference)

    def test_port(self) -> None:
        self.assertEqual(lead_back(b"/v2/app", (), PORT), b"/v2/app?ns=registry.example.com%3A5000")

    def test_links(self) -> None:
        """The targets, and not the parameters."""
        for value, expected in (
            (
                b'</v2/me/app/tags/list?n=2&last=b>; rel="next"',
                b'</v2/me/app/tags/list?n=2&last=b&ns=ghcr.io>; rel="next"',
            ),
            (
                b'<https://ghcr.io/a>; rel="next", <https://example.org/b>; rel=help',
                b'</a?ns=ghcr.io>; rel="next", <https://example.org/b>; rel=help',
            ),
            (b"garbage", b"garbage"),
        ):
            self.assertEqual(links_lead_back(value, iter(self.ORIGINS), GHCR), expected)

    @given(hosts, repositories, references, queries)
    def test_round_trip(
        self, host: Host, repository: Repository, reference: Reference, query: list[bytes]
    ) -> None:
        """What leads back is read as what the registry meant."""
        target = manifest_target(repository, reference) + (
            b"?" + b"&".join(query) if query else b""
        )
        first = repository.name.partition("/")[0]
        assume(first != str(host))
        for origin in b"", b"https://registry.test":
            led = lead_back(origin + target, (b"https://registry.test",), host)
            read = parse_mirror_target(led)
            self.assertEqual((read.host, read.target), (host, target))
            route = parse_route(read.target)
            assert isinstance(route, ManifestRoute)
            self.assertEqual(route.repository, repository)

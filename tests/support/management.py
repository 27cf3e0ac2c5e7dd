"""Parts of the management side that have what a test gives them, and those of a busy proxy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import exp, sin
from typing import Any, Final

from attrs import define, evolve, field

from regproxy.management.images import UnknownImage
from regproxy.management.pages.sources import Sources
from regproxy.management.paging import page_of
from regproxy.management.values import (
    CAValue,
    FillState,
    FillValue,
    ImageTree,
    ImageValue,
    Job,
    JobImage,
    JobKind,
    JobState,
    LayerNode,
    ManifestNode,
    Page,
    RateLimitValue,
    RegistryValue,
    RepositoryValue,
    RequestValue,
    RootValue,
    Sample,
    Stats,
    StoreValue,
    Unit,
)
from regproxy.oci.kinds import RequestKind

MIB: Final = 1 << 20
GIB: Final = 1 << 30
#: When it is, unless a test says otherwise.
NOW: Final = datetime(2026, 3, 9, 17, 4, 11, tzinfo=UTC)
HUB: Final = "registry-1.docker.io"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"

CA: Final = CAValue(
    subject="CN=regproxy CA,O=regproxy",
    fingerprint=":".join(f"{each:02X}" for each in sha256(b"ca").digest()),
    not_after=datetime(2036, 3, 9, tzinfo=UTC),
)
NEXT_CA: Final = RootValue(
    subject="CN=regproxy CA 2,O=regproxy",
    fingerprint=":".join(f"{each:02X}" for each in sha256(b"next").digest()),
    not_after=datetime(2036, 6, 1, tzinfo=UTC),
)


def digest(text: str) -> str:
    """A digest that belongs to *text*."""
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def image(
    name: str,
    *,
    bytes: int = 60 * MIB,
    used: float = 60,
    complete: bool = True,
    pinned: bool = False,
    brought_by: str | None = "10.0.4.17",
) -> ImageValue:
    """The image that *name* (``HOST/REPOSITORY:TAG``) is written as, used *used* seconds ago."""
    path, _, tag = name.rpartition(":")
    registry, _, repository = path.partition("/")
    return ImageValue(
        reference=name,
        registry=registry,
        repository=repository,
        tag=tag,
        digest=digest(name),
        media_type=OCI_INDEX,
        bytes=bytes,
        complete=complete,
        pinned=pinned,
        last_used=NOW - timedelta(seconds=used),
        checked_at=NOW - timedelta(seconds=used + 20),
        stored_at=NOW - timedelta(days=12),
        brought_by=brought_by,
    )


def layer(text: str, size: int, *, stored: bool = True, shared_by: int = 1) -> LayerNode:
    """A layer."""
    return LayerNode(digest(text), OCI_LAYER, size, stored, shared_by)


def manifest(
    text: str, platform: str | None, layers: Sequence[LayerNode], *, stored: bool = True
) -> ManifestNode:
    """The manifest of one platform."""
    config = LayerNode(digest(f"{text} config"), OCI_CONFIG, 7023, stored, 1)
    return ManifestNode(
        digest(text), OCI_MANIFEST, 1811, stored, platform, config, tuple(layers), ()
    )


def index(text: str, *children: ManifestNode) -> ManifestNode:
    """An index of manifests."""
    return ManifestNode(digest(text), OCI_INDEX, 9412, True, None, None, (), children)


def request(id: int, **changes: Any) -> RequestValue:
    """A request that was a hit, but for the *changes*."""
    plain = RequestValue(
        id=id,
        time=NOW - timedelta(seconds=2),
        client="10.0.4.17",
        way="connect",
        method="GET",
        kind=RequestKind.TAG,
        registry=HUB,
        repository="library/alpine",
        reference="3.20",
        status=200,
        bytes=9412,
        duration=0.004,
        cache="hit",
        reason=None,
    )
    return evolve(plain, **changes)


EMPTY_STORE: Final = StoreValue(0, 0, 32 * GIB, 80 * GIB, 0, 0, 0, 0)
#: Of a process that has just begun.
NO_STATS: Final = Stats(
    version="1.2.3",
    started_at=NOW,
    requests=0,
    hits=0,
    hit_ratio=None,
    bytes_to_clients=0,
    bytes_from_upstream=0,
    bytes_saved=0,
    store=EMPTY_STORE,
    rate_limits=(),
    fills=0,
    connections=0,
    loop_delay_p99=None,
    ca=CA,
)


@define
class FakeOverview:
    """Says what it is told to."""

    value: Stats = NO_STATS
    known: Sequence[RegistryValue] = ()

    async def stats(self) -> Stats:
        return self.value

    def registries(self) -> Sequence[RegistryValue]:
        return self.known


@define
class FakeFills:
    """Says what it is told to."""

    given: Sequence[FillValue] = ()

    def values(self) -> Sequence[FillValue]:
        return self.given


@define
class FakeEvents:
    """Says what it is told to."""

    requests: Sequence[RequestValue] = ()

    def latest(self) -> Sequence[RequestValue]:
        return self.requests


@define
class FakeHistory:
    """Says what it is told to."""

    given: Sequence[Sample] = ()

    def samples(self) -> Sequence[Sample]:
        return self.given


@define
class FakeJobs:
    """Says what it is told to."""

    given: list[Job] = field(factory=list)

    def all(self) -> Iterable[Job]:
        return self.given


@define
class FakeImages:
    """Keeps images in a dict."""

    given: dict[str, ImageValue] = field(factory=dict)
    trees: dict[str, ManifestNode] = field(factory=dict)
    jobs: FakeJobs = field(factory=FakeJobs)

    @classmethod
    def of(cls, *images: ImageValue) -> FakeImages:
        """Those *images*."""
        return cls({each.reference: each for each in images})

    async def images(
        self,
        *,
        registry: str | None,
        repository: str | None,
        q: str | None,
        sort: str,
        limit: int,
        cursor: str | None,
    ) -> Page[ImageValue]:
        found = [
            each
            for each in self.given.values()
            if registry in (None, each.registry)
            and repository in (None, each.repository)
            and (q is None or q in each.reference)
        ]
        orders = {
            "reference": lambda each: (each.reference,),
            "bytes": lambda each: (-each.bytes, each.reference),
            "last_used": lambda each: (-each.last_used.timestamp(), each.reference),
        }
        return page_of(found, orders[sort], limit, cursor)

    async def repositories(
        self, *, registry: str | None, q: str | None, limit: int, cursor: str | None
    ) -> Page[RepositoryValue]:
        found: dict[tuple[str, str], RepositoryValue] = {}
        for each in self.given.values():
            key = each.registry, each.repository
            if registry not in (None, each.registry) or (q or "") not in each.repository:
                continue
            old = found.get(key, RepositoryValue(*key, 0, 0, each.last_used))
            found[key] = RepositoryValue(
                *key,
                old.tags + 1,
                old.bytes + each.bytes,
                max(old.last_used, each.last_used),
            )
        return page_of(found.values(), lambda each: (each.registry, each.repository), limit, cursor)

    async def tree(self, reference: str) -> ImageTree:
        image = self._image(reference)
        return ImageTree(image, self.trees.get(reference, index(reference)))

    async def purge(self, reference: str) -> None:
        self._image(reference)
        del self.given[reference]

    async def purge_many(self, *, registry: str, repository: str) -> None:
        for reference, each in list(self.given.items()):
            if (each.registry, each.repository) == (registry, repository) and not each.pinned:
                del self.given[reference]

    async def pin(self, reference: str, pinned: bool) -> None:
        self.given[reference] = evolve(self._image(reference), pinned=pinned)

    def warm(self, images: Sequence[str], platforms: Sequence[str] | None) -> Job:
        total = sum(self.given[each].bytes for each in images if each in self.given)
        job = warming(f"warm-{len(self.jobs.given)}", *images, done=0, total=total)
        self.jobs.given.insert(0, job)
        return job

    def _image(self, reference: str) -> ImageValue:
        try:
            return self.given[reference]
        except KeyError:
            raise UnknownImage(reference) from None


def warming(id: str, *references: str, done: int, total: int) -> Job:
    """A job that pulls images, *done* bytes of *total*."""
    images = tuple(JobImage(each, JobState.RUNNING) for each in references)
    return Job(
        id=id,
        kind=JobKind.WARM,
        state=JobState.RUNNING,
        started_at=NOW - timedelta(seconds=9),
        ended_at=None,
        done=done,
        total=total,
        unit=Unit.BYTES,
        message=f"fetching {len(images)} image{'s' if len(images) > 1 else ''}",
        images=images,
    )


@define
class FakeAuthority:
    """One certificate, and what its PEM and DER forms are said to be."""

    value: CAValue = CA

    def state(self) -> CAValue:
        return self.value

    def pem(self) -> bytes:
        return b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

    def der(self) -> bytes:
        return b"\x30\x03\x02\x01\x00"


@define
class FakeSources:
    """All parts, each with what a test gives it."""

    overview: FakeOverview = field(factory=FakeOverview)
    fills: FakeFills = field(factory=FakeFills)
    events: FakeEvents = field(factory=FakeEvents)
    history: FakeHistory = field(factory=FakeHistory)
    images: FakeImages = field(factory=FakeImages)
    jobs: FakeJobs = field(factory=FakeJobs)
    authority: FakeAuthority = field(factory=FakeAuthority)

    def sources(self) -> Sources:
        """As the pages take them."""
        return Sources(
            overview=self.overview,
            fills=self.fills,
            events=self.events,
            history=self.history,
            images=self.images,
            jobs=self.jobs,
            authority=self.authority,
        )


def busy() -> FakeSources:
    """A proxy of some size after some weeks, with a bit of everything."""
    jobs = FakeJobs(
        [warming("warm-1", "ghcr.io/acme/shop:2.14.0", done=212 * MIB, total=340 * MIB)]
    )
    jobs.given.append(
        Job(
            id="verify-1",
            kind=JobKind.VERIFY,
            state=JobState.DONE,
            started_at=NOW - timedelta(hours=9),
            ended_at=NOW - timedelta(hours=8),
            done=4118,
            total=4118,
            unit=Unit.ITEMS,
            message="all 4,118 blobs are right",
        )
    )
    images = FakeImages.of(*_IMAGES)
    images.jobs = jobs
    images.trees["ghcr.io/acme/shop:2.14.0"] = _SHOP
    return FakeSources(
        FakeOverview(_STATS, _REGISTRIES),
        FakeFills(_FILLS),
        FakeEvents(_requests()),
        FakeHistory(_samples()),
        images,
        jobs,
    )


def _samples() -> list[Sample]:
    """An hour with a deployment in it, each step ten seconds."""
    samples = []
    for step in range(360):
        wave = 14 + 9 * sin(step / 37) + 5 * sin(step / 9) + 3 * sin(step * 2.3)
        rush = 150 * exp(-(((step - 238) / 21) ** 2)) + 60 * exp(-(((step - 96) / 13) ** 2))
        fetched = 2 + 1.5 * sin(step / 17) + 34 * exp(-(((step - 226) / 9) ** 2))
        samples.append(
            Sample(
                time=NOW - timedelta(seconds=3600 - step * 10),
                seconds=10.0,
                bytes_to_clients=int((wave + rush) * 10 * MIB),
                bytes_from_upstream=int(max(fetched, 0.2) * 10 * MIB),
                requests=int(wave * 4 + rush),
                hits=int(wave * 3.8 + rush * 0.93),
            )
        )
    return samples


_IMAGES: Final = (
    image("ghcr.io/acme/shop:2.14.0", bytes=412 * MIB, used=11, pinned=True),
    image("registry-1.docker.io/library/alpine:3.20", bytes=9 * MIB, used=2),
    image("registry-1.docker.io/library/postgres:17.4", bytes=158 * MIB, used=95),
    image("registry-1.docker.io/library/python:3.13-slim", bytes=71 * MIB, used=340),
    image("ghcr.io/acme/billing:1.9.3", bytes=233 * MIB, used=1300, brought_by="10.0.4.22"),
    image("registry.k8s.io/kube-proxy:v1.35.2", bytes=37 * MIB, used=5200, brought_by="10.0.7.3"),
    image("registry.k8s.io/coredns/coredns:v1.12.0", bytes=22 * MIB, used=5200),
    image("quay.io/prometheus/prometheus:v3.2.1", bytes=119 * MIB, used=23000, complete=False),
    image("mcr.microsoft.com/dotnet/aspnet:10.0", bytes=96 * MIB, used=91000, brought_by=None),
    image("nvcr.io/nvidia/pytorch:26.02-py3", bytes=9800 * MIB, used=260000, pinned=True),
)
_SHOP: Final = index(
    "ghcr.io/acme/shop:2.14.0",
    manifest(
        "shop amd64",
        "linux/amd64",
        [
            layer("debian", 28 * MIB, shared_by=7),
            layer("python", 46 * MIB, shared_by=3),
            layer("wheels", 291 * MIB, shared_by=2),
            layer("shop", 47 * MIB),
            layer("settings", 9123),
        ],
    ),
    manifest("shop arm64", "linux/arm64/v8", [], stored=False),
    manifest("shop attestation", "unknown/unknown", [], stored=False),
)
_STATS: Final = Stats(
    version="1.2.3",
    started_at=NOW - timedelta(days=19, hours=4),
    requests=1_284_117,
    hits=1_209_638,
    hit_ratio=0.942,
    bytes_to_clients=int(11.4 * 1024 * GIB),
    bytes_from_upstream=int(1.31 * 1024 * GIB),
    bytes_saved=int(10.1 * 1024 * GIB),
    store=StoreValue(
        bytes=int(371.5 * GIB),
        blobs=41_186,
        limit=512 * GIB,
        free=int(204.2 * GIB),
        evicted=6_020,
        evicted_bytes=int(98.3 * GIB),
        quarantined=0,
        disk_full=0,
    ),
    rate_limits=(RateLimitValue(HUB, "own", 200, 163, 21600, NOW - timedelta(seconds=48)),),
    fills=2,
    connections=64,
    loop_delay_p99=0.003,
    ca=CA,
)


def registry(name: str, requests: int, ratio: float, **changes: Any) -> RegistryValue:
    plain = RegistryValue(
        name=name,
        upstream=(f"https://{name}",),
        auth="forward",
        access="verify",
        push="forward",
        requests=requests,
        hits=int(requests * ratio),
        bytes_to_clients=requests * 9 * MIB,
        bytes_from_upstream=int(requests * (1 - ratio) * 9 * MIB),
        errors=0,
        last_error=None,
        last_error_at=None,
        backoff_seconds=0.0,
        latency_p50=0.061,
    )
    return evolve(plain, **changes)


_REGISTRIES: Final = (
    registry(HUB, 803_211, 0.971, latency_p50=0.112),
    registry("ghcr.io", 312_904, 0.944, latency_p50=0.087),
    registry("registry.k8s.io", 101_223, 0.982),
    registry(
        "quay.io",
        51_040,
        0.861,
        errors=14,
        last_error="502 Bad Gateway",
        last_error_at=NOW - timedelta(minutes=3),
        latency_p50=1.32,
    ),
    registry(
        "public.ecr.aws",
        9_201,
        0.733,
        errors=3,
        last_error="429: toomanyrequests",
        last_error_at=NOW - timedelta(seconds=21),
        backoff_seconds=39.0,
    ),
    registry("nvcr.io", 6_538, 0.801, latency_p50=2.7),
    registry("lscr.io", 0, 0.0, latency_p50=None),
    registry("*-docker.pkg.dev", 0, 0.0, latency_p50=None),
)


def fill(text: str, repository: str, stored: int, size: int | None, rate: float) -> FillValue:
    """A transfer from ghcr.io that runs."""
    return FillValue(
        digest=digest(text),
        registry="ghcr.io",
        repository=repository,
        kind="blob",
        state=FillState.RUNNING,
        size=size,
        stored=stored,
        readers=12,
        started_at=NOW - timedelta(seconds=8),
        bytes_per_second=rate,
    )


_FILLS: Final = (
    fill("wheels", "acme/shop", 212 * MIB, 291 * MIB, 34.2 * MIB),
    fill("shop", "acme/shop", 3 * MIB, None, 2.1 * MIB),
)


def _requests() -> list[RequestValue]:
    """A thousand, the latest first."""
    names = [(each.registry, each.repository, each.tag) for each in _IMAGES]
    found = []
    for number in range(1000, 0, -1):
        registry, repository, tag = names[(number * number) % 7]
        plain = request(
            1_773_075_851_000_000 + number,
            time=NOW - timedelta(seconds=(1000 - number) * 1.7),
            client=f"10.0.4.{number % 40 + 10}",
            registry=registry,
            repository=repository,
            reference=tag,
        )
        match number % 9:
            case 1 | 2 | 3:
                layer_of = digest(f"{repository}{number % 5}")
                plain = evolve(
                    plain,
                    kind=RequestKind.BLOB,
                    reference=layer_of,
                    bytes=number * 71_117,
                    duration=0.21,
                )
            case 4:
                plain = evolve(plain, cache="miss", reason="stored", duration=1.31)
            case 5:
                plain = evolve(plain, cache="collapsed", kind=RequestKind.BLOB, bytes=48 * MIB)
        match number:
            case 993:
                plain = evolve(
                    plain,
                    registry="quay.io",
                    repository="prometheus/prometheus",
                    reference="v3.2.1",
                    status=502,
                    cache="none",
                    bytes=141,
                    reason="quay.io answered 502 Bad Gateway",
                )
            case 987:
                plain = evolve(
                    plain,
                    registry="public.ecr.aws",
                    repository="nginx/nginx",
                    reference="1.27",
                    status=429,
                    cache="none",
                    bytes=133,
                    reason="public.ecr.aws asks to be left alone for 60 s",
                )
            case 981:
                plain = evolve(
                    plain,
                    method="CONNECT",
                    kind=RequestKind.TUNNEL,
                    registry="169.254.169.254",
                    repository=None,
                    reference=None,
                    status=403,
                    cache="none",
                    bytes=0,
                    reason="169.254.169.254 is a link-local address",
                )
        found.append(plain)
    return found

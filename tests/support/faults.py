"""What the tests of faults play on: an upstream that misbehaves, and proxies before it."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Final, TypeVar

from attrs import asdict, evolve, frozen
from cattrs import structure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import proc
from tests.support.certificates import make_ca, make_leaf
from tests.support.images import OCI_MANIFEST
from tests.support.process import Process, environment, free_port, listens
from tests.support.proxy import ADDRESS, Proxy, Value
from tests.support.raw_client import Outcome, RawClient, Response
from tests.support.turns import Entry, Script, Turn, key

ROOT: Final = Path(__file__).resolve().parents[2]
KiB: Final = 1 << 10
MiB: Final = 1 << 20

#: Seconds that a proxy of these tests waits for an upstream's next bytes.
IDLE: Final = 1.0
#: Seconds that it waits for the head of an answer.
HEAD: Final = 1.5
#: ``[limits]`` of a proxy that has more to do than to watch its upstream.
PATIENT: Final[Mapping[str, Value]] = {"upstream_head": "30s", "upstream_idle": "30s"}
#: How many registries a proxy knows; each test takes one that no other test has.
HOSTS: Final = 120
#: Reached with TLS.
SECURE_HOST: Final = "secure.example.test"
# Seconds for what happens soon, on a busy machine.
_SOON: Final = 10.0

T = TypeVar("T")


class FaultyUpstream:
    """The upstream's process and its scripts."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.port, self._control, self._secure = free_port(), free_port(), free_port()
        authority = make_ca()
        leaf = make_leaf(authority, ips=[ADDRESS])
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(authority.certificate_pem)
        pem = directory / "server.pem"
        pem.write_bytes(leaf.certificate_pem + leaf.key_pem)
        ports = (str(self.port), str(self._control), str(self._secure))
        self.process = Process(
            "upstream",
            [
                *(sys.executable, "-m", "tests.support.faulty_upstream", str(directory)),
                *(*ports, str(pem)),
            ],
            log=directory / "upstream.log",
            env=environment(PYTHONPATH=ROOT),
        )
        self.process.wait_until(lambda: all(listens(int(port)) for port in ports))

    def registries(self) -> dict[str, dict[str, Value]]:
        """The ``[registries]`` of a proxy before it: each is a path of the one server."""
        tables: dict[str, dict[str, Value]] = {}
        for number in range(HOSTS):
            tables[f'registries."{host_name(number)}"'] = {
                "upstream": [f"http://{ADDRESS}:{self.port}/{host_name(number)}"],
                "plain_http": True,
                "relay_private": True,
            }
        tables[f'registries."{SECURE_HOST}"'] = {
            "upstream": [f"https://{ADDRESS}:{self._secure}/{SECURE_HOST}"],
            "ca_file": str(self.ca_file),
            "relay_private": True,
        }
        return tables

    def put(self, content: bytes) -> str:
        """Have *content* to serve; the name for :class:`Turn`."""
        name = hashlib.sha256(content).hexdigest()
        (self._directory / name).write_bytes(content)
        return name

    def script(self, host: str, path: str, script: Script, method: str = "GET") -> None:
        """Answer requests for *path* of the registry *host* so."""
        self._call("PUT", "/scripts", {key(method, f"/{host}{path}"): asdict(script)})

    def log(self, host: str, path: str | None = None) -> list[Entry]:
        """What the registry *host* was asked for, all of it or *path* only."""
        entries = structure(self._call("GET", "/log", None), list[Entry])
        wanted = f"/{host}/" if path is None else f"/{host}{path}"
        return [
            entry
            for entry in entries
            if entry.target == wanted or (path is None and entry.target.startswith(wanted))
        ]

    def _call(self, method: str, path: str, value: object) -> object:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = f"http://{ADDRESS}:{self._control}{path}"
        data = None if value is None else json.dumps(value).encode()
        with opener.open(urllib.request.Request(url, data, method=method), timeout=30) as response:
            return json.load(response)


class FaultProxy(Proxy):
    """A proxy before the upstream, impatient with it."""

    def __init__(
        self, directory: Path, upstream: FaultyUpstream, tables: Mapping[str, Mapping[str, Value]]
    ) -> None:
        limits: dict[str, Value] = {
            "upstream_head": f"{HEAD}s",
            "upstream_idle": f"{IDLE}s",
            "upstream_rate": "16KiB",
        }
        super().__init__(directory, upstream.registries() | {"limits": limits} | dict(tables))

    @property
    def client(self) -> RawClient:
        """A client of it."""
        return RawClient(int(self.url.rpartition(":")[2]), self.ca_file)

    @property
    def cache(self) -> Path:
        """The cache directory."""
        return self.data / "cache"

    def stored(self, digest: str) -> Path:
        """Where the content *digest* is if it is stored."""
        algorithm, _, value = digest.partition(":")
        return self.cache / "blobs" / algorithm / value[:2] / value

    def partial_files(self, digest: str = "") -> list[str]:
        """What is below ``fills/``, of all content or of *digest*."""
        name = digest.rpartition(":")[2]
        return sorted(path.name for path in (self.cache / "fills").iterdir() if name in path.name)

    def reset_peak(self) -> None:
        """Forget the peak of the resident set: proc(5), ``clear_refs``."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self) -> float:
        """Seconds of processor time that it has taken."""
        return proc.cpu(self.process.pid)

    def peak(self) -> int:
        """The peak of the resident set in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * KiB


class FaultStage:
    """The upstream and a proxy, for all tests of a run."""

    def __init__(self, directory: Path) -> None:
        self.upstream = FaultyUpstream(directory / "upstream")
        self._proxies: list[FaultProxy] = []
        self._numbers = count()
        try:
            self.proxy = self.start_proxy(FaultProxy, directory / "proxy", {})
        except BaseException:
            self.close()
            raise

    def start_proxy(
        self, kind: type[FaultProxy], directory: Path, tables: Mapping[str, Mapping[str, Value]]
    ) -> FaultProxy:
        """A new proxy of this *kind*."""
        directory.mkdir(parents=True)
        proxy = kind(directory, self.upstream, tables)
        self._proxies.append(proxy)
        return proxy

    def new_host(self) -> str:
        """A registry that nobody else has."""
        return host_name(next(self._numbers))

    def close(self) -> None:
        """Stop all processes."""
        for proxy in self._proxies:
            proxy.process.stop()
        self.upstream.process.stop()


@lru_cache
def stage() -> FaultStage:
    """The stage of this run."""
    made = FaultStage(Path(tempfile.mkdtemp(prefix="faults-", dir=os.getcwd())))
    atexit.register(made.close)
    return made


@frozen
class Blob:
    """Content at a registry."""

    host: str
    path: str
    content: bytes

    @property
    def digest(self) -> str:
        """``sha256:HEX``."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


class FaultTestCase(SynchronousTestCase):
    """A test on the stage. When it fails, the logs of its time are shown."""

    def setUp(self) -> None:
        """Get the stage, and note how far its logs are."""
        self.stage = stage()
        self.upstream = self.stage.upstream
        self.proxy = self.stage.proxy
        self.client = self.proxy.client
        self.host = self.stage.new_host()
        self._watched: dict[Process, int] = {}
        self.watch(self.upstream.process)
        self.watch(self.proxy.process)
        name = self._testMethodName
        setattr(self, name, self._with_logs(getattr(self, name)))

    def watch(self, process: Process) -> None:
        """Show the log of *process* from here on if the test fails."""
        self._watched[process] = process.log.stat().st_size

    def _with_logs(self, test: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                test()
                for process, start in self._watched.items():
                    self.assertNotIn("Traceback", process.read_log(start), process.name)
            except BaseException:
                print(f"\n=== logs of {self.id()}", file=sys.stderr)
                for process, start in self._watched.items():
                    print(process.tail(start), file=sys.stderr)
                raise

        return run

    def new_proxy(
        self, kind: type[FaultProxy] = FaultProxy, **tables: Mapping[str, Value]
    ) -> FaultProxy:
        """A proxy of this test's own, which takes the place of the common one."""
        directory = Path(self.mktemp()).resolve()
        proxy = self.proxy = self.stage.start_proxy(kind, directory, tables)
        # The process of that time, which may be another one.
        self.addCleanup(lambda: proxy.process.stop())
        self.watch(proxy.process)
        self.client = proxy.client
        return proxy

    # The upstream.

    def blob(
        self,
        size: int,
        *turns: Turn,
        host: str = "",
        accepted: tuple[str, ...] | None = None,
        refusal: int = 401,
    ) -> Blob:
        """A new blob of *size* random bytes, served in these *turns*; by default rightly."""
        content = os.urandom(size)
        name = self.upstream.put(content)
        host = host or self.host
        blob = Blob(host, f"/v2/app/blobs/sha256:{name}", content)
        script = Script(
            tuple(evolve(turn, content=turn.content or name) for turn in turns or (Turn(),)),
            accepted,
            refusal,
        )
        self.upstream.script(host, blob.path, script)
        return blob

    def tag(self, text: str, *, host: str = "", accepted: tuple[str, ...] | None = None) -> Blob:
        """A manifest that says *text*, as the tag ``app:latest``."""
        host = host or self.host
        tag = Blob(host, "/v2/app/manifests/latest", manifest(text))
        turn = Turn(
            content=self.upstream.put(tag.content),
            headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": tag.digest},
        )
        for path in (tag.path, f"/v2/app/manifests/{tag.digest}"):
            for method in ("GET", "HEAD"):
                self.upstream.script(host, path, Script((turn,), accepted), method)
        return tag

    def requests(self, blob: Blob, method: str = "GET") -> list[Entry]:
        """The requests of this *method* for *blob*."""
        entries = self.upstream.log(blob.host, blob.path)
        return [entry for entry in entries if entry.method == method]

    # The clients.

    def get(self, blob: Blob, headers: Mapping[str, str] = {}) -> Response:
        """Ask the proxy for *blob*; the body is still to be taken."""
        return self.client.get(blob.host, blob.path, headers)

    def fetch(self, blob: Blob, headers: Mapping[str, str] = {}) -> Outcome:
        """Ask the proxy for *blob*, and take all that comes."""
        return self.get(blob, headers).finish()

    # What must hold.

    def assert_whole(self, outcome: Outcome, blob: Blob) -> None:
        """All of *blob* came, and nothing else."""
        self.assertEqual(outcome.status, 200, outcome.start[:500])
        self.assertEqual((outcome.size, outcome.complete), (len(blob.content), True))
        self.assertEqual(outcome.digest, blob.digest)

    def assert_cut(self, outcome: Outcome) -> None:
        """The client knows that it has not got the content: an error, or a body cut short."""
        if outcome.status < 400:
            self.assertFalse(outcome.complete)

    def assert_error(self, outcome: Outcome, status: int, token: str) -> None:
        """An error of the proxy's own, with this *token* of RFC 9209."""
        self.assertEqual(outcome.status, status, outcome.start[:500])
        self.assertTrue(outcome.complete)
        self.assertEqual(outcome.headers["Content-Type"], "application/json")
        self.assertTrue(json.loads(outcome.start)["errors"][0]["message"])
        self.assertEqual(outcome.headers["Proxy-Status"], f"regproxy; error={token}")

    def assert_not_stored(self, blob: Blob) -> None:
        """Neither as content nor, in a while, as a transfer."""
        self.assertFalse(self.proxy.stored(blob.digest).exists())
        self.wait_for(lambda: not self.proxy.partial_files(blob.digest))

    def assert_serves(self) -> None:
        """The proxy goes on serving."""
        blob = self.blob(KiB)
        self.assert_whole(self.fetch(blob), blob)

    def wait_for(self, ready: Callable[[], bool], seconds: float = _SOON) -> None:
        """Return once ``ready()``; fail when it is not within *seconds*."""
        until = monotonic() + seconds
        while not ready():
            if monotonic() > until:
                self.fail(f"not so within {seconds} s")
            sleep(0.02)


def host_name(number: int) -> str:
    """The name of a registry."""
    return f"r{number}.example.test"


def manifest(text: str) -> bytes:
    """A small image manifest with *text* in it."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2},
            "layers": [],
            "annotations": {"text": text},
        }
    ).encode()


def together(calls: Iterable[Callable[[], T]]) -> list[T]:
    """The results of *calls*, each made in a thread of its own."""
    made = list(calls)
    with ThreadPoolExecutor(len(made)) as threads:
        return [future.result() for future in [threads.submit(call) for call in made]]

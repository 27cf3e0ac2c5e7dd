"""Everything an end-to-end test plays on: upstreams, one proxy before them, and clients.

Daemons are dear and images are cheap, so one set of processes serves all tests of a run,
and each test makes images of its own, in repositories that no other test has. The first test
that asks starts the set; it is stopped when the interpreter exits, however the run ended.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from tests.support import images
from tests.support.clients import Client
from tests.support.images import Image
from tests.support.internet import Internet
from tests.support.process import Process
from tests.support.proxy import Mirror, Proxy, Value
from tests.support.registry import ADDRESS, ALICE, Keys, Registry, Server, TokenServer

AUTH_HOST: Final = "auth.example.test"
#: Wants tokens of AUTH_HOST; what is below ``public/`` anybody may pull.
TOKEN_HOST: Final = "registry.example.test"
#: Wants a password for everything.
PASSWORD_HOST: Final = "private.example.test"
#: Wants nothing, and its port is not 443.
OPEN_HOST: Final = "other.example.test:5443"
#: The registries of TOKEN_HOST and PASSWORD_HOST once more; here the proxy logs in.
INJECT_TOKEN_HOST: Final = "inject-token.example.test"
INJECT_PASSWORD_HOST: Final = "inject.example.test"
#: The registry of TOKEN_HOST as Docker Hub.
HUB_HOST: Final = "registry-1.docker.io"

AnyClient = TypeVar("AnyClient", bound=Client)


class Stage:
    """The upstreams, and on demand the proxy and the clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()
        self._clients: dict[type[Client], Client] = {}
        self._straight: dict[type[Client], Client] = {}
        self.processes: list[Process] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        names = (host.partition(":")[0] for host in (HUB_HOST, AUTH_HOST, TOKEN_HOST, OPEN_HOST))
        self.keys = keys = Keys.make(self.directory, *names)
        realm = f"https://{AUTH_HOST}/token"
        self.tokens = self._server(TokenServer(self.directory, keys, realm=realm))
        self.token_registry = self._server(
            Registry.with_tokens(self.subdirectory("token-registry"), self.tokens)
        )
        self.password_registry = self._server(
            Registry.with_password(self.subdirectory("password-registry"), keys)
        )
        self.open_registry = self._server(Registry(self.subdirectory("open-registry"), keys))
        #: By the name that clients know.
        self.upstreams: dict[str, Server] = {
            AUTH_HOST: self.tokens,
            TOKEN_HOST: self.token_registry,
            PASSWORD_HOST: self.password_registry,
            OPEN_HOST: self.open_registry,
            INJECT_TOKEN_HOST: self.token_registry,
            INJECT_PASSWORD_HOST: self.password_registry,
            HUB_HOST: self.token_registry,
        }

    AnyServer = TypeVar("AnyServer", bound=Server)

    def _server(self, server: AnyServer) -> AnyServer:
        self._stack.callback(server.process.stop)
        self.processes.append(server.process)
        return server

    def subdirectory(self, name: str) -> Path:
        """The directory *name*. It is there already after a start that failed."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return directory

    def close(self) -> None:
        """Stop all processes."""
        self._stack.close()

    def registries(self) -> dict[str, dict[str, Value]]:
        """The ``[registries]`` of a proxy before the upstreams."""
        password_file = self.directory / "password"
        password_file.write_text(f"{ALICE.password}\n")
        login: dict[str, Value] = {
            "auth": "inject",
            "username": ALICE.user,
            "password_file": str(password_file),
        }
        tables: dict[str, dict[str, Value]] = {}
        for host, server in self.upstreams.items():
            section: dict[str, Value] = {
                "upstream": [server.url],
                "ca_file": str(server.keys.ca),
                "relay_private": True,
            }
            injects = host in (INJECT_TOKEN_HOST, INJECT_PASSWORD_HOST)
            tables[f'registries."{host}"'] = section | (login if injects else {})
        return tables

    @cached_property
    def proxy(self) -> Proxy:
        """The proxy that clients go through unless a test starts its own.

        Its clients may tunnel to the open registry as to any other web site.
        """
        relay: dict[str, Value] = {"allow": [f"{ADDRESS}:{self.open_registry.port}"]}
        tables = {"relay": relay} | self.registries()
        proxy = Proxy(self.subdirectory("proxy"), tables)
        self._stack.callback(proxy.process.stop)
        self.processes.append(proxy.process)
        return proxy

    @cached_property
    def mirror(self) -> Mirror:
        """The proxy that clients have as their mirror."""
        mirror = Mirror(self.subdirectory("mirror"), self.registries(), self.keys)
        # A test may have started it anew.
        self._stack.callback(lambda: mirror.process.stop())
        return mirror

    @cached_property
    def internet(self) -> Internet:
        """The way to the upstreams without a proxy."""
        internet = Internet({host: server.port for host, server in self.upstreams.items()})
        self._stack.callback(internet.close)
        return internet

    def straight_client(self, kind: type[AnyClient], *arguments: str) -> AnyClient:
        """The client of this *kind* that reaches the upstreams themselves.

        *arguments* are those of its kind, when it is first asked for.
        """
        if kind not in self._straight:
            directory = self.directory / f"straight-{kind.__name__.lower()}"
            made = kind(directory, self.internet.url, self.keys.ca, *arguments)
            self._stack.callback(made.close)
            self._straight[kind] = made
        found = self._straight[kind]
        assert isinstance(found, kind)
        return found

    def client(self, kind: type[AnyClient]) -> AnyClient:
        """The client of this *kind* that goes through :attr:`proxy`."""
        if kind not in self._clients:
            name = kind.__name__.lower()
            client = kind(self.directory / name, self.proxy.url, self.proxy.ca_file)
            self._stack.callback(client.close)
            self.processes += client.processes
            self._clients[kind] = client
        found = self._clients[kind]
        assert isinstance(found, kind)
        return found


@lru_cache
def stage() -> Stage:
    """The stage of this run."""
    directory = Path(tempfile.mkdtemp(prefix="e2e-", dir=os.getcwd()))
    made = Stage(directory)
    atexit.register(made.close)
    return made


class EndToEndTestCase(SynchronousTestCase):
    """A test on the stage. When it fails, the logs of its time are shown."""

    def _with_logs(self, test: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                test()
                self._check_logs()
            except BaseException:
                print(f"\n=== logs of {self.id()}", file=sys.stderr)
                for process, start in self._log_starts.items():
                    print(process.tail(start), file=sys.stderr)
                raise

        return run

    def _check_logs(self) -> None:
        """Whatever clients saw: an exception that nobody expected is a failure."""
        for process, start in self._log_starts.items():
            self.assertNotIn("Traceback", process.read_log(start), process.name)

    def setUp(self) -> None:
        """Get the stage, and note how far its logs are."""
        self._log_starts: dict[Process, int] = {}
        name = self._testMethodName
        setattr(self, name, self._with_logs(getattr(self, name)))
        self.stage = stage()
        for process in self.stage.processes:
            self.watch(process)

    def watch(self, process: Process) -> None:
        """Show the log of *process* from here on if the test fails."""
        self._log_starts[process] = process.log.stat().st_size

    def new_directory(self) -> Path:
        """A new empty directory of this test."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        return directory

    def repository(self, kind: str = "public") -> str:
        """A repository that no other test uses, below *kind*."""
        return f"{kind}/{self._testMethodName.removeprefix('test_')}-{uuid.uuid4().hex[:8]}"

    def publish(
        self, host: str, repository: str, image: Image | None = None, tag: str = "latest"
    ) -> Image:
        """Push *image*, by default a new one, straight to the registry behind *host*."""
        image = image or images.image()
        registry = self.stage.upstreams[host]
        assert isinstance(registry, Registry)
        registry.push(repository, tag, image)
        return image

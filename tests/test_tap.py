"""Tests for :mod:`regproxy.tap`."""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from twisted.application.internet import TimerService
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody

from regproxy.config.load import loads
from regproxy.listeners.ports import ListenerService
from regproxy.management.api import NotReloaded
from regproxy.management.jobs import Progress
from regproxy.management.values import JobKind, JobState
from regproxy.oci.names import Host
from regproxy.store.errors import IndexFailed
from regproxy.tap import (
    FLUSH_INTERVAL,
    Options,
    ProxyService,
    make_service,
    makeService,
    raise_file_limit,
)
from regproxy.web.access_log import UnderWay
from tests.support.memory_network import MemoryNetwork
from tests.support.process import free_port

SECRET = "correct horse battery staple"
LOCAL = "tcp:0:interface=127.0.0.1"


def configuration(directory: Path, extra: str = "") -> str:
    """The text of a file whose proxy keeps to itself."""
    return f"""
data = "{directory}"
{extra}
[proxy]
listen = ["{LOCAL}"]
[management]
listen = ["{LOCAL}"]
"""


class OptionsTests(SynchronousTestCase):
    """The command line"""

    def setUp(self) -> None:
        self.file = Path(self.mktemp())

    def exits(self, call: Callable[[], object]) -> tuple[Any, str]:
        """What the program exits with, and what it has printed."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        with self.assertRaises(SystemExit) as caught:
            call()
        return caught.exception.code, output.getvalue()

    def set_environ(self, **variables: str) -> None:
        """Have the process see these variables only."""
        patched = patch.dict(os.environ, variables, clear=True)
        patched.start()
        self.addCleanup(patched.stop)

    def parse(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(arguments)
        return options

    def test_defaults(self) -> None:
        options = self.parse()
        self.assertIsNone(options.path)
        self.assertEqual(options.loaded.proxy.listen, ("tcp:3128",))

    def test_file(self) -> None:
        """Its path is made absolute: a daemon has another current directory."""
        self.file.write_text('data = "/srv"')
        options = self.parse("--config", os.path.relpath(self.file))
        self.assertEqual(options.path, self.file.absolute())
        self.assertEqual(options.loaded.data, Path("/srv"))

    def test_bad_file(self) -> None:
        """The text that twistd ends with names the file and the key."""
        self.file.write_text('data = "/srv"\n[cache]\nmax_size = "big"\nmaxsize = 1')
        code, output = self.exits(lambda: self.parse("--config", str(self.file)))
        self.assertIn(f"{self.file}: cache.max_size: ", code)
        self.assertIn(f"{self.file}: cache.maxsize: ", code)
        self.assertNotIn("Traceback", code + output)

    def test_bad_endpoint(self) -> None:
        """Found before the start, with the file, the key and what is allowed."""
        self.file.write_text(
            'data = "/srv"\n[proxy]\nlisten = ["tcp:1", "tcp:http"]\n'
            '[tls]\nlisten = ["carrier-pigeon:1", "haproxy:systemd:domain=INET:index=0"]\n'
            'http_listen = ["haproxy:tcp:x", "tcp:65535", "tcp6:port=65536:interface=\\\\:\\\\:"]'
        )
        code, _ = self.exits(lambda: self.parse("--config", str(self.file), "--check"))
        proxy, tls, http, port = code.splitlines()
        expected = 'expected an endpoint such as "tcp:3128", found '
        self.assertIn(f"{self.file}: proxy.listen[1]: {expected}'tcp:http'", proxy)
        self.assertIn(f"{self.file}: tls.listen[0]: {expected}'carrier-pigeon:1'", tls)
        self.assertIn(f"{self.file}: tls.http_listen[0]: {expected}'haproxy:tcp:x'", http)
        self.assertIn(f"{self.file}: tls.http_listen[2]: {expected}'tcp6:port=65536:", port)

    def test_no_file(self) -> None:
        code, _ = self.exits(lambda: self.parse("--config", "/nonexistent/regproxy.toml"))
        self.assertIn("/nonexistent/regproxy.toml", code)

    def test_check(self) -> None:
        """It prints what holds, with all defaults and without secrets, and ends."""
        self.file.write_text(
            'data = "/srv"\n[registries."registry.example.com"]\n'
            f'username = "team"\npassword = "{SECRET}"\n'
        )
        code, output = self.exits(lambda: self.parse("--config", str(self.file), "--check"))
        self.assertEqual(code, 0)
        self.assertNotIn(SECRET, output)
        self.assertIn("team", output)
        again = loads(output.replace("********", "x"), "f", data=None)
        self.assertEqual(again.data, Path("/srv"))

    def test_drop_in(self) -> None:
        """The environment is the configuration; ``--check`` says what has become of it."""
        self.set_environ(CACHE_MAX_SIZE="1g")
        code, output = self.exits(lambda: self.parse("--drop-in", "--check"))
        self.assertEqual(code, 0)
        self.assertIn("# CACHE_MAX_SIZE: cache.max_size = 1GiB\n", output)
        self.assertEqual(loads(output, "f", data=None).ca.directory, Path("/ca"))

    def test_drop_in_of_a_bad_environment(self) -> None:
        self.set_environ(CACHE_MAX_SIZE="big")
        code, _ = self.exits(lambda: self.parse("--drop-in"))
        self.assertIn("environment: CACHE_MAX_SIZE: ", code)

    def test_drop_in_and_a_file(self) -> None:
        self.assertRaises(usage.UsageError, self.parse, "--drop-in", "--config", str(self.file))

    def test_check_of_a_bad_file(self) -> None:
        self.file.write_text("[")
        code, output = self.exits(lambda: self.parse("--check", "--config", str(self.file)))
        self.assertIn(str(self.file), code)
        self.assertEqual(output, "")

    def test_bad_ca(self) -> None:
        """A CA that cannot be used is told of in one text too."""
        directory = Path(self.mktemp()).absolute()
        (directory / "ca").mkdir(parents=True)
        (directory / "ca" / "ca.crt").write_text("garbage")
        self.file.write_text(configuration(directory))
        options = self.parse("--config", str(self.file))
        code, _ = self.exits(lambda: makeService(options))
        self.assertIn("ca.crt", code)


class FileLimitTests(SynchronousTestCase):
    """raise_file_limit"""

    def test_raised(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        raise_file_limit()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (before[1], before[1]))


class StoreTests(SynchronousTestCase):
    """The store's part of the service, without threads."""

    def service(self, directory: Path) -> ProxyService:
        config = loads(configuration(directory), "f", data=None)
        service = make_service(MemoryNetwork(), config, lambda: config)
        assert isinstance(service, ProxyService)
        return service

    def test_unusable(self) -> None:
        """A cache directory that is none ends the program with a text."""
        directory = Path(self.mktemp()).absolute()
        service = self.service(directory)
        (directory / "cache").write_text("a file")
        with self.assertRaises(SystemExit) as caught:
            IService(service.services[0]).startService()
        self.assertIn(str(directory / "cache"), str(caught.exception.code))

    def test_flush_fails(self) -> None:
        """A failure is logged, and the timer goes on."""
        service = self.service(Path(self.mktemp()).absolute())
        network = service.services[1].clock = MemoryNetwork()
        failures: list[Deferred[None]] = []

        def flush() -> Deferred[None]:
            failures.append(fail(IndexFailed("disk full")))
            return failures[-1]

        foundation = service.services[0]._foundation
        self.patch(foundation.store, "flush_access_times", flush)
        service.services[1].startService()
        network.pump([FLUSH_INTERVAL] * 2)
        self.assertEqual(len(failures), 3)
        self.assertEqual(len(self.flushLoggedErrors(IndexFailed)), 3)
        self.successResultOf(service.services[1].stopService())


class RunningTests(TestCase):
    """A whole proxy on the real reactor."""

    async def start(self, extra: str = "") -> ProxyService:
        """Start one; it is stopped when the test is over."""
        self.directory = Path(self.mktemp()).absolute()
        self.file = Path(self.mktemp()).absolute()
        self.file.write_text(configuration(self.directory, extra))
        options = Options()
        options.parseOptions(["--config", str(self.file)])
        service = makeService(options)
        self.addCleanup(gc.unfreeze)
        assert isinstance(service, ProxyService)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(self.stop, service)
        return service

    async def stop(self, service: ProxyService) -> None:
        if service.running:
            await service.stopService()

    def threads(self) -> list[str]:
        """Those of the store."""
        names = [thread.name for thread in threading.enumerate()]
        return [name for name in names if "disk" in name or "index" in name]

    def port(self, service: ProxyService, way: str = "proxy") -> int:
        """That of the first listener of *way*."""
        listener = service.getServiceNamed(f"{way}.listen[0]")
        assert isinstance(listener, ListenerService) and listener.port is not None
        address = listener.port.getHost()
        assert isinstance(address, IPv4Address)
        return address.port

    async def get(self, service: ProxyService, path: str, way: str = "proxy") -> bytes:
        """What the port of one *way* in answers."""
        return await self.ask(b"GET", service, path, way)

    async def post(self, service: ProxyService, path: str) -> Any:
        """What the management port answers, decoded."""
        return json.loads(await self.ask(b"POST", service, path, "management"))

    async def ask(self, method: bytes, service: ProxyService, path: str, way: str) -> bytes:
        url = f"http://127.0.0.1:{self.port(service, way)}{path}".encode()
        response = await Agent(reactor).request(method, url)
        body: bytes = await readBody(response)
        return body

    async def test_garbage_collector(self) -> None:
        """It leaves alone what was imported, which it would look through again and again."""
        self.assertTrue(any(each is ProxyService for each in gc.get_objects()))
        await self.start()
        self.assertFalse(any(each is ProxyService for each in gc.get_objects()))

    async def test_starts_and_stops(self) -> None:
        """It serves; and when it has stopped there are no threads and no ports."""
        service = await self.start()
        self.assertEqual(await self.get(service, "/healthz"), b"ok\n")
        self.assertTrue((self.directory / "cache" / "index.sqlite3").exists())
        self.assertNotEqual(self.threads(), [])
        await service.stopService()
        self.assertEqual(self.threads(), [])
        self.assertEqual(
            [child.port for child in service.services if isinstance(child, ListenerService)],
            [None, None],
        )

    async def test_stop_waits(self) -> None:
        """Nobody is let in any more, and the store is there for those who are."""
        service = await self.start()
        under_way = service._foundation.access_log.under_way
        under_way.add(cast(UnderWay, object()))
        stopping = service.stopService()
        doors = [child for child in service.services if isinstance(child, ListenerService)]
        self.assertEqual({door.port for door in doors}, {None})
        self.assertFalse(stopping.called)
        self.assertTrue(service._foundation.access_log.ending)
        self.assertNotEqual(self.threads(), [])
        # A reload that comes too late cuts nobody off.
        self.assertIs(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)
        under_way.clear()
        await stopping
        self.assertEqual(self.threads(), [])

    async def test_stop_waits_no_longer_than(self) -> None:
        """For ``drain``, and says so."""
        service = await self.start("[limits]\ndrain = '0.1s'")
        service._foundation.access_log.under_way.add(cast(UnderWay, object()))
        with capturedLogs() as events:
            await service.stopService()
        self.assertEqual([event["limit"] for event in events if "limit" in event], [0.1])

    async def test_reload(self) -> None:
        """SIGHUP: a good file counts from the next request on."""
        service = await self.start()
        first = service.house
        self.assertEqual(first.config.freshness.default, 0.0)
        self.file.write_text(configuration(self.directory, "[freshness]\ndefault = '1h'"))
        os.kill(os.getpid(), signal.SIGHUP)
        while service.house is first:
            await deferLater(reactor, 0.01)
        self.assertEqual(service.house.config.freshness.default, 3600.0)
        self.assertEqual(await self.get(service, "/healthz"), b"ok\n")

    async def test_reload_of_names(self) -> None:
        """Requests are counted by the names of the registries in force."""
        service = await self.start()
        name_of = service._foundation.traffic.name_of
        self.assertEqual(name_of(Host("mine.example.com")), "other")
        self.file.write_text(configuration(self.directory, '[registries."mine.example.com"]'))
        service.reload()
        self.assertEqual(name_of(Host("mine.example.com")), "mine.example.com")

    async def test_reload_by_the_api(self) -> None:
        """As by SIGHUP, and who asked is told what came of it."""
        service = await self.start()
        self.file.write_text(configuration(self.directory, '[registries."mine.example.com"]'))
        self.assertEqual(await self.post(service, "/api/v1/reload"), {"restart_needed": False})
        names = [each.name for each in service._foundation.parts.overview.registries()]
        self.assertEqual(names, ["mine.example.com"])
        self.file.write_text(configuration(self.directory, "[cache]\nmax_size = 'x'"))
        problem = await self.post(service, "/api/v1/reload")
        self.assertEqual(problem["status"], 422)
        self.assertTrue(problem["messages"][0].startswith("cache.max_size: "), problem)

    async def test_ready(self) -> None:
        """While all listeners listen, and until it is being stopped."""
        service = await self.start()
        readiness = service._foundation.parts.readiness
        self.assertEqual(await self.get(service, "/readyz", "management"), b"ok\n")
        await service.getServiceNamed("proxy.listen[0]").stopService()
        page = await self.get(service, "/readyz", "management")
        self.assertEqual(page, b"proxy.listen[0] does not listen\n")
        stopping = service.stopService()
        self.assertTrue(readiness.draining)
        await stopping
        self.assertIn("management.listen[0] does not listen", await readiness.problems())

    async def test_jobs_end(self) -> None:
        """With the process."""

        async def work(progress: Progress) -> None:
            await Deferred()

        service = await self.start()
        jobs = service._foundation.parts.jobs
        job = jobs.start(JobKind.WARM, work)
        await service.stopService()
        self.assertEqual(jobs.get(job.id).state, JobState.CANCELLED)

    async def test_loop_delay(self) -> None:
        """The reactor's delay is measured while the proxy runs."""
        service = await self.start()
        delays = service._foundation.loop_delay.delays
        while not sum(delays.counts):
            await deferLater(reactor, 0.01)
        await service.stopService()
        self.assertFalse(service._foundation.loop_delay.running)

    async def test_connections(self) -> None:
        """Those of clients are counted as long as they last."""
        service = await self.start()
        connections = service._foundation.connections.open
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port(service))
        client = await connectProtocol(endpoint, Protocol())
        while not connections["proxy"]:
            await deferLater(reactor, 0.01)
        assert client.transport is not None
        client.transport.loseConnection()
        while connections["proxy"]:
            await deferLater(reactor, 0.01)

    async def test_reload_of_registries(self) -> None:
        """Images are fetched from those that there are now."""
        service = await self.start("[interception]\nhosts = []")
        parts = service._foundation.parts
        section = (
            '[registries."registry.example.test"]\n'
            'upstream = ["https://127.0.0.1:9"]\nrelay_private = true\n'
        )
        for error in ("is not a registry", "refused"):
            job = parts.images.warm(["registry.example.test/app:1"])
            while (job := parts.jobs.get(job.id)).state is JobState.RUNNING:
                await deferLater(reactor, 0.01)
            self.assertIn(error, job.failures[0])
            self.file.write_text(configuration(self.directory, section))
            service.reload()

    async def test_reload_of_bounds(self) -> None:
        """The store keeps to the new ones."""
        service = await self.start("[cache]\nmax_size = '2MiB'")
        housekeeping = service._foundation.housekeeping
        self.assertEqual((await housekeeping.stats()).limit, 2 << 20)
        self.file.write_text(configuration(self.directory, "[cache]\nmax_size = '1MiB'"))
        service.reload()
        self.assertEqual((await housekeeping.stats()).limit, 1 << 20)

    async def test_housekeeping(self) -> None:
        """It begins with the files that are there, and goes on by a timer."""
        path = Path(self.mktemp()).absolute()
        blob = path / "cache" / "blobs" / "sha256" / "ab" / "strange"
        blob.parent.mkdir(parents=True)
        blob.touch()
        self.directory = path
        config = loads(configuration(path), "f", data=None)
        service = make_service(reactor, config, lambda: config)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        while blob.exists():
            await deferLater(reactor, 0.01)
        self.assertTrue((path / "cache" / "quarantine" / "sha256-ab-strange").exists())
        calls = [child.call[0] for child in service.services if isinstance(child, TimerService)]
        assert isinstance(service, ProxyService)
        self.assertIn(service._foundation.housekeeping.tick, calls)
        self.assertIn(service._foundation.history.tick, calls)

    async def test_names(self) -> None:
        """The name server follows the configuration, over UDP and TCP; then its ports are free."""
        port = free_port()
        section = f"""[dns]
            listen = ["127.0.0.1:{port}"]
            addresses = ["10.0.0.5"]
            authoritative = true
            upstream_resolvers = ["127.0.0.1:{free_port()}"]
            [interception]
            hosts = []
            [registries."registry.example.test"]
            upstream = ["https://127.0.0.1:{port}"]"""
        with capturedLogs() as events:
            service = await self.start(section)
            while not (loops := [event["loop"] for event in events if "loop" in event]):
                await deferLater(reactor, 0.01)
        (loop,) = loops
        self.assertTrue(loop.startswith(f"127.0.0.1:{port} leads back to this proxy"), loop)
        client = Resolver(servers=[("127.0.0.1", port)])

        async def addresses() -> list[str]:
            over_udp, _, _ = await client.lookupAddress("registry.example.test")
            over_tcp = await client.queryTCP([dns.Query("registry.example.test")])
            self.assertEqual(over_tcp.answers, over_udp)
            return [record.payload.dottedQuad() for record in over_udp]

        self.assertEqual(await addresses(), ["10.0.0.5"])
        resolver = service.house.resolver
        self.file.write_text(configuration(self.directory, section.replace(".0.5", ".0.6")))
        service.reload()
        self.assertEqual(await addresses(), ["10.0.0.6"])
        self.assertIsNot(service.house.resolver, resolver)
        client.connections[0].transport.abortConnection()
        await service.stopService()
        for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:
            with socket.socket(socket.AF_INET, kind) as again:
                again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
                again.bind(("127.0.0.1", port))

    async def test_reload_of_a_bad_file(self) -> None:
        """It is told of, and the old one goes on."""
        service = await self.start()
        first = service.house
        for text in "[", configuration(self.directory, "[cache]\nmax_size = 'x'"):
            self.file.write_text(text)
            with capturedLogs() as events, self.assertRaises(NotReloaded) as caught:
                service.reload()
            self.assertIs(service.house, first)
            (event,) = (event for event in events if "reason" in event)
            self.assertIn(str(self.file), event["reason"])
            self.assertTrue(all(line in event["reason"] for line in caught.exception.messages))
        self.file.unlink()
        self.assertRaises(NotReloaded, service.reload)
        self.assertIs(service.house, first)
        with capturedLogs() as events:
            os.kill(os.getpid(), signal.SIGHUP)
            while not any("reason" in event for event in events):
                await deferLater(reactor, 0.01)
        self.assertIs(service.house, first)
        self.assertEqual(await self.get(service, "/healthz"), b"ok\n")

    async def test_reload_of_what_is_fixed(self) -> None:
        """What takes a restart is warned of."""
        service = await self.start()
        text = self.file.read_text()
        self.file.write_text(text.replace(LOCAL, "tcp:1:interface=127.0.0.1", 1))
        with capturedLogs() as events:
            self.assertTrue(service.reload().restart_needed)
        self.assertIn("restart", " ".join(str(event["log_format"]) for event in events))

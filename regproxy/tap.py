"""The twistd plugin's side of regproxy: options, services, reloading."""

from __future__ import annotations

import gc
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Final

from twisted.application.internet import TimerService
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python import usage

from regproxy.config import compat
from regproxy.config.load import ConfigError, effective, load
from regproxy.config.model import Config
from regproxy.listeners.dns import NameService
from regproxy.listeners.ports import (
    CurrentFactory,
    DNSListenerService,
    ListenerService,
    bad_endpoints,
    key_path,
    listeners,
)
from regproxy.management.api import NotReloaded, Reloaded
from regproxy.management.history import STEP
from regproxy.policy.resolution import ServerAddress
from regproxy.store.errors import StoreUnusable
from regproxy.tls.errors import CAError
from regproxy.upstream.loops import find_loops
from regproxy.web.drain import drained
from regproxy.wiring import Foundation, House, fingerprint

# Seconds between writes of the times of last use: what a kill loses of them.
FLUSH_INTERVAL: Final = 30.0
# Seconds between looks at what the store has to evict or verify, besides after each commit.
HOUSEKEEPING_INTERVAL: Final = 60.0


class Options(usage.Options):
    """The command line of ``twistd regproxy``."""

    synopsis = "[options]"
    longdesc = "A caching, TLS-intercepting proxy for container registries."
    optParameters: ClassVar = [["config", "c", None, "The TOML file with the configuration."]]
    optFlags: ClassVar = [
        [
            "drop-in",
            None,
            "In place of docker-registry-proxy: take its environment variables and directories.",
        ],
        ["check", None, "Check the configuration, print it with all defaults, and exit."],
    ]

    def postOptions(self) -> None:
        """Load the configuration, or say what is wrong with it and exit."""
        path = self["config"]
        self.path = None if path is None else Path(path).absolute()
        #: Reads the configuration: now, and at each reload.
        self.read: Callable[[], Config] = partial(load, self.path)
        if self["drop-in"]:
            if path is not None:
                raise usage.UsageError("--drop-in takes no configuration file")
            self.read = partial(compat.load, _comment) if self["check"] else compat.load
        try:
            self.loaded = self.read()
            if problems := bad_endpoints(self.loaded):
                raise ConfigError(str(self.path), problems)
        except ConfigError as error:
            sys.exit(str(error))
        if self["check"]:
            sys.stdout.write(effective(self.loaded))
            sys.exit(0)


def _comment(remark: str) -> None:
    sys.stdout.write(f"# {remark}\n")


def makeService(options: Options) -> MultiService:
    """The services of one proxy, not yet started."""
    from twisted.internet import reactor

    raise_file_limit()
    service = make_service(reactor, options.loaded, options.read)
    # What has been imported stays for good. To look through it takes the garbage collector
    # 15 ms, each time.
    gc.collect()
    gc.freeze()
    return service


def raise_file_limit() -> None:
    """Have as many files open as this process may.

    Each client is one, what it reads another, and what comes for it a third. The limit is 1024
    where nobody says more, for the sake of programs that use select(2): getrlimit(2), systemd's
    ``DefaultLimitNOFILE``. Go's programs raise it as well.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def make_service(reactor: Any, config: Config, read: Callable[[], Config]) -> MultiService:
    """The services of one proxy with *config*, and with what *read* gives at a reload."""
    try:
        foundation = Foundation.lay(reactor, config)
    except CAError as error:
        sys.exit(str(error))
    proxy = ProxyService(reactor, foundation, config, read)
    store = StoreService(foundation)
    proxy.addService(store)
    proxy.addService(TimerService(FLUSH_INTERVAL, store.flush))
    for way, descriptions in listeners(config).items():
        for index, description in enumerate(descriptions):
            watch = partial(foundation.connections.watch, way)
            factory = CurrentFactory(partial(proxy.way, way), watch)
            listener = ListenerService(reactor, description, factory, foundation.places.add)
            listener.setName(key_path(way, index))
            proxy.addService(listener)
    for index, server in enumerate(map(ServerAddress.parse, config.dns.listen)):
        name_server = DNSListenerService(reactor, server, proxy.names, foundation.places.add)
        name_server.setName(key_path("dns", index))
        proxy.addService(name_server)
    proxy.addService(TimerService(HOUSEKEEPING_INTERVAL, foundation.housekeeping.tick))
    proxy.addService(TimerService(STEP, foundation.history.tick))
    proxy.addService(foundation.loop_delay)
    return proxy


class StoreService(Service):
    """The store's threads and database, which must not be held across a fork."""

    _log = Logger()

    def __init__(self, foundation: Foundation) -> None:
        self._foundation = foundation

    def startService(self) -> None:
        """Open the store."""
        super().startService()
        foundation = self._foundation
        try:
            foundation.directory.prepare()
            foundation.index.open()
        except StoreUnusable as error:
            sys.exit(str(error))
        foundation.disk_pool.start()
        foundation.index_pool.start()
        foundation.housekeeping.start()

    def flush(self) -> Deferred[None]:
        """Write when content was last used. A failure must not end the timer that calls this."""
        return self._foundation.store.flush_access_times().addErrback(
            lambda failure: self._log.failure("Times of last use were not written", failure)
        )

    def stopService(self) -> Deferred[None]:
        """Write what is left to write, and close the store."""
        super().stopService()
        self._foundation.housekeeping.stop()
        return ensureDeferred(self._foundation.store.stop()).addBoth(self._close)

    def _close(self, result: Any) -> Any:
        self._foundation.disk_pool.stop()
        self._foundation.index_pool.stop()
        self._foundation.index.close()
        return result


class ProxyService(MultiService):
    """The whole proxy: its other services, and the configuration in force."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        foundation: Foundation,
        config: Config,
        read: Callable[[], Config],
    ) -> None:
        super().__init__()
        self.house = House.build(foundation, config)
        self._reactor = reactor
        self._foundation = foundation
        self._read = read
        foundation.parts.reload = self.reload
        foundation.parts.images.follow(config, self.house.prefetch)
        foundation.parts.readiness.down = self._down

    def startService(self) -> None:
        """Start everything, and reload on SIGHUP."""
        super().startService()
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._hang_up))
        self._reactor.callWhenRunning(_stop_once)
        self._reactor.callWhenRunning(self._look_for_loops)
        # The last connections are cut off after the services have stopped.
        self._reactor.addSystemEventTrigger("after", "shutdown", self._foundation.access_log.flush)
        self._log.info(
            "The CA is {path}/ca.crt, SHA-256 {fingerprint}; content is kept in {cache}",
            path=str(self.house.config.ca_directory),
            fingerprint=fingerprint(self._foundation),
            cache=str(self.house.config.cache_directory),
        )

    def stopService(self) -> Deferred[Any]:
        """Accept nothing more, let what is under way come to its end, then stop everything."""
        # By itself it would end the process, and what is under way with it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._foundation.parts.stop()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        doors = (ListenerService, DNSListenerService)
        self._foundation.access_log.ending = True
        closing = [door.stopService() for door in self.services if isinstance(door, doors)]
        await gatherResults(closing)
        limit = self.house.config.limits.drain
        if not await drained(self._reactor, self._foundation.access_log.under_way, limit):
            self._log.warn("Answers that were not over after {limit} s are cut off", limit=limit)
        await gatherResults([MultiService.stopService(self), self.house.upstream.close()])

    def way(self, name: str) -> IProtocolFactory:
        """The factory of the way in called *name*, as the configuration in force wants it."""
        return self.house.ways[name]

    def names(self) -> NameService:
        """The name server as the configuration in force wants it."""
        return self.house.names

    def reload(self) -> Reloaded:
        """Read the configuration again; a bad one leaves the running one in force.

        Connections that are open go on as they began.

        Raises:
            NotReloaded: it is a bad one.
        """
        try:
            config = self._read()
        except ConfigError as error:
            self._log.error(
                "The configuration was not reloaded, the old one goes on: {reason}",
                reason=str(error),
            )
            raise NotReloaded(error.problems) from error
        restart_needed = _fixed(config) != _fixed(self.house.config)
        if restart_needed:
            self._log.warn("Listeners, [ca] and [cache] directory change at a restart only")
        self.house, replaced = House.build(self._foundation, config), self.house
        self._foundation.housekeeping.follow(config.cache)
        self._foundation.traffic.follow(config)
        self._foundation.parts.overview.follow(config)
        self._foundation.parts.images.follow(config, self.house.prefetch)
        replaced.upstream.close()
        self._look_for_loops()
        self._log.info("The configuration was reloaded")
        return Reloaded(restart_needed)

    def _hang_up(self) -> None:
        # The log says why.
        with suppress(NotReloaded):
            self.reload()

    def _down(self) -> Iterator[str]:
        for service in self:
            if isinstance(service, ListenerService | DNSListenerService) and not service.listens:
                yield str(service.name)

    def _look_for_loops(self) -> None:
        async def tell() -> None:
            house = self.house
            for loop in await find_loops(house.resolver, house.config, house.own):
                self._log.error("{loop}", loop=loop)

        ensureDeferred(tell()).addErrback(
            lambda failure: self._log.failure("Loops were not looked for", failure)
        )


def _stop_once() -> None:
    """Have only the first signal stop the reactor.

    timeout(1) and some supervisors signal a process and then its group, and Twisted logs a
    traceback when it is told to stop while it does.
    """
    endings = (signal.SIGTERM, signal.SIGINT)
    stops = {number: signal.getsignal(number) for number in endings}

    def stop(number: int, frame: FrameType | None) -> None:
        for each in endings:
            signal.signal(each, signal.SIG_IGN)
        handler = stops[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in stops.items():
        if callable(handler):
            signal.signal(number, stop)


def _fixed(config: Config) -> tuple[object, ...]:
    """What a reload does not change."""
    return listeners(config), config.dns.listen, config.ca, config.cache.directory, config.data

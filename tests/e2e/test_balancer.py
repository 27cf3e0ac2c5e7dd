"""Behind a load balancer that speaks the PROXY protocol: HAProxy, and curl as one."""

from __future__ import annotations

from pathlib import Path

from tests.support.process import Process, Result, environment, free_port, listens, run
from tests.support.programs import needs, program
from tests.support.proxy import Proxy
from tests.support.registry import ADDRESS
from tests.support.stage import OPEN_HOST, EndToEndTestCase

#: curl's own address. The load balancer connects to the proxy from another one.
CLIENT = "127.0.0.5"
WAYS = "proxy", "tls", "management"

_HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
"""
_LISTEN = """
listen {name}
    bind {address}:{port}
    server regproxy {address}:{to} {send} check check-send-proxy inter 100ms
"""


@needs("docker-registry", "htpasswd", "curl", "haproxy")
class BalancerTests(EndToEndTestCase):
    """The client's address is the real one, whichever way it comes in."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.new_directory()
        self.ports = {way: free_port() for way in WAYS}
        tables = self.stage.registries() | {
            way: {"listen": [f"haproxy:tcp:{port}:interface={ADDRESS}"]}
            for way, port in self.ports.items()
        }
        tables["relay"] = {"allow": [f"{ADDRESS}:{self.stage.open_registry.port}"]}
        self.proxy = Proxy(self.directory, tables)
        self.addCleanup(self.proxy.process.stop)
        self.watch(self.proxy.process)

    def balance(self, send: str) -> dict[str, int]:
        """Start HAProxy; its port for each way in. It checks the proxy's health by itself."""
        fronts = {way: free_port() for way in WAYS}
        config = self.directory / "haproxy.cfg"
        config.write_text(
            _HAPROXY
            + "".join(
                _LISTEN.format(name=way, address=ADDRESS, port=port, to=self.ports[way], send=send)
                for way, port in fronts.items()
            )
        )
        log = self.directory / "haproxy.log"
        arguments = [program("haproxy"), "-db", "-f", str(config)]
        process = Process("haproxy", arguments, log=log, env=environment())
        self.addCleanup(process.stop)
        self.watch(process)
        process.wait_until(lambda: all(map(listens, fronts.values())))
        return fronts

    def curl(self, *arguments: str, ca_file: Path | None = None) -> Result:
        """Run curl from its own address."""
        ca_file = ca_file or self.proxy.ca_file
        options = "--silent", "--show-error", "--interface", CLIENT, "--cacert", str(ca_file)
        return run(program("curl"), *options, *arguments, env=environment(HOME=self.directory))

    def clients(self, start: int, count: int) -> set[tuple[str, str]]:
        """The ways in and the clients of the *count* log lines since *start*."""
        self.proxy.process.wait_until(lambda: len(self.proxy.access_log(start)) >= count)
        return {(each["way"], each["client"]) for each in self.proxy.access_log(start)}

    def check(self, send: str) -> None:
        """A request by each way in."""
        fronts = self.balance(send)
        start = self.proxy.process.log.stat().st_size
        through = "--proxy", f"http://{ADDRESS}:{fronts['proxy']}"
        url = f"https://{OPEN_HOST}/v2/"
        self.assertEqual(self.curl(*through, url).check(), "{}")
        self.assertEqual(self.clients(start, 1), {("connect", CLIENT)})

        start = self.proxy.process.log.stat().st_size
        tunnelled = f"https://{ADDRESS}:{self.stage.open_registry.port}/v2/"
        upstream_ca = self.stage.open_registry.keys.ca
        self.assertEqual(self.curl(*through, tunnelled, ca_file=upstream_ca).check(), "{}")
        self.assertEqual(self.clients(start, 1), {("connect", CLIENT)})

        start = self.proxy.process.log.stat().st_size
        direct = "--connect-to", f"::{ADDRESS}:{fronts['tls']}"
        self.assertEqual(self.curl(*direct, url).check(), "{}")
        self.assertEqual(self.clients(start, 1), {("tls", CLIENT)})

        start = self.proxy.process.log.stat().st_size
        health = f"http://{ADDRESS}:{fronts['management']}/healthz"
        self.assertEqual(self.curl(health).check(), "ok\n")
        self.assertEqual(self.clients(start, 1), {("management", CLIENT)})
        # Among the connections were health checks.
        self.assertNotIn("refused", self.proxy.process.read_log())

    def test_version_1(self) -> None:
        self.check("send-proxy")

    def test_version_2(self) -> None:
        self.check("send-proxy-v2")

    def test_curl(self) -> None:
        """curl may send the header itself."""
        url = f"http://{ADDRESS}:{self.ports['management']}/healthz"
        self.assertEqual(self.curl("--haproxy-protocol", url).check(), "ok\n")
        direct = "--connect-to", f"::{ADDRESS}:{self.ports['tls']}"
        url = f"https://{OPEN_HOST}/v2/"
        self.assertEqual(self.curl("--haproxy-protocol", *direct, url).check(), "{}")
        self.assertEqual(
            self.clients(0, 2) - {("proxy", ADDRESS)}, {("management", CLIENT), ("tls", CLIENT)}
        )

    def test_no_header(self) -> None:
        """Who comes past the load balancer is not served."""
        url = f"http://{ADDRESS}:{self.ports['management']}/healthz"
        self.assertNotEqual(self.curl(url).code, 0)
        log = self.proxy.process.read_log()
        self.assertIn(f"refused {CLIENT} with 400: the connection does not begin with a PROXY", log)

"""Clients that know of no proxy: the registries' names lead to it by their hosts file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.support.clients import Skopeo
from tests.support.hosts import SeeingProxy, loopback_address, seeing
from tests.support.process import Process, Result, environment, listens, run
from tests.support.programs import needs, needs_root, program
from tests.support.registry import ALICE, WRONG, Keys
from tests.support.stage import AUTH_HOST, OPEN_HOST, TOKEN_HOST, EndToEndTestCase

SITE = "site.example.test"
LOOP = "loop.example.test"
INSIDE = "inside.example.test"


class SeeingSkopeo(Skopeo):
    """skopeo without a proxy, and with a hosts file of its own."""

    def __init__(self, directory: Path, ca_file: Path, names: dict[str, str]) -> None:
        super().__init__(directory, "", ca_file)
        self._seeing = seeing(directory / "hosts", names)

    def skopeo(self, *arguments: str) -> Result:
        command = [program("skopeo"), "--policy", str(self._policy), *arguments]
        return run(*self._seeing, *command, env=self.env)


class DirectTestCase(EndToEndTestCase):
    """A proxy at ports 443 and 80 of an address of its own."""

    def start(self, names: dict[str, str], **tls: bool) -> None:
        """Start it; it sees *names* at these addresses."""
        self.address = loopback_address()
        # The registry's own port, too, is what clients of that one connect to.
        ports = 443, int(OPEN_HOST.partition(":")[2])
        tables = self.stage.registries() | {
            "tls": {
                "listen": [f"tcp:{port}:interface={self.address}" for port in ports],
                "http_listen": [f"tcp:80:interface={self.address}"],
                **tls,
            },
            # Of all private addresses, this is where the tests' own site is.
            "relay": {"allow": ["127.0.0.0/8"]},
        }
        self.directory = self.new_directory()
        self.proxy = SeeingProxy(self.directory, tables, names | {LOOP: self.address})
        self.addCleanup(self.proxy.process.stop)
        self.watch(self.proxy.process)

    def curl(self, url: str, ca_file: Path, *options: str) -> Result:
        """GET *url* with the proxy's address for its name, whatever it is."""
        arguments = ["--silent", "--show-error", "--include", "--cacert", str(ca_file)]
        connect = ["--connect-to", f"::{self.address}:"]
        return run(
            *(program("curl"), *arguments, *connect, *options, url),
            env=environment(HOME=self.directory),
        )


@needs_root
@needs("docker-registry", "htpasswd", "skopeo", "curl")
class HostsFileTests(DirectTestCase):
    """What is intercepted."""

    def setUp(self) -> None:
        super().setUp()
        self.start({})
        names = dict.fromkeys([TOKEN_HOST, AUTH_HOST, OPEN_HOST.partition(":")[0]], self.address)
        self.skopeo = SeeingSkopeo(self.directory / "skopeo", self.proxy.ca_file, names)

    def check_pulled_twice(self, host: str) -> None:
        """Cold, then warm."""
        repository = self.repository()
        image = self.publish(host, repository)
        reference = f"{host}/{repository}:latest"
        for round_name in ("cold", "warm"):
            recording = self.stage.upstreams[host].record()
            self.skopeo.pull(reference).check()
            self.assertEqual(self.skopeo.image_id(reference), image.image_id)
            self.skopeo.clear()
            blobs = Counter(blob.digest for blob in image.blobs)
            expected = blobs if round_name == "cold" else Counter()
            traffic = recording.traffic()
            self.assertEqual(traffic.gets("blobs"), expected, f"{round_name}\n{traffic}")

    def test_pull(self) -> None:
        """Tokens, manifests and layers, all by way of the names; the log says which way."""
        self.check_pulled_twice(TOKEN_HOST)
        records = self.proxy.access_log()
        self.assertEqual({each["way"] for each in records if each["registry"]}, {"tls"})
        self.assertLessEqual({TOKEN_HOST, AUTH_HOST}, {each["registry"] for each in records})

    def test_pull_at_another_port(self) -> None:
        """The registry's port is in the request, the certificate is for its name."""
        self.check_pulled_twice(OPEN_HOST)

    def test_private(self) -> None:
        """Logins work as ever."""
        repository = self.repository("private")
        self.publish(TOKEN_HOST, repository)
        reference = f"{TOKEN_HOST}/{repository}:latest"
        self.skopeo.pull(reference, ALICE).check()
        self.skopeo.clear()
        self.assertNotEqual(self.skopeo.pull(reference, WRONG).code, 0)
        self.assertNotEqual(self.skopeo.pull(reference).code, 0)

    def test_not_intercepted(self) -> None:
        """curl is told by the alert (its code 35), people by the log."""
        start = self.proxy.process.log.stat().st_size
        result = self.curl(f"https://{SITE}/", self.proxy.ca_file)
        self.assertEqual(result.code, 35, str(result))
        self.assertIn("unrecognized name", result.output)
        (record,) = self.proxy.access_log(start)
        self.assertEqual((record["way"], record["registry"]), ("tls", SITE))
        self.assertIn("not a registry", record["reason"])

    def test_no_name(self) -> None:
        """Who connects to an address names nobody."""
        result = self.curl(f"https://{self.address}/", self.proxy.ca_file)
        self.assertEqual(result.code, 35, str(result))

    def test_plain_http(self) -> None:
        """curl is sent on, and arrives."""
        output = self.curl(f"http://{TOKEN_HOST}/v2/", self.proxy.ca_file, "--location").check()
        first, second = output.split("HTTP/1.1 ")[1:]
        self.assertTrue(first.startswith("308 "), output)
        self.assertIn(f"Location: https://{TOKEN_HOST}/v2/", first)
        self.assertTrue(second.startswith("401 "), output)
        self.assertIn("403 Forbidden", self.curl(f"http://{SITE}/", self.proxy.ca_file).output)


@needs_root
@needs("docker-registry", "htpasswd", "curl", "openssl")
class PassthroughTests(DirectTestCase):
    """Names that are other servers' to serve."""

    def setUp(self) -> None:
        super().setUp()
        site = loopback_address()
        self.start({SITE: site, INSIDE: "10.255.255.1"}, passthrough=True)
        self.keys = Keys.make(self.directory, SITE)
        arguments = [
            *(program("openssl"), "s_server", "-quiet", "-www", "-accept", f"{site}:443"),
            *("-cert", str(self.keys.certificate), "-key", str(self.keys.key)),
        ]
        log = self.directory / "site.log"
        server = Process("site", arguments, log=log, env=environment())
        self.addCleanup(server.stop)
        self.watch(server)
        server.wait_until(lambda: listens(443, site))

    def test_untouched(self) -> None:
        """curl sees the site's own certificate, and its own answer."""
        start = self.proxy.process.log.stat().st_size
        self.assertIn("200 ok", self.curl(f"https://{SITE}/", self.keys.ca).check())
        wait = self.proxy.process.wait_until
        wait(lambda: any(each["cache"] == "tunnel" for each in self.proxy.access_log(start)))
        record = self.proxy.access_log(start)[-1]
        self.assertEqual((record["way"], record["registry"]), ("tls", SITE))
        # Not the proxy's: curl's code 60.
        self.assertEqual(self.curl(f"https://{SITE}/", self.proxy.ca_file).code, 60)

    def test_guarded(self) -> None:
        """Private addresses stay closed."""
        start = self.proxy.process.log.stat().st_size
        result = self.curl(f"https://{INSIDE}/", self.keys.ca)
        self.assertIn("access denied", result.output)
        (record,) = self.proxy.access_log(start)
        self.assertEqual(record["status"], 403)
        self.assertIn("10.255.255.1 is a private address", record["reason"])

    def test_loop(self) -> None:
        """A name that leads back to the proxy is not passed on, let alone for ever."""
        start = self.proxy.process.log.stat().st_size
        result = self.curl(f"https://{LOOP}/", self.keys.ca)
        self.assertEqual(result.code, 35, str(result))
        wait = self.proxy.process.wait_until
        wait(lambda: len(self.proxy.access_log(start)) > 0)
        (refused,) = self.proxy.access_log(start)
        self.assertEqual((refused["registry"], refused["status"]), (LOOP, 403))
        self.assertIn("is this proxy itself", refused["reason"])

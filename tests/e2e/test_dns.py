"""Clients that know of no proxy: the name server of their network leads them to it."""

from __future__ import annotations

import atexit
import itertools
import os
import re
import socket
import uuid
from collections import Counter
from contextlib import ExitStack
from functools import lru_cache
from typing import Final

from regproxy.dns.message import HEADER_SIZE, UDP_SIZE, Query, Question, Type
from tests.support import images
from tests.support.clients import Docker
from tests.support.dig import Dig, dig
from tests.support.dnsmasq import Dnsmasq
from tests.support.namespaces import Namespace
from tests.support.proc import cpu, memory, open_files
from tests.support.process import free_port
from tests.support.programs import needs, needs_root
from tests.support.proxy import Proxy, Value
from tests.support.stage import AUTH_HOST, OPEN_HOST, TOKEN_HOST, EndToEndTestCase, Stage, stage

PROGRAMS: Final = ("docker-registry", "htpasswd", "dig", "dnsmasq", "ip", "nsenter", "unshare")
#: What the site's name server knows, besides what leads to nowhere.
PLAIN: Final = "plain.example.test"
MANY: Final = "many.example.test"
ADDRESSES: Final = [f"10.9.8.{n}" for n in range(1, 91)]


class Site:
    """A node that knows no proxy, the appliance at the other end of its cable, a name server."""

    def __init__(self, played: Stage) -> None:
        directory = played.subdirectory("site")
        (directory / "proxy").mkdir(exist_ok=True)
        self._stack = ExitStack()
        try:
            self.node = Namespace(directory / "node")
            self._stack.callback(self.node.close)
            self.names = Dnsmasq(
                directory / "names",
                f"host-record={PLAIN},192.0.2.7,2001:db8::7",
                *(f"host-record={MANY},{address}" for address in ADDRESSES),
                # All that leads to registries, so that a leak is seen.
                "address=/example.test/192.0.2.66",
                "local-ttl=60",
            )
            self._stack.callback(self.names.process.stop)
            self.address = self.node.gateway
            self.v6 = f"[::1]:{free_port()}"
            tables: dict[str, dict[str, Value]] = {
                "tls": {"listen": [f"tcp:443:interface={self.address}"]},
                "dns": {
                    "listen": [self.address, self.v6],
                    "addresses": [self.address],
                    "forward_to": [self.names.server],
                },
            }
            self.proxy = Proxy(directory / "proxy", tables | played.registries())
            self._stack.callback(self.proxy.process.stop)
        except BaseException:
            self._stack.close()
            raise
        atexit.register(self._stack.close)


@lru_cache
def site() -> Site:
    """The site of this run."""
    return Site(stage())


def flood(server: str, count: int) -> None:
    """Ask *count* questions, of which a share is new each time, and see each of them answered."""
    names = itertools.cycle((TOKEN_HOST, PLAIN, None, None))
    waiting: dict[int, bytes] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((server, 53))
        datagrams.settimeout(30)
        for number in range(count):
            name = next(names) or f"{uuid.uuid4().hex}.example.test"
            query = Query(Question.about(name, Type.A), number & 0xFFFF)
            waiting[query.id] = query.question.name
            datagrams.send(query.encoded())
            # As many at a time as the kernel keeps for a busy server.
            while len(waiting) >= (64 if number < count - 1 else 1):
                answer = datagrams.recv(UDP_SIZE)
                name_asked = waiting.pop(int.from_bytes(answer[:2]))
                assert answer[HEADER_SIZE:].startswith(name_asked), answer
                # No error, and one address.
                assert (answer[3] & 15, answer[7]) == (0, 1), answer


class NodeTestCase(EndToEndTestCase):
    """A test at the site."""

    def setUp(self) -> None:
        super().setUp()
        self.site = site()
        for process in self.site.proxy.process, self.site.names.process:
            self.watch(process)
        self.start = self.site.names.process.log.stat().st_size

    def asked(self) -> list[str]:
        """The names that the site's name server was asked for since the test began."""
        return self.site.names.asked(self.start)

    def new_proxy(self, tables: dict[str, dict[str, Value]]) -> Proxy:
        """A proxy of this test, before the registries of the stage."""
        proxy = Proxy(self.new_directory(), tables | self.stage.registries())
        self.addCleanup(proxy.process.stop)
        self.watch(proxy.process)
        return proxy


@needs(*PROGRAMS)
@needs_root
class NameServerTests(NodeTestCase):
    """What programs that ask name servers see."""

    def dig(self, *arguments: str) -> Dig:
        """What dig gets at the node."""
        return dig(self.site.address, *arguments, runner=self.site.node.run)

    def getent(self, *arguments: str) -> list[list[str]]:
        """What glibc's resolver gets at the node."""
        output = self.site.node.run("getent", *arguments).output
        return [line.split() for line in output.splitlines()]

    def test_leads_here(self) -> None:
        """IPv4 addresses, and no others; nobody else is asked."""
        for options in ((), ("+tcp",), ("+noedns",), ("+norecurse",), ("+bufsize=512",)):
            found = self.dig(TOKEN_HOST, *options)
            self.assertEqual(found.status, "NOERROR", found.output)
            record = [f"{TOKEN_HOST}.", "60", "IN", "A", self.site.address]
            self.assertEqual(found.answers, [record])
            self.assertLessEqual({"qr", "aa", "ra"}, found.flags)
            self.assertEqual(found.edns is None, "+noedns" in options)
        for type in ("AAAA", "HTTPS", "SVCB", "TXT", "NS", "ANY", "TYPE65280"):
            found = self.dig(TOKEN_HOST, "-t", type)
            self.assertEqual((found.status, found.answers), ("NOERROR", []), found.output)
            (soa,) = found.authorities
            self.assertEqual(soa[:4], [f"{TOKEN_HOST}.", "60", "IN", "SOA"])
        self.assertEqual(self.asked(), [])

    def test_ipv6(self) -> None:
        for options in ((), ("+tcp",)):
            found = dig(self.site.v6, TOKEN_HOST, *options)
            self.assertEqual(found.data, [self.site.address])

    def test_ports(self) -> None:
        """A registry at a port of its own is not led here by its name."""
        found = self.dig(OPEN_HOST.partition(":")[0])
        self.assertEqual(found.data, ["192.0.2.66"])

    def test_spelling(self) -> None:
        """The asker's, which some choose at random and check; and one answer for all of them."""
        for name in (TOKEN_HOST.upper(), "ReGiStRy.eXaMpLe.TeSt", "PlAiN.example.TEST", PLAIN):
            found = self.dig(name)
            self.assertEqual(found.answers[0][0], f"{name}.")
        self.assertLessEqual(len(self.asked()), 1)

    def test_forwarded(self) -> None:
        """Other names, whatever there is or is not; once within their time."""
        for _ in range(2):
            found = self.dig(PLAIN, "AAAA")
            self.assertEqual(found.data, ["2001:db8::7"])
            self.assertNotIn("aa", found.flags)
            self.assertLessEqual(int(found.answers[0][1]), 60)
        self.assertEqual(self.asked(), [PLAIN])
        self.assertEqual(self.dig("nowhere.invalid").status, "REFUSED")

    def test_large(self) -> None:
        """What does not fit comes over TCP, in full."""
        found = self.dig(MANY, "+ignore")
        self.assertIn("tc", found.flags)
        self.assertLess(found.size, 512)
        for options in ((), ("+noedns",), ("+bufsize=4096",), ("+tcp",)):
            found = self.dig(MANY, *options)
            self.assertEqual(sorted(found.data), sorted(ADDRESSES))
            self.assertGreater(found.size, 1232)

    def test_unusual(self) -> None:
        """Versions, operations, classes and types that there are not, and transfers."""
        self.assertEqual(self.dig(TOKEN_HOST, "+edns=1", "+noednsnegotiation").status, "BADVERS")
        self.assertEqual(self.dig(TOKEN_HOST, "+opcode=status").status, "NOTIMP")
        self.assertEqual(self.dig("version.bind", "txt", "chaos").status, "REFUSED")
        self.assertIn("Transfer failed", self.dig(TOKEN_HOST, "axfr").output)
        self.assertEqual(self.dig(PLAIN, "+norecurse", "+tcp").status, "REFUSED")
        self.assertEqual(self.dig(TOKEN_HOST, "+header-only").status, "FORMERR")
        self.assertEqual(self.dig(TOKEN_HOST, "+cookie=0123456789abcdef").status, "NOERROR")

    def test_libc(self) -> None:
        """glibc's resolver, which sends no EDNS and changes to TCP by itself."""
        found = self.getent("ahostsv4", TOKEN_HOST)
        self.assertEqual({line[0] for line in found}, {self.site.address})
        self.assertEqual(self.getent("ahostsv6", PLAIN)[0][0], "2001:db8::7")
        found = self.getent("ahostsv4", MANY)
        self.assertEqual({line[0] for line in found}, set(ADDRESSES))
        self.assertEqual(self.getent("ahosts", "nowhere.invalid"), [])

    def test_garbage(self) -> None:
        """Messages that are none are answered shortly or not at all, and then all goes on."""
        head = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        loop = head + b"\xc0\x0c\x00\x01\x00\x01"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect((self.site.address, 53))
            datagrams.settimeout(10)
            for message in (b"", b"x", head[:11], os.urandom(4000)):
                datagrams.send(message)
            for message in (head, loop, loop[:-1], head + b"\x3f" * 600, head + b"\xff" * 60000):
                datagrams.send(message)
                # The random one may have been a query.
                while (answer := datagrams.recv(512))[:2] != b"\x12\x34":
                    pass
                self.assertEqual((answer[3] & 15, len(answer)), (1, 12))
        for message in (b"\xff\xff" + loop, b"\0\1", b"\0\0\0\0" + b"\0\x12" + loop):
            with socket.create_connection((self.site.address, 53), timeout=30) as stream:
                stream.sendall(message)
                stream.shutdown(socket.SHUT_WR)
                while stream.recv(512):
                    pass
        self.assertEqual(self.dig(TOKEN_HOST).data, [self.site.address])

    def test_behind_another(self) -> None:
        """Another name server forwards just these names here, as CoreDNS can."""
        server = f"127.0.0.1:{free_port()}"
        tables: dict[str, dict[str, Value]] = {
            "dns": {"listen": [server], "addresses": ["10.9.9.9"], "authoritative": True}
        }
        proxy = self.new_proxy(tables)
        forwarding = Dnsmasq(
            self.new_directory(),
            *(f"server=/{name}/{server.replace(':', '#')}" for name in (TOKEN_HOST, AUTH_HOST)),
            f"host-record={PLAIN},192.0.2.7",
        )
        self.addCleanup(forwarding.process.stop)
        self.assertEqual(dig(forwarding.server, TOKEN_HOST).data, ["10.9.9.9"])
        for type in "AAAA", "HTTPS":
            found = dig(forwarding.server, TOKEN_HOST, type)
            self.assertEqual((found.status, found.answers), ("NOERROR", []))
        self.assertEqual(dig(forwarding.server, PLAIN).data, ["192.0.2.7"])
        found = dig(server, PLAIN)
        self.assertEqual(found.status, "REFUSED")
        self.assertNotIn("ra", found.flags)
        # Kept there as long as they say; that there is nothing, too.
        proxy.process.stop()
        self.assertEqual(dig(forwarding.server, TOKEN_HOST).data, ["10.9.9.9"])
        self.assertEqual(dig(forwarding.server, TOKEN_HOST, "AAAA").status, "NOERROR")

    def test_strangers(self) -> None:
        """A reload that takes the node from the clients has it refused from then on."""
        server = f"{self.site.address}:{free_port()}"
        tables: dict[str, dict[str, Value]] = {
            "dns": {"listen": [server], "addresses": ["10.9.9.9"], "authoritative": True}
        }
        proxy = self.new_proxy(tables)

        def status() -> str | None:
            return dig(server, TOKEN_HOST, runner=self.site.node.run).status

        self.assertEqual(status(), "NOERROR")
        tables["dns"]["clients"] = ["192.168.0.0/16"]
        proxy.configure(tables | self.stage.registries())
        proxy.process.hang_up()
        proxy.process.wait_until(lambda: "was reloaded" in proxy.process.read_log())
        self.assertEqual(status(), "REFUSED")

    def test_thousands(self) -> None:
        """Many queries, of names that are led here, known, and new each time: nothing grows."""
        process = self.site.proxy.process

        def ask(count: int) -> tuple[float, int, int]:
            """Have them answered: processor time, memory and open files of the proxy."""
            begun = cpu(process.pid)
            flood(self.site.address, count)
            return cpu(process.pid) - begun, memory(process.pid), open_files(process.pid)

        # Until what is kept fills its room.
        ask(24_000)
        _, memory_before, files_before = ask(1_000)
        seconds, memory_after, files_after = ask(12_000)
        self.assertLess(memory_after - memory_before, 2 << 20)
        self.assertEqual(files_after, files_before)
        # One processor can do a thousand in a second.
        self.assertLess(seconds / 12_000, 0.001)


@needs(*PROGRAMS, *Docker.programs)
@needs_root
class PullTests(NodeTestCase):
    """dockerd at a node that knows nothing but the name server and the CA."""

    def test_docker(self) -> None:
        """Cold and warm, and whatever it asked the name server led to the proxy."""
        docker = Docker(
            self.new_directory(), None, self.site.proxy.ca_file, within=self.site.node.entering()
        )
        self.addCleanup(docker.close)
        for process in docker.processes:
            self.watch(process)
        self.assertEqual([name for name in docker.env if "proxy" in name.lower()], [])
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository, images.image(layers=3))
        reference = f"{TOKEN_HOST}/{repository}:latest"
        for expected in Counter(blob.digest for blob in image.blobs), Counter[str]():
            recording = self.stage.token_registry.record()
            docker.pull(reference).check()
            self.assertEqual(docker.image_id(reference), image.image_id)
            docker.clear()
            traffic = recording.traffic()
            self.assertEqual(traffic.gets("blobs"), expected, f"in\n{traffic}")
        self.assertFalse({TOKEN_HOST, AUTH_HOST} & set(self.asked()))


class LedProxy(Proxy):
    """A proxy whose system leads it astray: ``names`` is its ``/etc/hosts``."""

    def arguments(self) -> list[str]:
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        names = str(self.directory / "names")
        return ["unshare", "--mount", "sh", "-c", script, names, *super().arguments()]


@needs(*PROGRAMS)
@needs_root
class OwnLookUpTests(NodeTestCase):
    """The proxy's own look-ups."""

    def test_loop(self) -> None:
        """One that leads back is told of and refused; with name servers of its own all is well."""
        registry = self.stage.open_registry
        directory = self.new_directory()
        (directory / "names").write_text("127.0.0.2 registry.loop.test\n")
        names = Dnsmasq(self.new_directory(), "host-record=registry.loop.test,127.0.0.1")
        self.addCleanup(names.process.stop)
        tables: dict[str, dict[str, Value]] = {
            "tls": {"listen": [f"tcp:{registry.port}:interface=127.0.0.2"]},
            'registries."registry.loop.test"': {
                "upstream": [f"https://registry.loop.test:{registry.port}"],
                "relay_private": True,
                "insecure": True,
            },
        }
        proxy = LedProxy(directory, tables)
        self.addCleanup(proxy.process.stop)
        self.watch(proxy.process)
        told = "registry.loop.test:[0-9]+ leads back to this proxy: .* gives 127.0.0.2"
        proxy.process.wait_until(lambda: bool(re.search(told, proxy.process.read_log())))
        answer = proxy.fetch("registry.loop.test", "/v2/")
        self.assertEqual(answer.status, 403)
        self.assertIn(b"127.0.0.2 is this proxy itself", answer.body)

        proxy.configure(tables | {"dns": {"upstream_resolvers": [names.server]}})
        log = len(proxy.process.read_log())
        proxy.process.hang_up()
        proxy.process.wait_until(lambda: "was reloaded" in proxy.process.read_log(log))
        answer = proxy.fetch("registry.loop.test", "/v2/")
        self.assertEqual((answer.status, answer.body), (200, b"{}"))
        self.assertIn("registry.loop.test", names.asked())
        self.assertNotRegex(proxy.process.read_log(log), told)

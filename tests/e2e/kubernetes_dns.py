"""The snippet for CoreDNS in the real CoreDNS: ``make e2e-kubernetes``."""

from __future__ import annotations

import atexit
from functools import lru_cache
from pathlib import Path
from typing import Final

from tests.support.dig import dig
from tests.support.dnsmasq import Dnsmasq
from tests.support.manifests import DEPLOY
from tests.support.process import Process, environment, free_port
from tests.support.programs import needs, program
from tests.support.proxy import Proxy
from tests.support.stage import EndToEndTestCase

SNIPPET: Final = DEPLOY / "kubernetes/coredns/regproxy.conf"
#: What the snippet has for the address of the Service.
SERVICE: Final = "10.0.0.5"
ADDRESS: Final = "127.0.0.1"
PLAIN: Final = "plain.example.test"


class CoreDNS:
    """A running CoreDNS with the snippet, as a cluster has it beside its own zone."""

    def __init__(self, directory: Path, proxy: str, others: str) -> None:
        directory.mkdir()
        self.port = free_port()
        self.server = f"{ADDRESS}:{self.port}"
        text = SNIPPET.read_text()
        assert text.count(SERVICE) == 1
        cluster = f".:{self.port} {{\n  errors\n  forward . {others}\n}}\n"
        # Names without a port are at that of the command line.
        (directory / "Corefile").write_text(text.replace(SERVICE, proxy) + cluster)
        line = [program("coredns"), "-conf", str(directory / "Corefile")]
        self.process = Process(
            "coredns",
            [*line, f"-dns.port={self.port}"],
            log=directory / "log",
            env=environment(),
        )
        try:
            self.process.wait_until(lambda: dig(self.server, "version.test").status is not None)
        except BaseException:
            self.process.stop()
            raise


@lru_cache
def names(directory: Path) -> Dnsmasq:
    """The name server of the site."""
    found = Dnsmasq(directory, f"host-record={PLAIN},192.0.2.7", "address=/ghcr.io/192.0.2.66")
    atexit.register(found.process.stop)
    return found


@needs("coredns", "dig", "dnsmasq", "docker-registry", "htpasswd")
class SnippetTests(EndToEndTestCase):
    def test_names(self) -> None:
        """All names of the snippet lead to the proxy, and no others."""
        site = names(self.new_directory() / "names")
        self.watch(site.process)
        listen = f"{ADDRESS}:{free_port()}"
        proxy = Proxy(
            self.new_directory(),
            {
                "tls": {"listen": [f"tcp:{free_port()}:interface={ADDRESS}"]},
                "dns": {"listen": [listen], "addresses": ["192.0.2.5"], "authoritative": True},
            },
        )
        self.addCleanup(proxy.process.stop)
        self.watch(proxy.process)
        coredns = CoreDNS(self.new_directory() / "coredns", listen, site.server)
        self.addCleanup(coredns.process.stop)
        self.watch(coredns.process)
        (line,) = (line for line in SNIPPET.read_text().splitlines() if line.endswith("{"))
        registries = line.split()[:-1]
        self.assertIn("ghcr.io", registries)
        for name in registries:
            self.assertEqual(dig(coredns.server, name).data, ["192.0.2.5"], name)
            self.assertEqual(dig(coredns.server, name, "AAAA").data, [], name)
        self.assertEqual(dig(coredns.server, "ghcr.io", "+tcp").data, ["192.0.2.5"])
        self.assertEqual(dig(coredns.server, PLAIN).data, ["192.0.2.7"])
        self.assertNotIn("ghcr.io", site.asked())

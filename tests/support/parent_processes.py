"""Real parent proxies: squid and microsocks, with names that only they know."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from tests.support.clients import short_directory
from tests.support.process import Process, environment, free_port, listens, run
from tests.support.programs import program
from tests.support.registry import ALICE, Keys

#: What a parent with a login wants.
LOGIN: Final = ALICE


class ParentProcess(ABC):
    """A parent proxy that listens at *address* and knows *names*.

    Attributes:
        address, port: where it listens.
    """

    programs: ClassVar[tuple[str, ...]]
    scheme: str

    def __init__(
        self,
        address: str,
        names: Mapping[str, str],
        *,
        login: bool = False,
        keys: Keys | None = None,
    ) -> None:
        """Start it; with *keys* it speaks TLS."""
        # squid becomes another user, who must be able to get there.
        self.directory = short_directory()
        self.directory.chmod(0o755)
        self.address, self.port = address, free_port()
        hosts = "".join(f"{where} {name}\n" for name, where in names.items())
        self.hosts = self._write("hosts", hosts)
        self.process = Process(
            type(self).__name__.lower(),
            self.arguments(login, keys),
            log=self.directory / "log",
            env=environment(),
        )
        try:
            self.process.wait_until(lambda: listens(self.port, address))
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """For the configuration."""
        return f"{self.scheme}://{self.address}:{self.port}"

    def close(self) -> None:
        """Stop it."""
        self.process.stop()
        shutil.rmtree(self.directory)

    @abstractmethod
    def arguments(self, login: bool, keys: Keys | None) -> list[str]:
        """The command line."""

    def _write(self, name: str, content: str | bytes) -> Path:
        file = self.directory / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file


class Squid(ParentProcess):
    """squid, an HTTP proxy."""

    programs = ("squid", "htpasswd")
    scheme = "http"

    def arguments(self, login: bool, keys: Keys | None) -> list[str]:
        logs = self.directory / "logs"
        logs.mkdir()
        shutil.chown(logs, "proxy")
        where = f"{self.address}:{self.port}"
        port = f"http_port {where}"
        if keys is not None:
            self.scheme = "https"
            certificate = self._write("cert.pem", keys.certificate.read_bytes())
            key = self._write("key.pem", keys.key.read_bytes())
            port = f"https_port {where} tls-cert={certificate} tls-key={key}"
        lines = [
            port,
            f"hosts_file {self.hosts}",
            f"pid_filename {logs}/pid",
            f"cache_log {logs}/cache.log",
            f"access_log stdio:{logs}/access.log",
            "visible_hostname parent.example.test",
            "cache deny all",
            "netdb_filename none",
            "shutdown_lifetime 0 seconds",
            # It keeps lines back otherwise.
            "buffered_logs off",
        ]
        if login:
            entry = run(
                *(program("htpasswd"), "-nbm", LOGIN.user, LOGIN.password), env=environment()
            ).check()
            users = self._write("users", entry)
            lines += [
                f"auth_param basic program /usr/lib/squid/basic_ncsa_auth {users}",
                "acl known proxy_auth REQUIRED",
                "http_access allow known",
                "http_access deny all",
            ]
        else:
            lines.append("http_access allow all")
        config = self._write("squid.conf", "\n".join(lines) + "\n")
        return [program("squid"), "-N", "-f", str(config)]

    def visited(self) -> list[str]:
        """The ``host:port`` of each CONNECT that it let through and that is over, in order."""
        lines = (self.directory / "logs/access.log").read_text().splitlines()
        fields = [line.split() for line in lines]
        return [each[6] for each in fields if each[3].endswith("/200") and each[5] == "CONNECT"]


class Microsocks(ParentProcess):
    """microsocks, a SOCKS5 server."""

    programs = ("microsocks", "unshare")
    # It is to resolve names.
    scheme = "socks5h"

    def arguments(self, login: bool, keys: Keys | None) -> list[str]:
        assert keys is None, "it speaks no TLS"
        # Names are looked up as the system does.
        script = f'mount --bind {self.hosts} /etc/hosts && exec "$@"'
        enter = [program("unshare"), "--mount", "sh", "-c", script, "sh"]
        user = ["-u", LOGIN.user, "-P", LOGIN.password] if login else []
        where = ["-i", self.address, "-p", str(self.port)]
        return [*enter, program("microsocks"), *where, *user]

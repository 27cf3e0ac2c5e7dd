"""regproxy itself as a process."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from tests.support.process import Process, environment, free_port
from tests.support.programs import twistd
from tests.support.registry import Keys

ADDRESS: Final = "127.0.0.1"

Value = str | bool | int | list[str]
Tables = Mapping[str, Mapping[str, Value]]


def toml(data: Path, tables: Tables) -> str:
    """A configuration file: *data*, then the *tables* by their full TOML names.

    JSON's strings, booleans, numbers and arrays are TOML's.
    """
    lines = [f"data = {json.dumps(str(data))}"]
    for name, values in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def command(config: Path) -> list[str]:
    """The command line that runs the proxy in the foreground."""
    return [twistd(), "--nodaemon", "--pidfile=", "regproxy", "--config", str(config)]


@frozen
class Answer:
    """A whole HTTP response."""

    status: int
    headers: Message
    body: bytes


class Proxy:
    """A running regproxy with a ``[proxy]`` listener on the loopback interface.

    ``ca_file`` is its CA as its clients got it, by HTTP from the proxy's own port.
    """

    def __init__(self, directory: Path, tables: Tables) -> None:
        """Start it with its data below *directory*, which another may have used before."""
        self.directory = directory
        self.data = directory / "data"
        self.config = directory / "regproxy.toml"
        self.ca_file = directory / "proxy-ca.pem"
        #: Of its ``[proxy]`` listener.
        self.port = free_port()
        self.configure(tables)
        self.start()

    @property
    def url(self) -> str:
        """What HTTPS_PROXY is set to."""
        return f"http://{ADDRESS}:{self.port}"

    def configure(self, tables: Tables) -> None:
        """Write the file anew. The running process does not look at it by itself.

        In ``[proxy]`` an endpoint of its own is added, the first.
        """
        proxy = dict(tables.get("proxy", {}))
        more = proxy.get("listen", [])
        assert isinstance(more, list)
        proxy["listen"] = [f"tcp:{self.port}:interface={ADDRESS}", *more]
        listeners: dict[str, Mapping[str, Value]] = {"management": {"listen": []}}
        self.config.write_text(toml(self.data, listeners | dict(tables) | {"proxy": proxy}))

    def arguments(self) -> list[str]:
        """The command line of the process."""
        return command(self.config)

    def start(self) -> None:
        """Start a new process, on the same port and the same data."""
        log = self.directory / "regproxy.log"
        self.process = Process("regproxy", self.arguments(), log=log, env=environment())
        try:
            self.process.wait_until(lambda: self.get("/healthz") == b"ok\n")
            self.ca_file.write_bytes(self.get("/ca.crt") or b"")
        except BaseException:
            self.process.stop()
            raise

    def fetch(
        self, host: str, target: str, *, method: str = "GET", headers: Mapping[str, str] = {}
    ) -> Answer:
        """Ask the registry *host* for *target*, as a client does: CONNECT, TLS, one request."""
        name, _, port = host.partition(":")
        context = ssl.create_default_context(cafile=str(self.ca_file))
        connection = http.client.HTTPSConnection(ADDRESS, self.port, timeout=30, context=context)
        connection.set_tunnel(name, int(port or 443))
        connection.request(method, target, headers=dict(headers))
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def exchange(self, sent: bytes) -> Answer | None:
        """What the proxy's port answers to raw bytes; None when it hangs up instead."""
        with socket.create_connection((ADDRESS, self.port), timeout=30) as connection:
            try:
                connection.sendall(sent)
                response = http.client.HTTPResponse(connection)
                response.begin()
                return Answer(response.status, response.headers, response.read())
            except ConnectionError:
                return None

    def access_log(self, start: int = 0) -> list[dict[str, Any]]:
        """What its access log has from byte *start* of its output on, line by line."""
        lines = re.findall(r"\{\"time\".*\}", self.process.read_log(start))
        return [json.loads(line) for line in lines]

    def get(self, path: str) -> bytes | None:
        """What the proxy's port itself answers to a browser; None when it does not answer."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.url + path, timeout=10) as response:
                return bytes(response.read())
        except OSError:
            return None


class Mirror(Proxy):
    """A running regproxy with a ``[mirror]`` listener, too, and one more with TLS.

    Attributes:
        authority: where the plain one is: the name of this registry for clients.
        secure_authority: where the other one is, with the certificate of *keys*.
    """

    def __init__(self, directory: Path, tables: Tables, keys: Keys) -> None:
        plain, secure = free_port(), free_port()
        self.authority = f"{ADDRESS}:{plain}"
        self.secure_authority = f"{ADDRESS}:{secure}"
        listen = [
            f"tcp:{plain}:interface={ADDRESS}",
            f"ssl:{secure}:interface={ADDRESS}:privateKey={keys.key}:certKey={keys.certificate}",
        ]
        super().__init__(directory, {"mirror": {"listen": listen}, **tables})

"""The appliance's image: built by dockerd, run by it with a bridge, in a network of its own."""

from __future__ import annotations

import http.client
import json
import shlex
import shutil
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.support.clients import Docker
from tests.support.namespaces import Namespace
from tests.support.process import Process, Result, environment, run
from tests.support.programs import program, twistd
from tests.support.proxy import Answer
from tests.support.registry import Server

ROOT: Final = Path(__file__).resolve().parent.parent.parent
#: ``make e2e-image`` puts there what the build needs.
MATERIAL: Final = ROOT / "run/e2e-image"
#: Below 1024: for what it is not, no port is open in the namespace.
PORT: Final = 3128
#: The image's user.
USER: Final = 65532

# Of the private networks one that is hardly in use anywhere.
_BRIDGE: Final = "10.230.0.1"
# Seconds. On a busy machine pip takes half of it.
_BUILD_TIMEOUT: Final = 300.0
_SOURCES: Final = (
    *(".dockerignore", "LICENSE", "README.md", "pyproject.toml", "setup.cfg"),
    *("docker", "regproxy", "twisted"),
)


class Host:
    """A machine with dockerd, which publishes the ports of its containers.

    Containers reach the *upstream* at :attr:`bridge`, by its own port; there is no other way out.

    Attributes:
        address: where the published ports are.
        bridge: the machine's address for its containers, a private one.
    """

    bridge = _BRIDGE

    def __init__(self, directory: Path, upstream: Server) -> None:
        self._directory = directory
        self._stack = ExitStack()
        try:
            namespace = Namespace(directory / "namespace")
            self._stack.callback(namespace.close)
            self.address = namespace.address
            port = upstream.port
            self._forward("outside", [], namespace.gateway, port, "127.0.0.1")
            within = namespace.entering()
            # runc wants it for programs that are to run in a container that runs already.
            (directory / "docker/home/runtime").mkdir(parents=True)
            self.daemon = Docker(
                directory / "docker", None, upstream.keys.ca, within=within, bridge=f"{_BRIDGE}/24"
            )
            self._stack.callback(self.daemon.close)
            self._forward("inside", within, _BRIDGE, port, namespace.gateway)
        except BaseException:
            self.close()
            raise

    def _forward(self, name: str, within: list[str], here: str, port: int, there: str) -> None:
        """Pass connections to *here* on to *there*, at the same port."""
        directory = self._directory / name
        directory.mkdir()
        endpoint = f"tcp:{port}:interface={here}"
        arguments = [twistd(), "--nodaemon", "--pidfile=", "portforward", "--port", endpoint]
        arguments += ["--host", there, "--dest_port", str(port)]
        log = directory / "portforward.log"
        process = Process("portforward", [*within, *arguments], log=log, env=environment())
        self._stack.callback(process.stop)
        process.wait_until(lambda: "starting on" in process.read_log())

    def close(self) -> None:
        """Stop everything."""
        self._stack.close()

    def build(self, target: str) -> str:
        """Build the image called *target*, without network; its name."""
        if self.docker("image", "inspect", "base").code:
            self.docker("import", str(MATERIAL / "base.tar"), "base").check()
        context = self._directory / "context"
        if not context.exists():
            context.mkdir()
            for name in _SOURCES:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, context / name)
            for wheel in (MATERIAL / "wheels").iterdir():
                shutil.copy(wheel, context / "docker/wheels")
        tag = f"regproxy:{target}"
        self.docker(
            *("build", "--network=none", "--build-arg=BASE=base", "--build-arg=PIP_NO_INDEX=1"),
            *("--build-arg=REVISION=0123abc", "--target", target, "--tag", tag),
            *("--file", str(context / "docker/Dockerfile"), str(context)),
            timeout=_BUILD_TIMEOUT,
        ).check()
        return tag

    def docker(self, *arguments: str, timeout: float = 60.0) -> Result:
        """Run the docker command."""
        return self.daemon.docker(*arguments, timeout=timeout)

    def compose(self, *arguments: str) -> Result:
        """Run docker-compose."""
        env = {**self.daemon.env, "DOCKER_HOST": self.daemon.host}
        return run(program("docker-compose"), *arguments, env=env)

    def start(self, *arguments: str) -> Process:
        """Begin to run the docker command."""
        log = self._directory / "docker.log"
        return Process("docker", self.daemon.command(*arguments), log=log, env=self.daemon.env)

    def terminal(self, line: str, directory: Path) -> Process:
        """Begin to run a *line* that calls docker, in *directory* and on a terminal."""
        docker, *options = self.daemon.command()
        line = line.replace("docker ", f"{shlex.join([docker, *options])} ", 1)
        command = f"cd {shlex.quote(str(directory))} && exec {line}"
        arguments = [program("script"), "--quiet", "--return", "--flush"]
        log = directory / "terminal.log"
        return Process(
            "docker run",
            [*arguments, "--command", command, "/dev/null"],
            log=log,
            env=self.daemon.env,
        )

    def inspect(self, name: str) -> dict[str, Any]:
        """What dockerd knows of a container or an image."""
        (found,) = json.loads(self.docker("inspect", name).check())
        return dict(found)

    def wait_until_up(self, name: str) -> None:
        """Until the proxy in the container *name* listens, and its HEALTHCHECK says so."""
        self.daemon.processes[0].wait_until(
            lambda: self.inspect(name)["State"]["Health"]["Status"] == "healthy"
        )

    def get(self, path: str) -> bytes:
        """What the proxy's port itself answers."""
        connection = http.client.HTTPConnection(self.address, PORT, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def connect(self, host: str, ca_file: Path) -> http.client.HTTPSConnection:
        """A connection through the proxy to the registry *host*."""
        name, _, port = host.partition(":")
        context = ssl.create_default_context(cafile=str(ca_file))
        connection = http.client.HTTPSConnection(self.address, PORT, timeout=30, context=context)
        connection.set_tunnel(name, int(port or 443))
        return connection

    def fetch(self, host: str, target: str, ca_file: Path) -> Answer:
        """What the registry *host* answers."""
        connection = self.connect(host, ca_file)
        connection.request("GET", target)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

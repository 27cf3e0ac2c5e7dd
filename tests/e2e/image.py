"""The appliance's image, built and run by dockerd: ``make e2e-image``.

Apart from the other tests, since it is built on a Debian that debootstrap makes, which takes
minutes the first time.
"""

from __future__ import annotations

import atexit
import json
import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.trial.unittest import SynchronousTestCase

from regproxy import __version__
from tests.support import docker_registry_proxy, images
from tests.support.appliance import PORT, ROOT, USER, Host
from tests.support.certificates import make_ca
from tests.support.clients import Docker
from tests.support.images import Image
from tests.support.process import Process, Result
from tests.support.proxy import Value, toml
from tests.support.registry import ALICE, Keys, Registry

NAME: Final = "registry.example.test"
CONTAINER: Final = "appliance"
MiB: Final = 1 << 20


class Site:
    """An upstream, a machine for the appliance, and a client of the appliance."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()
        try:
            for name in "upstream", "old-ca", "host":
                (directory / name).mkdir()
            self.keys = Keys.make(directory, NAME)
            self.registry = Registry.with_password(directory / "upstream", self.keys)
            self._stack.callback(self.registry.process.stop)
            self.host = Host(directory / "host", self.registry)
            self._stack.callback(self.host.close)
            # What clients trust before they start: the CA of the appliance, and an older one.
            self.ca = make_ca("appliance CA")
            docker_registry_proxy.make_ca(self.old_ca)
            self.trusted = directory / "trusted.pem"
            old = (self.old_ca / "ca.crt").read_bytes()
            self.trusted.write_bytes(self.ca.certificate_pem + old)
        except BaseException:
            self.close()
            raise

    @property
    def old_ca(self) -> Path:
        """What docker-registry-proxy had as ``/ca``."""
        return self.directory / "old-ca"

    @property
    def authority(self) -> str:
        """The registry, as clients name it."""
        return f"{NAME}:{self.registry.port}"

    @cached_property
    def client(self) -> Docker:
        """Another dockerd, which pulls through the appliance."""
        url = f"http://{self.host.address}:{PORT}"
        client = Docker(self.directory / "client", url, self.trusted)
        self._stack.callback(client.close)
        return client

    @cached_property
    def image(self) -> str:
        """The image's name."""
        return self.host.build("regproxy")

    @cached_property
    def drop_in(self) -> str:
        """The name of the one that stands in for docker-registry-proxy."""
        return self.host.build("drop-in")

    def publish(self, repository: str, image: Image) -> Image:
        """Give the upstream an *image*."""
        self.registry.push(repository, "latest", image)
        return image

    def close(self) -> None:
        """Stop everything."""
        self._stack.close()


@lru_cache
def site() -> Site:
    """The site of this run."""
    made = Site(Path(mkdtemp(prefix="image-", dir=os.getcwd())))
    atexit.register(made.close)
    return made


class ImageTestCase(SynchronousTestCase):
    """A test on the site. One container at a time has the ports."""

    def setUp(self) -> None:
        self.site = site()
        self.host = self.site.host
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)

    def configure(self, text: str = "") -> Path:
        """A configuration with a login at the upstream."""
        section: dict[str, Value] = {
            "ca_file": "/etc/upstream.pem",
            "relay_private": True,
            "username": ALICE.user,
            "password": ALICE.password,
        }
        tables: dict[str, dict[str, Value]] = {
            "management": {"listen": ["tcp:8080"]},
            f'registries."{self.site.authority}"': section,
        }
        file = self.directory / "regproxy.toml"
        file.write_text(toml(Path("/var/lib/regproxy"), tables) + text)
        return file

    def volume(self) -> Path:
        """A directory for ``/var/lib/regproxy``, with the CA that the client trusts."""
        volume = self.directory / "data"
        ca = volume / "ca"
        ca.mkdir(parents=True)
        (ca / "ca.crt").write_bytes(self.site.ca.certificate_pem)
        (ca / "ca.key").write_bytes(self.site.ca.key_pem)
        for path in volume, ca, *ca.iterdir():
            os.chown(path, USER, USER)
        (ca / "ca.key").chmod(0o600)
        return volume

    def run_image(self, config: Path, volume: Path | str, *options: str) -> None:
        """Run the image as one that may do as little as possible."""
        self.addCleanup(self.host.docker, "rm", "--force", "--volumes", CONTAINER)
        self.host.docker(
            *("run", "--detach", "--name", CONTAINER, "--publish", f"{PORT}:{PORT}"),
            *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *("--health-interval=1s", f"--add-host={NAME}:{self.host.bridge}"),
            f"--volume={config}:/etc/regproxy/regproxy.toml:ro",
            f"--volume={self.site.keys.ca}:/etc/upstream.pem:ro",
            f"--volume={volume}:/var/lib/regproxy",
            *options,
            self.site.image,
        ).check()

    def logs(self) -> str:
        return self.host.docker("logs", CONTAINER).check()

    def check_pull(self) -> None:
        """Another dockerd pulls, cold and warm."""
        client = self.site.client
        self.addCleanup(client.clear)
        repository = self._testMethodName
        image = self.site.publish(repository, images.image())
        reference = f"{self.site.authority}/{repository}:latest"
        for blobs in Counter(blob.digest for blob in image.blobs), Counter[str]():
            recording = self.site.registry.record()
            client.pull(reference).check()
            self.assertEqual(client.image_id(reference), image.image_id)
            self.assertEqual(recording.traffic().gets("blobs"), blobs)
            client.clear()


class ImageTests(ImageTestCase):
    """The image"""

    def test_serves(self) -> None:
        """A pull, from a container that may write to its volume only and is nobody."""
        self.run_image(self.configure(), self.volume())
        self.host.wait_until_up(CONTAINER)
        self.check_pull()
        status = self.host.docker("exec", CONTAINER, "cat", "/proc/1/status").check()
        self.assertRegex(status, r"\nUid:(\s65532){4}\n")
        self.assertRegex(status, r"\nCapEff:\s0+\n")
        command = self.host.docker("exec", CONTAINER, "cat", "/proc/1/cmdline").check()
        self.assertIn("/twistd\0", command)
        # All that there is besides the image is what dockerd mounts something at.
        self.assertEqual(
            self.host.docker("diff", CONTAINER).check(), "C /etc\nA /etc/upstream.pem\n"
        )
        self.assertNotIn("Traceback", self.logs())

    def test_no_option(self) -> None:
        """It runs with no option at all, and keeps what it has in a volume."""
        self.addCleanup(self.host.docker, "rm", "--force", "--volumes", CONTAINER)
        self.host.docker(
            *("run", "--detach", "--name", CONTAINER, "--publish", f"{PORT}:{PORT}"),
            *("--health-interval=1s", self.site.image),
        ).check()
        self.host.wait_until_up(CONTAINER)
        self.assertIn(b"BEGIN CERTIFICATE", self.host.get("/ca.crt"))
        (mount,) = self.host.inspect(CONTAINER)["Mounts"]
        self.assertEqual(mount["Destination"], "/var/lib/regproxy")

    def test_low_ports(self) -> None:
        """TLS and DNS at their own ports, though it is not root."""
        more = (
            '[tls]\nlisten = ["tcp:443"]\n'
            '[dns]\nlisten = ["0.0.0.0:53"]\naddresses = ["10.0.0.5"]\nauthoritative = true\n'
        )
        self.run_image(self.configure(more), self.volume())
        self.host.wait_until_up(CONTAINER)

    def test_stop_drains(self) -> None:
        """What is under way comes to its end, in less time than it has until it is killed."""
        image = self.site.publish("slow", images.image(layers=1, size=64 * MiB))
        layer = image.blobs[-1]
        self.run_image(self.configure(), self.volume())
        self.host.wait_until_up(CONTAINER)
        connection = self.host.connect(self.site.authority, self.site.trusted)
        connection.request("GET", f"/v2/slow/blobs/{layer.digest}")
        response = connection.getresponse()
        content = response.read(MiB)
        with self.stopping():
            # No new client is let in while this one is served.
            while self.accepts():
                time.sleep(0.02)
            content += response.read()
        connection.close()
        self.assertEqual(content, layer.content)
        self.assertIn("Server Shut Down", self.logs())

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Stop the container meanwhile, which it does by itself."""
        command = ["stop", CONTAINER]
        begin = time.monotonic()
        stopping = self.host.start(*command)
        self.addCleanup(stopping.stop)
        yield
        self.assertEqual(stopping.wait(), 0)
        self.assertLess(time.monotonic() - begin, 9.5)
        self.assertEqual(self.host.inspect(CONTAINER)["State"]["ExitCode"], 0)

    def accepts(self) -> bool:
        """Whether the proxy takes connections."""
        try:
            return self.host.get("/healthz") == b"ok\n"
        except OSError:
            return False

    def test_stop_cuts_off(self) -> None:
        """Whoever does not read is not waited for longer than that."""
        image = self.site.publish("stalled", images.image(layers=1, size=64 * MiB))
        self.run_image(self.configure(), self.volume())
        self.host.wait_until_up(CONTAINER)
        connection = self.host.connect(self.site.authority, self.site.trusted)
        self.addCleanup(connection.close)
        connection.request("GET", f"/v2/stalled/blobs/{image.blobs[-1].digest}")
        connection.getresponse()
        with self.stopping():
            pass
        self.assertIn("are cut off", self.logs())

    def test_restart(self) -> None:
        """A new container over the same volume has the same CA and the same content."""
        blob = self.site.publish("kept", images.image()).blobs[-1]
        self.addCleanup(self.host.docker, "volume", "rm", "--force", "kept")
        found = []
        for _ in range(2):
            self.run_image(self.configure(), "kept")
            self.host.wait_until_up(CONTAINER)
            ca = self.directory / "ca.pem"
            ca.write_bytes(self.host.get("/ca.crt"))
            recording = self.site.registry.record()
            answer = self.host.fetch(self.site.authority, f"/v2/kept/blobs/{blob.digest}", ca)
            self.assertEqual(answer.body, blob.content)
            found.append((ca.read_bytes(), recording.traffic().gets("blobs").total()))
            self.host.docker("stop", CONTAINER).check()
            self.host.docker("rm", CONTAINER).check()
        (first, fetched), (second, fetched_again) = found
        self.assertEqual(first, second)
        self.assertEqual((fetched, fetched_again), (1, 0))

    def test_compose(self) -> None:
        """As compose.yaml has it: it comes up, pulls, and is the same when it comes up again."""
        blob = self.site.publish("composed", images.image()).blobs[-1]
        self.host.docker("tag", self.site.image, "regproxy:latest").check()
        shutil.copy(ROOT / "docker/compose.yaml", self.directory)
        self.configure()
        # What is of this place, and not of the file.
        (self.directory / "place.yaml").write_text(
            json.dumps(
                {
                    "services": {
                        "regproxy": {
                            "container_name": CONTAINER,
                            "extra_hosts": [f"{NAME}:{self.host.bridge}"],
                            "volumes": [f"{self.site.keys.ca}:/etc/upstream.pem:ro"],
                            "healthcheck": {"interval": "1s"},
                        }
                    }
                }
            )
        )
        self.addCleanup(self.compose, "down", "--volumes")
        found = []
        for _ in range(2):
            self.compose("up", "--detach", "--no-build").check()
            self.host.wait_until_up(CONTAINER)
            ca = self.directory / "ca.pem"
            ca.write_bytes(self.host.get("/ca.crt"))
            recording = self.site.registry.record()
            answer = self.host.fetch(self.site.authority, f"/v2/composed/blobs/{blob.digest}", ca)
            self.assertEqual(answer.body, blob.content)
            found.append((ca.read_bytes(), recording.traffic().gets("blobs").total()))
            self.compose("down").check()
        (first, fetched), (second, fetched_again) = found
        self.assertEqual(first, second)
        self.assertEqual((fetched, fetched_again), (1, 0))

    def compose(self, *arguments: str) -> Result:
        """Run docker-compose with the project of this test."""
        files = [f"--file={self.directory / name}" for name in ("compose.yaml", "place.yaml")]
        return self.host.compose(*files, "--project-name=regproxy", *arguments)

    def test_wrong_configuration(self) -> None:
        """It ends with the error on its log and status 1."""
        self.run_image(self.configure("[cache]\nmax_size = 'big'\n"), self.volume())
        self.assertEqual(self.host.docker("wait", CONTAINER).check(), "1\n")
        self.assertIn("/etc/regproxy/regproxy.toml: cache.max_size: expected a size", self.logs())
        self.assertNotIn("Traceback", self.logs())

    def test_description(self) -> None:
        """What it says of itself."""
        config = self.host.inspect(self.site.image)["Config"]
        self.assertEqual(config["User"], f"{USER}:{USER}")
        self.assertEqual(config["StopSignal"], "SIGTERM")
        self.assertEqual(
            set(config["ExposedPorts"]),
            {"3128/tcp", "443/tcp", "5000/tcp", "53/tcp", "53/udp", "8080/tcp"},
        )
        labels = config["Labels"]
        self.assertEqual(labels["org.opencontainers.image.version"], __version__)
        self.assertEqual(labels["org.opencontainers.image.revision"], "0123abc")
        self.assertEqual(labels["org.opencontainers.image.licenses"], "MIT")

    def test_bill_of_materials(self) -> None:
        """It names every package that is inside, and nothing that only the build had."""
        cat = ("run", "--rm", "--entrypoint=cat", self.site.image)
        bill = json.loads(self.host.docker(*cat, "/opt/regproxy/sbom.cdx.json").check())
        self.assertEqual(bill["bomFormat"], "CycloneDX")
        parts = {part["name"].lower() for part in bill["components"]}
        self.assertLessEqual({"twisted", "regproxy", "cryptography"}, parts)
        self.assertFalse({"pip", "cyclonedx-bom"} & parts)
        listing = ("run", "--rm", "--entrypoint=sh", self.site.image, "-c")
        found = self.host.docker(*listing, "ls -d /opt/regproxy/lib/*/site-packages/*.dist-info")
        self.assertEqual(len(bill["components"]), len(found.check().split()))


class DropInTests(ImageTestCase):
    """The image in place of docker-registry-proxy"""

    def start(self, *options: str) -> Process:
        """``docker run`` as its README has it, on a terminal, with *options* and the image."""
        lines = [
            *("docker run --rm --name docker_registry_proxy -it", "-p 0.0.0.0:3128:3128"),
            "-e ENABLE_MANIFEST_CACHE=true",
            "-v $(pwd)/docker_mirror_cache:/docker_mirror_cache",
            "-v $(pwd)/docker_mirror_certs:/ca",
            *options,
            self.site.drop_in,
        ]
        process = self.host.terminal(" ".join(lines), self.directory)
        self.addCleanup(self.host.docker, "rm", "--force", "docker_registry_proxy")
        self.addCleanup(process.stop)
        return process

    def test_pull(self) -> None:
        """Its CA, its login, its directories: nodes that trust it go on pulling."""
        certificates = self.directory / "docker_mirror_certs"
        shutil.copytree(self.site.old_ca, certificates)
        authority = self.site.authority
        login = f"{authority}:::{ALICE.user}:::{ALICE.password}"
        options = {
            "REGISTRIES": f"k8s.gcr.io gcr.io quay.io {authority}",
            "AUTH_REGISTRIES_DELIMITER": ";;;",
            "AUTH_REGISTRY_DELIMITER": ":::",
            "AUTH_REGISTRIES": f"{login};;;auth.docker.io:::dockerhub_username:::secret",
            "VERIFY_SSL": "false",
            "CACHE_MAX_SIZE": "1g",
        }
        process = self.start(
            f"--add-host={NAME}:{self.host.bridge}",
            *(f"-e {shlex.quote(f'{name}={value}')}" for name, value in options.items()),
        )
        process.wait_until(lambda: "The CA is /ca/ca.crt" in process.read_log())
        self.assertEqual(self.host.get("/ca.crt"), (certificates / "ca.crt").read_bytes())
        self.check_pull()
        self.assertTrue((self.directory / "docker_mirror_cache/blobs").is_dir())
        log = process.read_log()
        for name in *options, "ENABLE_MANIFEST_CACHE":
            self.assertEqual(log.count(f"#info] {name}: "), 1, log)
        self.assertIn("NOT verified", log)
        self.assertNotIn(ALICE.password, log)
        self.assertNotIn("Traceback", log)
        self.check_user("docker_registry_proxy")

    def check_user(self, name: str) -> None:
        status = self.host.docker("exec", name, "cat", "/proc/1/status").check()
        self.assertRegex(status, r"\nUid:(\s65532){4}\r?\n")
        self.assertRegex(status, r"\nGroups:\s*\r?\n")

    def test_new(self) -> None:
        """Without a CA one is made there. Tunnels lead to private addresses, not everywhere."""
        process = self.start(f"--add-host=inside.example.test:{self.host.bridge}")
        process.wait_until(lambda: "The CA is /ca/ca.crt" in process.read_log())
        key = self.directory / "docker_mirror_certs/ca.key"
        self.assertIsNotNone(load_pem_private_key(key.read_bytes(), None))
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        port = self.site.registry.port
        inside = self.host.connect(f"inside.example.test:{port}", self.site.keys.ca)
        # The tunnel is there, and its end is the registry: its certificate has another name.
        with self.assertRaisesRegex(OSError, "Hostname mismatch"):
            inside.connect()
        for address in "127.0.0.1", "169.254.169.254":
            with self.assertRaisesRegex(OSError, "403"):
                self.host.connect(f"{address}:{port}", self.site.keys.ca).connect()

    def test_wrong_variable(self) -> None:
        """It ends with the error on its log and status 1."""
        process = self.start("-e CACHE_MAX_SIZE=big")
        self.assertEqual(process.wait(), 1)
        self.assertIn("environment: CACHE_MAX_SIZE: expected a size", process.read_log())

    def test_to_a_file(self) -> None:
        """``--check`` prints the configuration to go on with."""
        found = self.host.docker(
            "run", "--rm", "--env=CACHE_MAX_SIZE=1g", self.site.drop_in, "--check"
        ).check()
        self.assertIn("# CACHE_MAX_SIZE: cache.max_size = 1GiB\n", found)
        config = self.directory / "made.toml"
        config.write_text(found)
        check = ("run", "--rm", f"--volume={config}:/etc/regproxy/regproxy.toml", self.site.image)
        options = "--config", "/etc/regproxy/regproxy.toml", "--check"
        self.assertIn('max_size = "1GiB"', self.host.docker(*check, *options).check())

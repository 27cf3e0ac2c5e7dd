"""The clients that people pull with, each in a directory of its own.

All reach registries through a proxy, trust its CA and nothing else, and leave no trace
outside their directory: storage, sockets, logins and caches are all below it.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.process import COMMAND_TIMEOUT, Process, Result, environment, run
from tests.support.programs import program
from tests.support.registry import Login

# podman run by root keeps a cache of blob locations below, and no option moves it.
_SYSTEM_STATE: Final = Path("/var/lib/containers")


def short_directory() -> Path:
    """A new directory for sockets, whose paths have 107 bytes at most (unix(7))."""
    return Path(tempfile.mkdtemp(prefix="e2e-"))


def surroundings(directory: Path, proxy_url: str | None, ca_file: Path) -> dict[str, str]:
    """The environment of a client that lives in *directory*; without a proxy if there is none."""
    home = directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    no_certificates = directory / "no-certificates"
    no_certificates.mkdir(exist_ok=True)
    proxy = {} if proxy_url is None else {"HTTPS_PROXY": proxy_url}
    return environment(
        **proxy,
        HOME=home,
        XDG_DATA_HOME=home / "data",
        XDG_CONFIG_HOME=home / "config",
        XDG_RUNTIME_DIR=home / "runtime",
        TMPDIR=directory,
        # Read by Go's crypto/x509 in place of the system's.
        SSL_CERT_FILE=ca_file,
        SSL_CERT_DIR=no_certificates,
    )


def write_logins(file: Path, login: Login | None, host: str) -> None:
    """Write a ``config.json`` as ``docker login`` does, without asking the registry."""
    auths = {} if login is None else {host: {"auth": login.basic.removeprefix("Basic ")}}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"auths": auths}))


def hiding(directory: Path, command: str) -> list[str]:
    """A command line for *command* that makes it write to a *directory* of its own.

    It sees an empty file system there, which vanishes with its last process.
    """
    script = f'mount -t tmpfs none {directory} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", command]


class Client(ABC):
    """Something that pulls. References are ``HOST/REPOSITORY:TAG`` or ``...@DIGEST``."""

    #: What must be installed.
    programs: tuple[str, ...]
    #: What the client says when there is no such tag.
    not_found: str
    #: What it says when it has to log in, or the password is wrong.
    unauthorized: str

    def __init__(self, directory: Path, proxy_url: str | None, ca_file: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.env = surroundings(directory, proxy_url, ca_file)

    @property
    def processes(self) -> tuple[Process, ...]:
        """Daemons that belong to the client."""
        return ()

    def close(self) -> None:
        """Stop the daemons."""
        for process in self.processes:
            process.stop()

    @abstractmethod
    def pull(self, reference: str, login: Login | None = None) -> Result:
        """Pull, anonymously without a *login*."""

    @abstractmethod
    def image_id(self, reference: str) -> str:
        """The digest of the config of the pulled image."""

    @abstractmethod
    def clear(self) -> None:
        """Remove all images with all their content, so that the next pull starts from nothing."""


class Docker(Client):
    """dockerd with a containerd of its own, and the ``docker`` command."""

    programs = ("dockerd", "docker", "containerd", "ctr")
    not_found = "manifest unknown"
    unauthorized = "unauthorized|denied|no basic auth credentials"

    def __init__(
        self,
        directory: Path,
        proxy_url: str | None,
        ca_file: Path,
        *mirrors: str,
        within: Sequence[str] = (),
        bridge: str | None = None,
    ) -> None:
        """*mirrors* are the URLs of ``registry-mirrors``.

        *within* is the beginning of a command line, to run the daemon elsewhere. *bridge* is the
        address of a network for its containers; without it they have the machine's only.
        """
        super().__init__(directory, proxy_url, ca_file)
        self._sockets = short_directory()
        self.host = f"unix://{self._sockets}/docker.sock"
        config = directory / "daemon.json"
        config.write_text(json.dumps({"registry-mirrors": mirrors}))
        arguments = [
            *within,
            # It makes /run/docker/plugins whatever its options say.
            *hiding(Path("/run"), program("dockerd")),
            f"--config-file={config}",
            f"--data-root={directory / 'data'}",
            f"--exec-root={self._sockets / 'exec'}",
            f"--pidfile={directory / 'dockerd.pid'}",
            f"--host={self.host}",
            "--bridge=none" if bridge is None else f"--bip={bridge}",
            "--iptables=false",
            "--ip6tables=false",
        ]
        log = directory / "dockerd.log"
        self._daemon = Process("dockerd", arguments, log=log, env=self.env)
        try:
            self._daemon.wait_until(lambda: self.docker("version").code == 0)
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> tuple[Process, ...]:
        return (self._daemon,)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._sockets)

    def docker(self, *arguments: str, stdin: str = "", timeout: float = COMMAND_TIMEOUT) -> Result:
        """Run the docker command."""
        return run(
            *self.command(*arguments),
            env=self.env,
            stdin=stdin,
            timeout=timeout,
        )

    def command(self, *arguments: str) -> list[str]:
        """The command line of the docker command."""
        config = str(self.directory / "docker-config")
        return [program("docker"), "--config", config, "--host", self.host, *arguments]

    def log_in(self, host: str, login: Login) -> Result:
        """``docker login``, which asks the registry."""
        return self.docker(
            *("login", "--username", login.user, "--password-stdin", host), stdin=login.password
        )

    def pull(self, reference: str, login: Login | None = None) -> Result:
        host = reference.partition("/")[0]
        if host == "docker.io":
            host = "https://index.docker.io/v1/"
        write_logins(self.directory / "docker-config" / "config.json", login, host)
        return self.docker("pull", reference)

    def push(self, image: str, reference: str, login: Login | None = None) -> Result:
        """Push what was pulled as *image* as *reference*."""
        host = reference.partition("/")[0]
        write_logins(self.directory / "docker-config" / "config.json", login, host)
        self.docker("tag", image, reference).check()
        return self.docker("push", reference)

    def image_id(self, reference: str) -> str:
        return self.docker("image", "inspect", "--format={{.Id}}", reference).check().strip()

    def clear(self) -> None:
        images = self.docker("image", "ls", "--all", "--quiet", "--no-trunc").check().split()
        if images:
            self.docker("image", "rm", "--force", *images).check()
        # dockerd keeps the manifests of removed images, and would not ask for them again.
        manifests = self._ctr("content", "ls", "--quiet").check().split()
        if manifests:
            self._ctr("content", "rm", *manifests).check()

    def _ctr(self, *arguments: str) -> Result:
        socket = str(self._sockets / "exec" / "containerd" / "containerd.sock")
        return run(
            *(program("ctr"), "--address", socket, "--namespace", "moby", *arguments), env=self.env
        )


class Containerd(Client):
    """containerd, and its ``ctr``, which does the pulling in its own process."""

    programs = ("containerd", "ctr")
    not_found = "not found"
    unauthorized = "authorization failed|unauthorized|401|403|denied|no basic auth credentials"

    def __init__(self, directory: Path, proxy_url: str, ca_file: Path) -> None:
        super().__init__(directory, proxy_url, ca_file)
        self._sockets = short_directory()
        config = directory / "containerd.toml"
        config.write_text(
            "version = 2\n"
            f'root = "{directory / "root"}"\n'
            f'state = "{self._sockets / "state"}"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self._socket}"\n'
        )
        arguments = [program("containerd"), "--config", str(config)]
        log = directory / "containerd.log"
        self._daemon = Process("containerd", arguments, log=log, env=self.env)
        try:
            self._daemon.wait_until(lambda: self.ctr("version").code == 0)
        except BaseException:
            self.close()
            raise

    @property
    def _socket(self) -> Path:
        return self._sockets / "containerd.sock"

    @property
    def processes(self) -> tuple[Process, ...]:
        return (self._daemon,)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._sockets)

    def ctr(self, *arguments: str) -> Result:
        """Run the ctr command in a namespace of the tests."""
        return run(
            *(program("ctr"), "--address", str(self._socket), "--namespace", "e2e", *arguments),
            env=self.env,
        )

    def configure(self, host: str, hosts_toml: str) -> None:
        """Say how the registry *host* is reached (containerd's ``docs/hosts.md``)."""
        # A name with a port has its colons replaced, as some file systems want it.
        directory = self._hosts / re.sub(r":([0-9]+)$", r"_\1_", host)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts.toml").write_text(hosts_toml)

    @property
    def _hosts(self) -> Path:
        return self.directory / "certs.d"

    def pull(self, reference: str, login: Login | None = None) -> Result:
        return self.ctr("images", "pull", *self._options(login), reference)

    def push(self, image: str, reference: str, login: Login | None = None) -> Result:
        """Push what was pulled as *image* as *reference*."""
        return self.ctr("images", "push", *self._options(login), reference, image)

    def _options(self, login: Login | None) -> list[str]:
        user = [] if login is None else ["--user", f"{login.user}:{login.password}"]
        return [*user, "--hosts-dir", str(self._hosts)] if self._hosts.exists() else user

    def image_id(self, reference: str) -> str:
        row = self.ctr("images", "ls", f"name=={reference}").check()
        target = "sha256:" + row.split(" sha256:")[1].split()[0]
        content = self._content(target)
        for entry in content.get("manifests", []):
            if entry["platform"]["architecture"] == "amd64":
                content = self._content(entry["digest"])
        return str(content["config"]["digest"])

    def _content(self, digest: str) -> dict[str, Any]:
        return dict(json.loads(self.ctr("content", "get", digest).check()))

    def clear(self) -> None:
        images = self.ctr("images", "ls", "--quiet").check().split()
        # With --sync the garbage is collected now: else a pull would find the content in place.
        self.ctr("images", "rm", "--sync", *images).check()
        left = self.ctr("content", "ls", "--quiet").check()
        assert left == "", f"content left: {left}"


class Podman(Client):
    """podman, which has no daemon."""

    programs = ("podman",)
    not_found = "manifest unknown"
    unauthorized = "unauthorized|denied"

    def __init__(self, directory: Path, proxy_url: str, ca_file: Path) -> None:
        super().__init__(directory, proxy_url, ca_file)
        files = {
            "CONTAINERS_CONF": '[engine]\nlock_type = "file"\nevents_logger = "none"\n',
            "CONTAINERS_REGISTRIES_CONF": "unqualified-search-registries = []\n",
            "CONTAINERS_STORAGE_CONF": '[storage]\ndriver = "vfs"\n'
            f'graphroot = "{directory / "graph"}"\nrunroot = "{directory / "run"}"\n',
        }
        for variable, content in files.items():
            file = directory / f"{variable.lower()}.conf"
            file.write_text(content)
            self.env[variable] = str(file)
        self.registries_conf = Path(self.env["CONTAINERS_REGISTRIES_CONF"])
        self._logins = directory / "auth.json"
        self.env["REGISTRY_AUTH_FILE"] = str(self._logins)
        self._policy = policy_file(directory)
        self._made_system_state = not _SYSTEM_STATE.exists()
        _SYSTEM_STATE.mkdir(exist_ok=True)

    def close(self) -> None:
        if self._made_system_state:
            _SYSTEM_STATE.rmdir()

    def podman(self, *arguments: str, stdin: str = "") -> Result:
        """Run the podman command on its own storage."""
        options = ("--tmpdir", str(self.directory / "libpod"), "--cgroup-manager", "cgroupfs")
        network = ("--network-config-dir", str(self.directory / "networks"))
        volumes = ("--volumepath", str(self.directory / "volumes"))
        return run(
            *hiding(_SYSTEM_STATE, program("podman")),
            *(*options, *network, *volumes, *arguments),
            env=self.env,
            stdin=stdin,
        )

    def log_in(self, host: str, login: Login) -> Result:
        """``podman login``, which asks the registry."""
        return self.podman(
            *("login", "--username", login.user, "--password-stdin", host), stdin=login.password
        )

    def pull(self, reference: str, login: Login | None = None) -> Result:
        write_logins(self._logins, login, reference.partition("/")[0])
        return self.podman("pull", "--signature-policy", str(self._policy), reference)

    def push(self, image: str, reference: str, login: Login | None = None) -> Result:
        """Push what was pulled as *image* as *reference*."""
        write_logins(self._logins, login, reference.partition("/")[0])
        return self.podman("push", "--signature-policy", str(self._policy), image, reference)

    def image_id(self, reference: str) -> str:
        hexadecimal = self.podman("image", "inspect", "--format={{.Id}}", reference).check().strip()
        return f"sha256:{hexadecimal}"

    def clear(self) -> None:
        self.podman("image", "rm", "--all", "--force").check()


class Skopeo(Client):
    """skopeo, which copies to and from directories: each pull makes one."""

    programs = ("skopeo",)
    not_found = "manifest unknown"
    unauthorized = "unauthorized|denied|authentication required"

    def __init__(self, directory: Path, proxy_url: str, ca_file: Path) -> None:
        super().__init__(directory, proxy_url, ca_file)
        self.registries_conf = directory / "registries.conf"
        self.registries_conf.write_text("unqualified-search-registries = []\n")
        self.env["REGISTRY_AUTH_FILE"] = str(directory / "auth.json")
        # The cache of blob locations is in /var/lib for root, in XDG_DATA_HOME for others.
        self.env["_CONTAINERS_ROOTLESS_UID"] = "1"
        self._policy = policy_file(directory)
        self._copies = directory / "copies"

    def skopeo(self, *arguments: str) -> Result:
        """Run the skopeo command."""
        # The variable that podman knows is none of skopeo's.
        options = ("--policy", str(self._policy), "--registries-conf", str(self.registries_conf))
        return run(program("skopeo"), *options, *arguments, env=self.env)

    def copied(self, reference: str) -> Path:
        """The directory that a pull of *reference* makes (containers-transports(5), "dir")."""
        copy = self._copies / reference.replace("/", "_").replace(":", "_")
        copy.parent.mkdir(exist_ok=True)
        return copy

    def pull(self, reference: str, login: Login | None = None, *options: str) -> Result:
        credentials = (
            ["--src-no-creds"]
            if login is None
            else ["--src-username", login.user, "--src-password", login.password]
        )
        source, target = f"docker://{reference}", f"dir:{self.copied(reference)}"
        return self.skopeo("copy", *options, *credentials, source, target)

    def push(self, image: str, reference: str, login: Login | None = None) -> Result:
        """Push what was pulled as *image* as *reference*."""
        credentials = (
            ["--dest-no-creds"]
            if login is None
            else ["--dest-username", login.user, "--dest-password", login.password]
        )
        source, target = f"dir:{self.copied(image)}", f"docker://{reference}"
        return self.skopeo("copy", *credentials, source, target)

    def image_id(self, reference: str) -> str:
        manifest = json.loads((self.copied(reference) / "manifest.json").read_bytes())
        return str(manifest["config"]["digest"])

    def clear(self) -> None:
        shutil.rmtree(self._copies, ignore_errors=True)


def policy_file(directory: Path) -> Path:
    """A signature policy that takes everything (containers-policy.json(5))."""
    file = directory / "policy.json"
    file.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return file

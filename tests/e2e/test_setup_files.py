"""What the set-up scripts write, by what is on a machine already."""

from __future__ import annotations

import textwrap
from pathlib import Path

from regproxy.management.setup import ready
from regproxy.management.setup.scripts import Authority
from tests.e2e.scripts import PEM, PROXY, MachineTestCase, made
from tests.support.certificates import make_ca
from tests.support.machines import ALPINE, ARCH, DEBIAN, FAMILIES, RHEL, SHELLS, SUSE, Machine


class TrustTests(MachineTestCase):
    """The CA."""

    def test_anchors(self) -> None:
        """Each family has a place for it, and a command that makes it known."""
        for family in (*FAMILIES, ARCH):
            machine = self.machine(family)
            self.succeed(machine.run(made("ca-only")))
            self.assertEqual(machine.read(f"{family.anchors}/regproxy.crt").encode(), PEM)
            self.assertEqual(machine.read("/etc/ssl/certs/bundle").encode(), PEM)
            updates = [line for line in machine.log() if line.startswith(family.update)]
            self.assertEqual(len(updates), 1, family.name)

    def test_two(self) -> None:
        """One that is announced is in a file of its own, and goes when it is not there any more."""
        machine = self.machine()
        first = make_ca().certificate_pem
        self.succeed(machine.run(made("ca-only", pem=first + PEM)))
        self.assertEqual(machine.read(f"{DEBIAN.anchors}/regproxy.crt").encode(), first)
        self.assertEqual(machine.read(f"{DEBIAN.anchors}/regproxy2.crt").encode(), PEM)
        self.succeed(machine.run(made("ca-only")))
        self.assertEqual(machine.read(f"{DEBIAN.anchors}/regproxy.crt").encode(), PEM)
        self.assertNotIn(f"{DEBIAN.anchors}/regproxy2.crt", machine.snapshot())

    def test_new_one(self) -> None:
        """Every runtime is restarted for it, also when another script has put it there before."""
        machine = self.machine()
        for name in "docker", "crio":
            self.succeed(machine.run(made(name)))
        machine.restarted()
        new = make_ca().certificate_pem
        for name in "docker", "crio":
            self.succeed(machine.run(made(name, pem=new)))
            self.assertEqual(machine.restarted(), [f"{name}.service"])

    def test_stays_for_others(self) -> None:
        """It is taken away with the last script that wants it."""
        machine = self.machine()
        before = machine.snapshot()
        for name in "docker", "podman":
            self.succeed(machine.run(made(name)))
        self.succeed(machine.run(made("docker", undo="1")))
        self.assertEqual(machine.read("/etc/ssl/certs/bundle").encode(), PEM)
        self.succeed(machine.run(made("podman", undo="1")))
        self.assertEqual(machine.snapshot(), before)

    def test_was_there(self) -> None:
        """One that the administrator has put there stays."""
        machine = self.machine()
        machine.write(f"{DEBIAN.anchors}/regproxy.crt", PEM.decode())
        machine.run("update-ca-certificates").check()
        machine.log()
        before = machine.snapshot()
        self.succeed(machine.run(made("docker")))
        self.succeed(machine.run(made("docker", undo="1")))
        self.assertEqual(machine.snapshot(), before)

    def test_fetched(self) -> None:
        """It is compared with the fingerprint."""
        for shell in SHELLS:
            machine = self.machine()
            before = machine.snapshot()
            machine.write("/services/ca.crt", make_ca().certificate_pem.decode())
            text = made("docker", pem=None)
            self.refuse(machine.run(text, shell=shell), "is not the CA with this fingerprint")
            self.succeed(machine.run(text, "undo", shell=shell))
            self.assertEqual(machine.snapshot(), before)
            machine.write("/services/ca.crt", (PEM + make_ca().certificate_pem).decode())
            self.succeed(machine.run(text, shell=shell))
            self.assertEqual(machine.read(f"{DEBIAN.anchors}/regproxy.crt").encode(), PEM)

    def test_ready_files(self) -> None:
        """The same by user-data whose blanks have been filled in."""
        for name, text in ready.files():
            machine = self.machine(ALPINE)
            machine.write("/services/ca.crt", PEM.decode())
            text = text.replace(ready.NOBODY.fingerprint, Authority.of(PEM).fingerprint)
            text = text.replace(str(ready.PROXY), str(PROXY))
            content = text.partition("content: |\n")[2].partition("runcmd:")[0]
            self.succeed(machine.run(textwrap.dedent(content)), "all is well")
            self.assertEqual(machine.read(f"{ALPINE.anchors}/regproxy.crt").encode(), PEM)
            runtime = name.removesuffix(".yaml").partition("-")[2]
            self.assertEqual(machine.restarted(), [f"{runtime}.service"])

    def test_no_store(self) -> None:
        """A machine without one is told what it lacks."""
        machine = self.machine()
        (machine.root / "usr/bin/update-ca-certificates").unlink()
        self.refuse(machine.run(made("docker")), "install ca-certificates")


class EnvironmentTests(MachineTestCase):
    """Where services get their variables from."""

    def test_systemd(self) -> None:
        """A drop-in; the second run with another list changes it."""
        machine = self.machine(RHEL)
        self.succeed(machine.run(made("docker", no_proxy=".example.net")))
        text = machine.read("/etc/systemd/system/docker.service.d/regproxy.conf")
        self.assertEqual(
            text,
            '[Service]\nEnvironment="HTTPS_PROXY=http://proxy.example.net:3128"\n'
            'Environment="NO_PROXY=localhost,127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,'
            "192.168.0.0/16,fc00::/7,.svc,.cluster.local,169.254.169.254,"
            'metadata.google.internal,.example.net"\n',
        )
        self.assertIn("systemctl daemon-reload", machine.log())
        self.succeed(machine.run(made("docker")))
        self.assertEqual(machine.restarted(), ["docker.service"])

    def test_openrc(self) -> None:
        """Lines in the file that the service has; what others write around them stays."""
        machine = self.machine(ALPINE)
        machine.write("/etc/conf.d/docker", 'DOCKER_OPTS=""\n')
        self.succeed(machine.run(made("docker")))
        lines = machine.read("/etc/conf.d/docker").splitlines()
        self.assertEqual(lines[0], 'DOCKER_OPTS=""')
        self.assertEqual(lines[2], "export HTTPS_PROXY='http://proxy.example.net:3128'")
        machine.write("/etc/conf.d/docker", "\n".join(["# new", *lines, "# last", ""]))
        self.succeed(machine.run(made("docker", undo="1")), "took our lines out of")
        self.assertEqual(machine.read("/etc/conf.d/docker"), '# new\nDOCKER_OPTS=""\n# last\n')

    def test_k3s(self) -> None:
        """It hands variables with this prefix on to its containerd."""
        machine = self.machine(SUSE)
        self.succeed(machine.run(made("k3s")))
        text = machine.read("/etc/systemd/system/k3s-agent.service.d/regproxy.conf")
        self.assertIn('Environment="CONTAINERD_HTTPS_PROXY=http://proxy.example.net:3128"\n', text)
        self.assertIn('Environment="CONTAINERD_NO_PROXY=localhost,', text)

    def test_stopped(self) -> None:
        """A service that does not run is not started, and finds all when it is."""
        for family in DEBIAN, ALPINE:
            machine = Machine(Path(self.mktemp()).resolve(), family)
            self.succeed(machine.run(made("docker")), "all is well")
            self.assertEqual(machine.restarted(), [])

    def test_image(self) -> None:
        """In an image that is being made all is put in place, and nothing is restarted."""
        machine = self.machine()
        (machine.root / "run/systemd/system").rmdir()
        self.succeed(machine.run(made("docker")))
        machine.read("/etc/systemd/system/docker.service.d/regproxy.conf")
        self.assertEqual(machine.restarted(), [])

    def test_overruled(self) -> None:
        """Another drop-in that has the last word is told of."""
        machine = self.machine()
        machine.write(
            "/etc/systemd/system/docker.service.d/zz.conf",
            '[Service]\nEnvironment="HTTPS_PROXY=http://other.example.net:3128"\n',
        )
        machine.command(
            "systemctl",
            "case $1 in is-active) echo active ;; show) cat /etc/systemd/system/*/zz* ;; esac",
        )
        self.refuse(machine.run(made("docker")), "another drop-in of docker.service")

    def test_daemon_json(self) -> None:
        """So is a file that comes before the variables, and then nothing is changed."""
        machine = self.machine()
        machine.write("/etc/docker/daemon.json", '{"proxies": {"https-proxy": "http://x:1"}}\n')
        before = machine.snapshot()
        self.refuse(machine.run(made("docker")), '"proxies" in /etc/docker/daemon.json')
        self.succeed(machine.run(made("docker", undo="1")))
        self.assertEqual(machine.snapshot(), before)

    def test_k3s_service_env(self) -> None:
        """The same for k3s."""
        machine = self.machine()
        file = "/etc/systemd/system/k3s.service.env"
        machine.write(file, "K3S_TOKEN=x\nCONTAINERD_HTTPS_PROXY=http://x:1\n")
        self.refuse(machine.run(made("k3s")), file)

    def test_podman(self) -> None:
        """The same for podman, whose later lists take the place of earlier ones."""
        machine = self.machine()
        machine.write("/etc/containers/containers.conf", '[containers]\nenv = ["A=1"]\n')
        self.succeed(machine.run(made("podman")))
        machine.write("/etc/containers/containers.conf", '[engine]\n env = ["A=1"]\n')
        self.refuse(machine.run(made("podman")), "has an env in [engine]")


class HostsTests(MachineTestCase):
    """containerd's config_path, in what people have in config.toml."""

    def config(self, before: str) -> tuple[str, str]:
        """config.toml after the script, and what it said; undo restores it."""
        machine = self.machine()
        if before:
            machine.write("/etc/containerd/config.toml", before)
        snapshot = machine.snapshot()
        said = machine.run(made("containerd", mode="hosts")).check()
        after = machine.read("/etc/containerd/config.toml")
        self.succeed(machine.run(made("containerd", mode="hosts")), "all is set already")
        self.assertEqual(machine.read("/etc/containerd/config.toml"), after)
        self.succeed(machine.run(made("containerd", undo="1")))
        self.assertEqual(machine.snapshot(), snapshot)
        return after, said

    def test_none(self) -> None:
        """A file that all versions take."""
        after, _ = self.config("")
        self.assertEqual(
            after,
            'version = 2\n\n[plugins."io.containerd.grpc.v1.cri".registry]\n'
            '  config_path = "/etc/containerd/certs.d"\n',
        )

    def test_there_is_one(self) -> None:
        """A mirror for all registries that somebody has set up stays, and nothing is changed."""
        file = "/etc/containerd/certs.d/_default/hosts.toml"
        for config in "", 'version = 2\n[plugins.cri.registry]\nconfig_path = "/etc/x"\n':
            machine = self.machine()
            machine.write("/etc/containerd/config.toml", config)
            machine.write(file, '[host."http://theirs:5000"]\n')
            machine.write("/etc/x/_default/hosts.toml", '[host."http://theirs:5000"]\n')
            before = machine.snapshot()
            self.refuse(machine.run(made("containerd", mode="hosts")), "_default/hosts.toml: add")
            self.assertEqual(machine.snapshot(), before)

    def test_added(self) -> None:
        """The table is that of the file's version; none means the first."""
        for version, table in (
            ("", "plugins.cri.registry"),
            ("version = 1\n", "plugins.cri.registry"),
            ("version = 2\n", 'plugins."io.containerd.grpc.v1.cri".registry'),
            ("version = 3\n", 'plugins."io.containerd.cri.v1.images".registry'),
        ):
            before = f"{version}disabled_plugins = []\n"
            after, _ = self.config(before)
            added = f'\n[{table}]\n  config_path = "/etc/containerd/certs.d"\n'
            self.assertEqual(after, before + added)

    def test_empty(self) -> None:
        """The line that ``containerd config default`` makes is filled in."""
        table = "    [plugins.'io.containerd.cri.v1.images'.registry]\n      "
        for empty in (
            "config_path = ''",
            'config_path = ""',
            "config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'",
        ):
            before = f"version = 3\n{table}{empty}\n      x = 1\n[other]\nconfig_path = ''\n"
            after, _ = self.config(before)
            self.assertEqual(after.count("config_path"), 2)
            self.assertIn("[other]\nconfig_path = ''\n", after)
            self.assertIn('registry]\n  config_path = "/etc/containerd/certs.d"\n', after)

    def test_table_without_it(self) -> None:
        """It is added to the table that is there."""
        after, _ = self.config(
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n# mine\n[other]\n'
        )
        self.assertEqual(
            after,
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n'
            '  config_path = "/etc/containerd/certs.d"\n# mine\n[other]\n',
        )

    def test_own_directory(self) -> None:
        """One that is set is used as it is."""
        before = (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n'
            '  config_path = "/srv/hosts" # ours\n'
        )
        after, said = self.config(before)
        self.assertEqual(after, before)
        self.assertIn("wrote /srv/hosts/_default/hosts.toml", said)

    def test_own_directories(self) -> None:
        """Of several the first."""
        before = (
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n"
            "config_path = '/srv/hosts:/srv/more'\n"
        )
        after, said = self.config(before)
        self.assertEqual(after, before)
        self.assertIn("wrote /srv/hosts/_default/hosts.toml", said)

    def test_old_mirrors(self) -> None:
        """They exclude it: containerd would not start its CRI."""
        machine = self.machine()
        machine.write(
            "/etc/containerd/config.toml",
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n'
            '  endpoint = ["https://mirror.example.net"]\n',
        )
        self.refuse(machine.run(made("containerd", mode="hosts")), "which exclude config_path")

    def test_hosts_toml(self) -> None:
        """For all registries."""
        machine = self.machine()
        self.succeed(machine.run(made("containerd", mode="hosts")))
        self.assertEqual(
            machine.read("/etc/containerd/certs.d/_default/hosts.toml"),
            '[host."http://proxy.example.net:5000"]\n  capabilities = ["pull", "resolve"]\n',
        )

    def test_k3s(self) -> None:
        """k3s makes its own from a file that is not touched if it is there."""
        machine = self.machine()
        self.succeed(machine.run(made("k3s", mode="hosts")))
        self.assertEqual(
            machine.read("/etc/rancher/k3s/registries.yaml"),
            'mirrors:\n  "*":\n    endpoint:\n      - "http://proxy.example.net:5000"\n',
        )
        machine = self.machine()
        machine.write("/etc/rancher/k3s/registries.yaml", "mirrors: {}\n")
        self.refuse(machine.run(made("k3s", mode="hosts")), "add http://proxy.example.net:5000")


class NameServerTests(MachineTestCase):
    """mode=dns, by whatever keeps the machine's name servers."""

    def test_resolved(self) -> None:
        """A drop-in of systemd-resolved."""
        machine = Machine(
            Path(self.mktemp()).resolve(), DEBIAN, ["systemd-resolved.service", "docker.service"]
        )
        machine.command(
            "systemctl",
            "case $* in *is-active*resolved*|*is-active*docker*) echo active ;; "
            "*is-active*) exit 3 ;; esac",
        )
        self.succeed(machine.run(made("docker", mode="dns")))
        self.assertEqual(machine.restarted(), ["systemd-resolved.service", "docker.service"])
        self.assertEqual(
            machine.read("/etc/systemd/resolved.conf.d/regproxy.conf"),
            "[Resolve]\nDNS=10.0.0.5\nDomains=~.\n",
        )
        self.succeed(machine.run(made("docker", mode="dns", undo="1")))
        self.assertEqual(machine.restarted(), ["systemd-resolved.service", "docker.service"])

    def test_resolv_conf(self) -> None:
        """The file itself, where nothing else makes it."""
        machine = self.machine(ALPINE)
        machine.write("/etc/resolv.conf", "search example.net\nnameserver 10.0.0.1\n")
        self.succeed(machine.run(made("docker", mode="dns")))
        self.assertEqual(
            machine.read("/etc/resolv.conf"), "nameserver 10.0.0.5\nsearch example.net\n"
        )
        self.succeed(machine.run(made("docker", mode="dns")), "all is set already")

    def test_link(self) -> None:
        """Of something unknown it is told."""
        machine = self.machine(ALPINE)
        (machine.root / "etc/resolv.conf").symlink_to("/run/unknown/resolv.conf")
        self.refuse(machine.run(made("docker", mode="dns")), "is made by /run/unknown")


class NodesTests(MachineTestCase):
    """kind: the script for containerd, in each node."""

    def test_nodes(self) -> None:
        """Each gets it, once by the first engine that has nodes, with the word for undo."""
        machine = self.machine()
        machine.command(
            "docker",
            "case $1 in ps) echo node-1; echo node-2 ;;"
            ' exec) shift 2; echo "$*" >>/services/nodes; cat >/services/script ;; esac\n',
        )
        machine.command("podman", "exit 1\n")
        for word, said in ((), "\n"), (("undo",), " undo\n"):
            machine.write("/services/nodes", "")
            self.succeed(machine.run(made("kind"), *word), "node node-2")
            lines = machine.read("/services/nodes")
            self.assertEqual(lines, f"node-1 sh -s --{said}node-2 sh -s --{said}")
            script = machine.read("/services/script")
            self.assertEqual(
                script.replace("of kind through", "of containerd through"), made("containerd")
            )

    def test_another_engine(self) -> None:
        """Of an engine that does not run it goes on to the next."""
        machine = self.machine()
        machine.command("docker", "exit 1\n")
        machine.command("podman", "[ $1 != ps ] || echo node-1\n")
        self.succeed(machine.run(made("kind")), "node node-1")

    def test_failing_node(self) -> None:
        """The others get it nevertheless."""
        machine = self.machine()
        machine.command("docker", "case $* in ps*) echo a; echo b ;; *' a '*) exit 1 ;; esac\n")
        self.refuse(machine.run(made("kind")), "this did not work in: a")

    def test_no_nodes(self) -> None:
        """None is an error."""
        machine = self.machine()
        machine.command("docker", "")
        self.refuse(machine.run(made("kind")), "no node of a kind cluster")

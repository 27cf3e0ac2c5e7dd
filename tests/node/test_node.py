"""Whole machines: configured, found as they should be, and put back byte by byte."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve

from regproxy.node.journal import DIRECTORY
from regproxy.node.machine import Machine, Stat
from regproxy.node.settings import Mode, Settings
from tests.node.nodes import (
    CA,
    CONTAINERD_1,
    DNS,
    MACHINES,
    MIRROR,
    PROXY,
    UNDO,
    Killed,
    MachineTestCase,
    Turns,
    node_on,
)
from tests.support import trees
from tests.support.trees import BUNDLE, EXTRACTED, FakeMachine


class EveryMachineTests(MachineTestCase):
    """What holds on all of them."""

    def test_twice_then_undone(self) -> None:
        for kind, settings in itertools.product(MACHINES, (PROXY, MIRROR, DNS)):
            with self.subTest(machine=kind, mode=settings.mode):
                fake = self.new(kind)
                before = fake.snapshot()
                turns = Turns()
                node = node_on(fake, turns)
                node.configure(settings)
                self.assertTrue(fake.acted() or settings.mode is Mode.MIRROR)
                configured = fake.snapshot()
                self.assertNotEqual(configured, before)
                self.assertEqual(turns.log, ["turn", "end", f"label {settings.mode}"])
                node_on(fake, turns).configure(settings)
                self.assertEqual(fake.snapshot(), configured)
                self.assertEqual(fake.acted(), [])
                self.assertEqual(turns.log[3:], [f"label {settings.mode}"])
                node_on(fake, turns).configure(UNDO)
                self.assertEqual(fake.snapshot(), before)
                self.assertEqual(turns.log[4:], ["turn", "end", "label None"])
                self.assertTrue(fake.acted() or settings.mode is Mode.MIRROR)
                node_on(fake, turns).configure(UNDO)
                self.assertEqual(fake.acted(), [])

    def test_from_mode_to_mode(self) -> None:
        """A machine that had another mode before looks like one that never had."""
        kinds = "debian with containerd 1", "debian with docker", "rhel with crio"
        for kind in kinds:
            for first, second in itertools.permutations((PROXY, MIRROR, DNS), 2):
                with self.subTest(machine=kind, first=first.mode, second=second.mode):
                    fake = self.new(kind)
                    before = fake.snapshot()
                    fresh = trees.copy(fake, Path(self.mktemp()))
                    node_on(fake).configure(first)
                    node_on(fake).configure(second)
                    node_on(fresh).configure(second)
                    self.assertEqual(files(fake), files(fresh))
                    node_on(fake).configure(UNDO)
                    self.assertEqual(fake.snapshot(), before)

    def test_killed_anywhere(self) -> None:
        """After a kill at any write the next run completes, and undoing restores, all the same."""
        kind = "debian with docker"
        for settings in (PROXY, MIRROR, DNS):
            settings = evolve(settings, hosts=("ghcr.io",))
            writes = self.count_writes(kind, settings)
            self.assertGreater(writes, 2)
            for at in range(writes):
                with self.subTest(machine=kind, mode=settings.mode, at=at):
                    fake = self.new(kind)
                    before = fake.snapshot()
                    self.kill_at(fake, settings, at)
                    undone = trees.copy(fake, Path(self.mktemp()))
                    node_on(undone).configure(UNDO)
                    self.assertEqual(undone.snapshot(), before)
                    node_on(fake).configure(settings)
                    done = fake.snapshot()
                    self.assertEqual(files(fake), self.done)
                    node_on(fake).configure(settings)
                    self.assertEqual(fake.snapshot(), done)
                    node_on(fake).configure(UNDO)
                    self.assertEqual(fake.snapshot(), before)

    def count_writes(self, kind: str, settings: Settings) -> int:
        fake = self.new(kind)
        count = self.kill_at(fake, settings, None)
        self.done = files(fake)
        return count

    def kill_at(self, fake: FakeMachine, settings: Settings, at: int | None) -> int:
        """Configure until write number *at*; returns how many there were."""
        count = 0
        write, remove = Machine.write, Machine.remove

        def counting() -> None:
            nonlocal count
            if count == at:
                raise Killed
            count += 1

        def writing(self: Machine, path: str, content: bytes, stat: Stat) -> None:
            counting()
            write(self, path, content, stat)

        def removing(self: Machine, path: str) -> None:
            counting()
            remove(self, path)

        with self.patched(writing, removing):
            try:
                node_on(fake).configure(settings)
            except Killed:
                self.assertIsNotNone(at)
        return count

    @contextmanager
    def patched(self, writing: object, removing: object) -> Iterator[None]:
        kept = Machine.write, Machine.remove
        Machine.write, Machine.remove = writing, removing  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            Machine.write, Machine.remove = kept  # type: ignore[method-assign]


def files(fake: FakeMachine) -> dict[str, object]:
    """What is there, but for the journal."""
    return {
        path: content
        for path, content in fake.snapshot().items()
        if not path.startswith(DIRECTORY[1:])
    }


class ProxyTests(MachineTestCase):
    """The mode "proxy"."""

    def test_debian_with_containerd(self) -> None:
        fake = self.new("debian with containerd 1")
        node_on(fake).configure(PROXY)
        self.assertEqual(
            fake.read("/etc/systemd/system/containerd.service.d/regproxy.conf"),
            "# Written by regproxy, which removes it again.\n[Service]\n"
            'Environment="HTTPS_PROXY=http://10.0.0.5:3128"\n'
            'Environment="NO_PROXY=localhost,10.0.0.0/8"\n',
        )
        self.assertEqual(fake.read(BUNDLE), "stock\n" + CA.decode())
        self.assertEqual(
            fake.acted(),
            ["update-ca-certificates", "systemctl daemon-reload", "systemctl restart containerd"],
        )
        directory = "/etc/containerd/certs.d/docker.io"
        self.assertEqual(
            fake.read(f"{directory}/hosts.toml").splitlines()[1:],
            [
                'server = "https://registry-1.docker.io"',
                f'ca = "{directory}/regproxy.crt"',
                "",
                '[host."https://registry-1.docker.io"]',
                '  capabilities = ["pull", "resolve", "push"]',
                f'  ca = "{directory}/regproxy.crt"',
            ],
        )
        self.assertEqual(fake.read(f"{directory}/regproxy.crt"), CA.decode())
        self.assertEqual(fake.read("/etc/containerd/config.toml"), CONTAINERD_1)
        self.assertFalse(fake.machine.exists("/etc/docker"))

    def test_rhel(self) -> None:
        """Its own store, CRI-O's own drop-in; podman's directories of certificates."""
        fake = self.new("rhel with crio")
        node_on(fake).configure(PROXY)
        self.assertEqual(fake.read(EXTRACTED), "stock\n" + CA.decode() + "site\n")
        self.assertEqual(
            fake.acted(), ["update-ca-trust", "systemctl daemon-reload", "systemctl restart crio"]
        )
        for host in PROXY.hosts:
            self.assertEqual(fake.read(f"/etc/containers/certs.d/{host}/regproxy.crt"), CA.decode())

    def test_alpine_with_docker(self) -> None:
        """OpenRC's variables; not containerd, which only runs what dockerd has pulled."""
        fake = self.new("alpine with docker")
        node_on(fake).configure(PROXY)
        self.assertIn(
            'export HTTPS_PROXY="http://10.0.0.5:3128"\n', fake.read("/etc/conf.d/docker")
        )
        self.assertEqual(fake.acted(), ["update-ca-certificates", "rc-service docker restart"])
        self.assertFalse(fake.machine.exists("/etc/containerd/certs.d"))
        self.assertEqual(fake.read("/etc/docker/certs.d/ghcr.io/regproxy.crt"), CA.decode())

    def test_new_certificate(self) -> None:
        """It goes everywhere, and what was there before us comes back in the end."""
        fake = self.new("debian with containerd 1")
        fake.write("/usr/local/share/ca-certificates/regproxy.crt", "mine\n", 0o640)
        before = fake.snapshot()
        node_on(fake).configure(PROXY)
        fake.acted()
        new = evolve(PROXY, ca=CA + CA)
        node_on(fake).configure(new)
        self.assertEqual(fake.read(BUNDLE), "stock\n" + (CA + CA).decode())
        self.assertEqual(fake.acted(), ["update-ca-certificates", "systemctl restart containerd"])
        node_on(fake).configure(UNDO)
        # The store is made anew with what is there, which was not done before us.
        made = {"etc/ssl/certs/regproxy.pem", "etc/ssl/certs/ca-certificates.crt"}
        after = fake.snapshot()
        self.assertLessEqual(made, after.keys())
        self.assertEqual(
            *({p: v for p, v in each.items() if p not in made} for each in (after, before))
        )

    def test_daemon_that_is_off(self) -> None:
        """It is configured, and stays off."""
        fake = self.new("debian with containerd 1")
        fake.running.clear()
        node_on(fake).configure(PROXY)
        self.assertEqual(fake.acted(), ["update-ca-certificates", "systemctl daemon-reload"])


class MirrorTests(MachineTestCase):
    """The mode "mirror"."""

    def test_containerd(self) -> None:
        fake = self.new("debian with containerd 1")
        node_on(fake).configure(MIRROR)
        self.assertEqual(fake.acted(), ["systemctl restart containerd"])
        host = '[host."http://10.0.0.5:5000"]\n  capabilities = ["pull", "resolve"]\n'
        note = "# Written by regproxy, which removes it again.\n"
        directory = "/etc/containerd/certs.d"
        self.assertEqual(
            fake.read(f"{directory}/docker.io/hosts.toml"),
            f'{note}server = "https://registry-1.docker.io"\n\n{host}',
        )
        self.assertEqual(fake.read(f"{directory}/_default/hosts.toml"), note + host)
        # No CA is needed, so none is trusted.
        self.assertEqual(fake.read(BUNDLE), "stock\n")

    def test_configured_already(self) -> None:
        """With a directory of its own, containerd is not restarted: it reads files at each pull."""
        fake = self.new("debian with containerd 1")
        fake.write(
            "/etc/containerd/config.toml",
            CONTAINERD_1.replace('""', '"/etc/mine/certs.d:/etc/docker/certs.d"'),
        )
        node_on(fake).configure(MIRROR)
        self.assertTrue(fake.machine.exists("/etc/mine/certs.d/ghcr.io/hosts.toml"))
        self.assertEqual(fake.acted(), [])

    def test_others_stay(self) -> None:
        fake = self.new("rhel with containerd 1")
        node_on(fake).configure(MIRROR)
        theirs = fake.read("/etc/containerd/certs.d/ghcr.io/hosts.toml")
        self.assertEqual(theirs, 'server = "https://mine"\n')
        self.assertTrue(fake.machine.exists("/etc/containerd/certs.d/docker.io/hosts.toml"))

    def test_docker(self) -> None:
        fake = self.new("debian with docker")
        node_on(fake).configure(MIRROR)
        self.assertIn("http://10.0.0.5:5000", fake.read("/etc/docker/daemon.json"))
        self.assertEqual(fake.acted(), ["systemctl reload docker"])


class DNSTests(MachineTestCase):
    """The mode "dns"."""

    def test_resolved(self) -> None:
        fake = self.new("debian with containerd 2")
        node_on(fake).configure(DNS)
        self.assertEqual(
            fake.read("/etc/systemd/resolved.conf.d/regproxy.conf").splitlines()[1:],
            [
                "[Resolve]",
                "DNS=10.0.0.5",
                "Domains=~registry-1.docker.io ~ghcr.io ~auth.docker.io",
            ],
        )
        self.assertIn("systemctl restart systemd-resolved", fake.acted())
        self.assertEqual(
            fake.machine.link("/etc/resolv.conf"), "/run/systemd/resolve/stub-resolv.conf"
        )
        self.assertEqual(fake.read("/etc/resolv.conf"), "nameserver 127.0.0.53\n")

    def test_network_manager(self) -> None:
        fake = self.new("rhel with crio")
        node_on(fake).configure(DNS)
        self.assertEqual(
            fake.read("/etc/NetworkManager/conf.d/regproxy.conf").splitlines()[1:],
            [
                "[global-dns]",
                "searches=a.example.net,b.example.net",
                "[global-dns-domain-*]",
                "servers=10.0.0.5,10.0.0.2,10.0.0.3",
            ],
        )
        self.assertIn("systemctl reload NetworkManager", fake.acted())

"""What does not work leaves a machine as it was."""

from __future__ import annotations

from attrs import evolve

from regproxy.node.errors import CommandFailed, NodeError, Refused, Unreachable
from regproxy.node.journal import DIRECTORY
from regproxy.node.machine import Machine, Stat
from regproxy.node.settings import Settings
from tests.node.nodes import (
    DNS,
    MIRROR,
    PROXY,
    UNDO,
    Killed,
    MachineTestCase,
    Turns,
    node_on,
)


class TroubleTests(MachineTestCase):
    """What does not work leaves the machine as it was."""

    def test_daemon_does_not_come_back(self) -> None:
        """All is put back, and is not tried again with these settings, but with others."""
        fake = self.new("debian with containerd 1")
        before = fake.snapshot()
        turns = Turns()
        node = node_on(fake, turns)
        fake.broken.add("containerd")
        real = fake.run

        def mends(command: object) -> tuple[int, str]:
            # With the old configuration it starts.
            if not fake.machine.exists("/etc/systemd/system/containerd.service.d/regproxy.conf"):
                fake.broken.clear()
                fake.running.add("containerd")
            return real(command)  # type: ignore[arg-type]

        node.machine = evolve(fake.machine, run_command=mends)
        node.services = evolve(fake.services, machine=node.machine)
        error = self.assertRaises(CommandFailed, node.configure, PROXY)
        self.assertEqual(str(error), "containerd ended after its restart")
        self.assertEqual(fake.snapshot(), before)
        self.assertIn("containerd", fake.running)
        self.assertEqual(turns.log, ["turn", "end", "label failed"])
        fake.acted()
        self.assertRaises(NodeError, node.configure, PROXY)
        self.assertEqual(fake.acted(), [])
        self.assertEqual(turns.log[3:], ["label failed"])
        node.configure(MIRROR)
        self.assertEqual(turns.log[-1], "label mirror")

    def test_program_fails(self) -> None:
        fake = self.new("debian with containerd 1")
        before = fake.snapshot()
        fake.failing.add("update-ca-certificates")
        error = self.assertRaises(CommandFailed, node_on(fake).configure, PROXY)
        self.assertIn("update-ca-certificates ended with 1", str(error))
        self.assertEqual(fake.snapshot(), before)

    def test_disk_that_cannot_be_written(self) -> None:
        """As that of an immutable system: what was written elsewhere is taken back."""
        fake = self.new("debian with containerd 1")
        before = fake.snapshot()
        write = Machine.write

        def writing(self: Machine, path: str, content: bytes, stat: Stat) -> None:
            if path.startswith("/etc/systemd"):
                raise OSError(30, "Read-only file system")
            write(self, path, content, stat)

        self.patch(Machine, "write", writing)
        error = self.assertRaises(OSError, node_on(fake).configure, PROXY)
        self.assertEqual(error.errno, 30)
        self.assertEqual(fake.snapshot(), before)

    def test_not_reached(self) -> None:
        """A machine is never pointed at what does not answer."""
        fake = self.new("debian with containerd 1")
        before = fake.snapshot()
        turns = Turns()

        def reach(settings: Settings) -> None:
            raise Unreachable(settings.proxy)

        node = node_on(fake, turns)
        node.reach = reach
        self.assertRaises(Unreachable, node.configure, PROXY)
        self.assertEqual(fake.snapshot(), before)
        self.assertEqual(turns.log, ["label failed"])

    def test_undo_needs_no_proxy(self) -> None:
        fake = self.new("debian with containerd 1")
        before = fake.snapshot()
        node = node_on(fake)
        node.configure(PROXY)

        def reach(settings: Settings) -> None:
            raise Unreachable("gone")

        node.reach = reach
        node.configure(UNDO)
        self.assertEqual(fake.snapshot(), before)

    def test_restart_that_ends_this_program(self) -> None:
        """dockerd takes its containers along: the next program does not restart it again."""
        fake = self.new("debian with docker")
        real = fake.run

        def killing(command: object) -> tuple[int, str]:
            answer = real(command)  # type: ignore[arg-type]
            if command == ("systemctl", "restart", "docker"):
                # Nothing of the program runs after this: not even "except".
                fake.killed = fake.machine.read(f"{DIRECTORY}/journal.json")  # type: ignore[attr-defined]
                raise Killed
            return answer

        node = node_on(fake)
        node.machine = evolve(fake.machine, run_command=killing)
        node.services = evolve(fake.services, machine=node.machine)
        self.assertRaises(Killed, node.configure, PROXY)
        fake.write(f"{DIRECTORY}/journal.json", fake.killed.decode())  # type: ignore[attr-defined]
        fake.acted()
        node_on(fake).configure(PROXY)
        self.assertEqual(fake.acted(), [])

    def test_somebody_else_writes_resolv_conf(self) -> None:
        """Once it is written anew without us we do not fight, but say so; undoing goes on."""
        fake = self.new("debian with containerd 1")
        theirs = fake.read("/etc/resolv.conf")
        node = node_on(fake)
        node.configure(DNS)
        self.assertTrue(fake.read("/etc/resolv.conf").endswith(theirs))
        fake.write("/etc/resolv.conf", theirs)
        self.assertRaises(Refused, node.configure, DNS)
        self.assertEqual(fake.read("/etc/resolv.conf"), theirs)
        # A system that makes the file at each start gets it each time.
        fake.write("/proc/sys/kernel/random/boot_id", "second\n")
        node.configure(DNS)
        self.assertIn("nameserver 10.0.0.5\n", fake.read("/etc/resolv.conf"))
        node.configure(UNDO)
        self.assertEqual(fake.read("/etc/resolv.conf"), theirs)

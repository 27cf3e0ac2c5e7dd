"""The set-up scripts, run by root in small trees that look like machines of each family."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.scripts import MachineTestCase, made, on_machines
from tests.support.machines import ALPINE, BARE, FAMILIES, SHELLS, Family
from tests.support.process import Result


class EveryScriptTests(MachineTestCase):
    """What holds for every script, on every family, in every shell."""

    def check(self, family: Family, shell: str) -> None:
        """Run each of them, again, and back."""
        machine = self.machine(family)
        machine.write("/etc/containerd/config.toml", "version = 2\n")
        machine.write("/etc/conf.d/docker", "# Of the package, without an end of line.\nA='1'")
        for kind, mode in on_machines():
            units = [] if family is BARE else list(kind.units)
            case = f"{kind.name} by {mode}, {family.name}, {shell}"
            before = machine.snapshot()
            text = made(kind.name, mode=mode)
            self.succeed(machine.run(text, shell=shell), "all is well")
            self.assertEqual(machine.restarted(), units, case)
            after = machine.snapshot()
            self.assertNotEqual(after, before, case)
            self.succeed(machine.run(text, shell=shell), "all is set already")
            self.assertEqual(machine.restarted(), [], case)
            self.assertEqual(machine.snapshot(), after, case)
            undo = made(kind.name, mode=mode, undo="1")
            self.succeed(machine.run(undo, shell=shell), "is there again")
            self.assertEqual(machine.restarted(), units, case)
            self.assertEqual(machine.snapshot(), before, case)
            self.succeed(machine.run(text, "undo", shell=shell), "nothing to undo")
            self.assertEqual(machine.restarted(), [], case)
            self.assertEqual(machine.snapshot(), before, case)


def _add(family: Family, shell: str) -> None:
    def test(self: EveryScriptTests) -> None:
        self.check(family, shell)

    test.__doc__ = f"{family.name}, {shell}."
    setattr(EveryScriptTests, f"test_{family.name}_{shell}", test)


for _family in FAMILIES:
    for _shell in SHELLS:
        _add(_family, _shell)


class NotesTests(MachineTestCase):
    """What a machine remembers."""

    def test_breaks_off(self) -> None:
        """What a run did not get to, the next one does; undo knows of all."""
        machine = self.machine()
        before = machine.snapshot()
        machine.command("update-ca-certificates", "exit 1\n")
        self.assertNotEqual(machine.run(made("docker")).code, 0)
        self.assertEqual(machine.restarted(), [])
        machine.command("update-ca-certificates", "")
        self.succeed(machine.run(made("docker")))
        self.assertEqual(machine.restarted(), ["docker.service"])
        self.assertEqual(machine.run(made("docker", undo="1")).code, 0)
        after = dict(machine.snapshot())
        after["/usr/bin/update-ca-certificates"] = before["/usr/bin/update-ca-certificates"]
        self.assertEqual(after, before)

    def test_killed(self) -> None:
        """Wherever that happens: undo puts all back, and so does undo after another run."""
        machine = self.machine()
        machine.write("/etc/systemd/system/docker.service.d/regproxy.conf", "# mine\n")
        for name in "cat", "cp", "mkdir", "mv", "rm":
            # The shell dies after so many of these commands.
            machine.command(
                name,
                f'/bin/{name} "$@" || exit\n'
                "echo >>/services/steps\n"
                '[ "$(wc -l </services/steps)" != "$(/bin/cat /services/end)" ] || kill -9 $PPID\n',
            )

        def run(end: int, *arguments: str) -> Result:
            machine.write("/services/steps", "")
            machine.write("/services/end", f"{end}\n")
            return machine.run(made("docker"), *arguments, shell="dash")

        before = machine.snapshot()
        for arguments in (), ("undo",):
            end = 0
            while True:
                end += 1
                if arguments:
                    self.succeed(run(0))
                killed = run(end, *arguments).code != 0
                if end % 2:
                    self.succeed(run(0))
                self.succeed(run(0, "undo"))
                self.assertEqual(machine.snapshot(), before, f"{arguments} {end}")
                if not killed:
                    break
            self.assertGreater(end, 5)

    def test_does_not_start(self) -> None:
        """A service that was not restarted is restarted by the next run."""
        machine = self.machine()
        machine.command("systemctl", "case $1 in is-active) echo active ;; restart) exit 1 ;; esac")
        self.refuse(machine.run(made("crio")), "crio does not start")
        machine.log()
        self.assertNotEqual(machine.run(made("crio")).code, 0)
        self.assertEqual(machine.restarted(), ["crio.service"])

    def test_not_there(self) -> None:
        """A service that is installed later is set up, too; but that is said."""
        machine = self.machine()
        machine.command(
            "systemctl", "case $1 in is-active) exit 3 ;; show) echo LoadState=not-found ;; esac"
        )
        said = "there is no docker.service yet"
        self.succeed(machine.run(made("docker")), said)
        self.assertNotIn(said, machine.run(made("docker", undo="1")).check())
        machine = self.machine(ALPINE)
        self.succeed(machine.run(made("docker")), said)
        machine.write("/etc/init.d/docker", "")
        self.assertNotIn(said, machine.run(made("docker")).check())

    def test_one_at_a_time(self) -> None:
        """A run waits for the end of another one."""
        for shell in SHELLS:
            machine = self.machine()
            lock = machine.root / "run/regproxy-setup.lock"
            with lock.open("w") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                # It can ask for the lock again only when it has been told that it is held.
                machine.command(
                    "flock",
                    '[ "$1" = -n ] || cat </services/end\n/bin/flock "$@"',
                )
                os.mkfifo(machine.root / "services/end")
                with ThreadPoolExecutor() as runs:
                    run = runs.submit(machine.run, made("docker"), shell=shell)
                    # Opening it waits for who reads.
                    end = (machine.root / "services/end").open("w")
                    self.assertFalse((machine.root / "var/lib/regproxy-setup").exists())
                    fcntl.flock(held, fcntl.LOCK_UN)
                    end.close()
                    self.succeed(run.result(), "another run is under way")
            self.assertTrue((machine.root / "var/lib/regproxy-setup").exists())

    def test_changed_by_others(self) -> None:
        """A run sets it right; undo leaves it alone."""
        machine = self.machine()
        file = "/etc/systemd/system/crio.service.d/regproxy.conf"
        self.succeed(machine.run(made("crio")))
        ours = machine.read(file)
        machine.restarted()
        machine.write(file, "# mine\n")
        self.succeed(machine.run(made("crio")), f"wrote {file}")
        self.assertEqual(machine.read(file), ours)
        self.assertEqual(machine.restarted(), ["crio.service"])
        machine.write(file, "# mine\n")
        self.succeed(machine.run(made("crio", undo="1")), f"{file} has been changed since")
        self.assertEqual(machine.read(file), "# mine\n")

    def test_removed_by_others(self) -> None:
        """The same for a file that is gone."""
        machine = self.machine()
        file = "/etc/systemd/system/crio.service.d/regproxy.conf"
        before = machine.snapshot()
        self.succeed(machine.run(made("crio")))
        (machine.root / file[1:]).unlink()
        self.succeed(machine.run(made("crio", undo="1")))
        self.assertEqual(machine.snapshot(), before)

    def test_modes_and_owners(self) -> None:
        """They stay as they are."""
        machine = self.machine(ALPINE)
        machine.write("/etc/conf.d/docker", "A=1\n")
        file = machine.root / "etc/conf.d/docker"
        file.chmod(0o640)
        self.succeed(machine.run(made("docker")))
        self.assertEqual(file.stat().st_mode & 0o777, 0o640)

    def test_link(self) -> None:
        """What leads somewhere else is not written to, and not replaced."""
        machine = self.machine(ALPINE)
        machine.write("/srv/docker", "A=1\n")
        (machine.root / "etc/conf.d/docker").symlink_to("/srv/docker")
        before = machine.snapshot()
        self.refuse(machine.run(made("docker")), "/etc/conf.d/docker is a link")
        self.succeed(machine.run(made("docker", undo="1")))
        self.assertEqual(machine.snapshot(), before)

    def test_secrets(self) -> None:
        """What is kept of a file is for nobody but root."""
        machine = self.machine()
        self.succeed(machine.run(made("docker")))
        self.assertEqual((machine.root / "var/lib/regproxy-setup").stat().st_mode & 0o777, 0o700)

    def test_another_mode(self) -> None:
        """What the earlier mode set and the new one does not is taken back."""
        machine = self.machine()
        before = machine.snapshot()
        drop_in = "/etc/systemd/system/containerd.service.d/regproxy.conf"
        self.succeed(machine.run(made("containerd")))
        self.assertIn(drop_in, machine.snapshot())
        self.succeed(machine.run(made("containerd", mode="hosts")))
        self.assertNotIn(drop_in, machine.snapshot())
        self.assertEqual(machine.read("/etc/ssl/certs/bundle"), "")
        self.succeed(machine.run(made("containerd", undo="1")))
        self.assertEqual(machine.snapshot(), before)

    def test_part_of_a_script(self) -> None:
        """Of a script that arrived in part nothing is done."""
        machine = self.machine()
        before = machine.snapshot()
        text = made("docker")
        for end in range(0, len(text) - len("main"), 97):
            machine.run(text[:end])
            self.assertEqual(machine.snapshot(), before, end)


class CheckTests(MachineTestCase):
    """The request at the end."""

    def test_through_the_proxy(self) -> None:
        """It is a client's, to a registry."""
        machine = self.machine()
        self.succeed(machine.run(made("docker")))
        (request,) = (line for line in machine.log() if line.startswith("curl"))
        self.assertIn("--noproxy  --proxy http://proxy.example.net:3128 https://regis", request)

    def test_unreachable(self) -> None:
        """A proxy that does not answer is an error."""
        machine = self.machine()
        machine.write("/services/unreachable", "")
        self.refuse(machine.run(made("docker")), "https://registry-1.docker.io/v2/ did not answer")

    def test_no_program(self) -> None:
        """It is said when nothing was checked."""
        machine = self.machine()
        (machine.root / "usr/bin/curl").unlink()
        self.succeed(machine.run(made("docker")), "not checked")

    def test_wget(self) -> None:
        """GNU wget does as well; its code 6 says that the registry wants a login."""
        for code, good in ((0, True), (6, True), (8, True), (4, False), (5, False)):
            machine = self.machine()
            (machine.root / "usr/bin/curl").unlink()
            machine.command(
                "wget", f"case $1 in --version) echo GNU Wget 1.21 ;; *) exit {code} ;; esac"
            )
            result = machine.run(made("docker"))
            self.assertEqual(result.code == 0, good, str(result))

"""Tests for :mod:`regproxy.management.setup.scripts`."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.setup.choices import BadChoice, Choices, CloudChoices, unusable
from regproxy.management.setup.facts import Door, Facts
from regproxy.management.setup.kinds import KINDS, Cloud
from regproxy.management.setup.scripts import Authority, quoted, refusal, script, user_data
from regproxy.oci.errors import HostInvalid
from regproxy.oci.names import Host
from tests.support.certificates import make_ca
from tests.support.programs import needs, program

FACTS = Facts(
    proxy_port=3128,
    mirror=Door("http", 5000),
    name_server="10.0.0.5",
    registries=(Host("docker.io"), Host("registry.example.com", 5000)),
    plain_http=True,
)
AT = Host("proxy.example.net", 3128)
PEM = make_ca().certificate_pem
AUTHORITY = Authority.of(PEM)
FETCHED = evolve(AUTHORITY, certificates=())

# The whole of it, on lines of their own: nothing else depends on what was asked for.
_WORD = re.compile(r"^[a-z_]+='[^'\n]*'$", re.MULTILINE)

_good = st.sampled_from(
    ["proxy.example.net", "10.0.0.5:80", "[fd00::1]:3128", ".x.net,192.0.2.0/24"]
)
_bad = st.text() | st.text("'\"$`\\ \n;&|()<>a.:0")
# Good ones alone would never be refused, and bad ones never get through.
_texts = st.builds("".join, st.lists(_good | _bad, max_size=2))


def scripts(facts: Facts = FACTS) -> Iterator[tuple[str, str]]:
    """All there are, by what they are."""
    for kind in KINDS.values():
        for mode in kind.modes:
            if unusable(mode, facts) is None:
                choices = Choices.read(kind, {"mode": mode.value}, AT, facts)
                for authority in AUTHORITY, FETCHED:
                    yield f"{kind.name}-{mode}", script(choices, facts, authority)


def clouds() -> Iterator[tuple[str, str]]:
    """All user-data."""
    for cloud in Cloud:
        for runtime in "docker", "containerd":
            for mode in "proxy", "dns":
                query = {"cloud": cloud.value, "runtime": runtime, "mode": mode}
                choices = CloudChoices.read(query, AT, FACTS)
                yield f"{cloud} {runtime} {mode}", user_data(choices, FACTS, AUTHORITY)


class AuthorityTests(SynchronousTestCase):
    """What is to be trusted."""

    def test_fingerprint(self) -> None:
        """As openssl writes it, of the first certificate."""
        certificate = x509.load_pem_x509_certificate(PEM)
        expected = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
        authority = Authority.of(PEM + make_ca().certificate_pem)
        self.assertEqual(authority.fingerprint, expected)
        self.assertEqual(len(authority.certificates), 2)
        self.assertEqual(f"{authority.certificates[0]}\n".encode(), PEM)


class QuotingTests(SynchronousTestCase):
    """Words of a shell."""

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
    def test_shell(self, text: str) -> None:
        """A shell reads what was written."""
        command = f"printf '%s' {quoted(text)}"
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True)
        self.assertEqual(done.stdout.decode(), text)

    def test_refused(self) -> None:
        """What would end a line, or is no ASCII."""
        for text in "a\n", "\r", "\0", "ä", "\x7f", "\x1b":
            self.assertRaises(ValueError, quoted, text)

    @given(st.text())
    def test_refusal(self, text: str) -> None:
        """Whatever is said, as a script it says so and fails, and does nothing else."""
        done = subprocess.run(
            ["/bin/sh"], input=refusal(text).encode("ascii"), capture_output=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        plain = re.sub(r"[^ -~]", "?", text)
        self.assertEqual(done.stderr.decode(), f"regproxy: {plain}\n")


class ScriptTests(SynchronousTestCase):
    """All scripts."""

    @given(
        st.sampled_from([*KINDS]),
        st.dictionaries(st.sampled_from(["no_proxy", "proxy"]), _texts),
        _texts,
    )
    def test_nothing_outside_of_quotes(self, name: str, query: dict[str, str], host: str) -> None:
        """Of a query and a Host nothing gets anywhere but between single quotes."""
        try:
            at = Host.parse(host)
            choices = Choices.read(KINDS[name], query, at, FACTS)
        except (BadChoice, HostInvalid):
            return
        plain = Choices.read(KINDS[name], {}, AT, FACTS)
        texts = [script(each, FACTS, AUTHORITY) for each in (choices, plain)]
        one, other = (_WORD.sub("", text) for text in texts)
        self.assertEqual(one, other)

    @needs("shellcheck")
    def test_shellcheck(self) -> None:
        """They are POSIX sh."""
        directory = Path(self.mktemp())
        directory.mkdir()
        names = {text: name for name, text in (*scripts(), *scripts(evolve(FACTS, registries=())))}
        files: list[str] = []
        for text, name in names.items():
            files.append(str(directory / f"{name}-{len(files)}.sh"))
            Path(files[-1]).write_text(text)
        command = [program("shellcheck"), "--shell=sh", *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_fills_in(self) -> None:
        """What was chosen is there."""
        choices = Choices.read(KINDS["docker"], {"no_proxy": ".example.net"}, AT, FACTS)
        text = script(choices, FACTS, AUTHORITY)
        self.assertIn("\nproxy='http://proxy.example.net:3128'\n", text)
        self.assertIn(",metadata.google.internal,.example.net'\n", text)
        self.assertIn(f"\nfingerprint='{AUTHORITY.fingerprint}'\n", text)
        self.assertIn(PEM.decode(), text)
        self.assertIn('echo "HTTP_PROXY=$proxy"', text)
        secure = script(choices, evolve(FACTS, plain_http=False), FETCHED)
        self.assertNotIn('"HTTP_PROXY', secure)
        self.assertNotIn("BEGIN CERTIFICATE-----\n", secure)

    def test_version_6(self) -> None:
        """An address of version 6 has its brackets."""
        at = Host.parse("[fd00::5]:3128")
        text = script(Choices.read(KINDS["docker"], {}, at, FACTS), FACTS, AUTHORITY)
        self.assertIn("\nproxy='http://[fd00::5]:3128'\n", text)
        hosts = Choices.read(KINDS["k3s"], {"mode": "hosts"}, at, FACTS)
        self.assertIn("\nmirror='http://[fd00::5]:5000'\n", script(hosts, FACTS, AUTHORITY))

    def test_no_probe(self) -> None:
        """Where all registries have stars, the proxy itself is asked."""
        facts = evolve(FACTS, registries=())
        text = script(Choices.read(KINDS["docker"], {}, AT, facts), facts, AUTHORITY)
        self.assertIn('ask "$proxy/healthz"', text)

    def test_users_of_sed(self) -> None:
        """What users of docker-registry-proxy do to the script in kind's nodes still works."""
        choices = Choices.read(KINDS["systemd"], {}, AT, FACTS)
        text = script(choices, FACTS, AUTHORITY)
        text = re.sub(r"docker\.service", "containerd.service", text)
        text = re.sub("(?m)^(.*Environment.*)$", r'\1 "NO_PROXY=127.0.0.0/8"', text)
        self.assertIn("\nunits='containerd.service'\n", text)
        subprocess.run(["/bin/sh", "-n"], input=text.encode(), check=True)
        (line,) = (line for line in text.splitlines() if line.endswith('"NO_PROXY=127.0.0.0/8"'))
        self.assertRegex(line, "^ *key=Environment # ")


class UserDataTests(SynchronousTestCase):
    """cloud-init."""

    @needs("cloud-init")
    def test_schema(self) -> None:
        """cloud-init itself finds nothing wrong."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for name, text in clouds():
            file = directory / f"{name.replace(' ', '-')}.yaml"
            file.write_text(text)
            command = [program("cloud-init"), "schema", "--config-file", str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, f"{name}: {done.stdout}{done.stderr}")

    def test_script(self) -> None:
        """The script is in it, to the byte, and is run."""
        choices = CloudChoices.read({"cloud": "gcp"}, AT, FACTS)
        text = user_data(choices, FACTS, AUTHORITY)
        head, _, rest = text.partition("    content: |\n")
        content, _, tail = rest.partition("runcmd:\n")
        self.assertEqual(textwrap.dedent(content), script(choices.script, FACTS, AUTHORITY))
        self.assertIn("path: /usr/local/sbin/regproxy-setup\n", head)
        self.assertEqual(tail, "  - [sh, /usr/local/sbin/regproxy-setup]\n")

    def test_size(self) -> None:
        """AWS takes 16 KiB."""
        for name, text in clouds():
            self.assertTrue(text.startswith("#cloud-config\n"))
            self.assertLess(len(text), 16384, name)

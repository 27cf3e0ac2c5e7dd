"""What the environment of the container may say."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.errors import SettingsInvalid
from regproxy.node.settings import Mode, Settings, server

CA = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
GOOD = {
    "NODE_MODE": "proxy",
    "NODE_PROXY": "http://10.0.0.5:3128/",
    "NODE_NO_PROXY": "localhost,10.0.0.0/8,*.svc,[fd00::]/8",
    "NODE_MIRROR": "https://mirror.example.net:5000",
    "NODE_DNS": "10.0.0.5 FD00:0::5",
    "NODE_HOSTS": "docker.io  GHCR.io registry.example.com:5000",
}
HOSTS = ("docker.io", "ghcr.io", "registry.example.com:5000")


class SettingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ca = Path(self.mktemp())
        self.ca.write_bytes(CA)

    def read(self, **changes: str) -> Settings:
        return Settings.read(GOOD | changes, self.ca)

    def test_proxy(self) -> None:
        self.assertEqual(
            self.read(),
            Settings(
                Mode.PROXY,
                proxy="http://10.0.0.5:3128",
                no_proxy=GOOD["NODE_NO_PROXY"],
                hosts=HOSTS,
                ca=CA,
            ),
        )

    def test_mirror(self) -> None:
        """No CA is read: none is needed."""
        self.ca.unlink()
        found = self.read(NODE_MODE="mirror", NODE_HOSTS="docker.io _default")
        self.assertEqual(
            found,
            Settings(Mode.MIRROR, mirror=GOOD["NODE_MIRROR"], hosts=("docker.io", "_default")),
        )
        self.assertEqual(found.registries, ("docker.io",))

    def test_dns(self) -> None:
        found = self.read(NODE_MODE="dns")
        self.assertEqual(found.servers, ("10.0.0.5", "fd00::5"))
        names = "registry-1.docker.io", "ghcr.io", "registry.example.com", "auth.docker.io"
        self.assertEqual(found.names, names)

    def test_undo_needs_nothing(self) -> None:
        self.assertEqual(
            Settings.read({"NODE_MODE": "undo"}, Path("/nowhere")), Settings(Mode.UNDO)
        )

    def test_server(self) -> None:
        self.assertEqual(str(server("docker.io")), "registry-1.docker.io")
        self.assertEqual(str(server("docker.io:5000")), "docker.io:5000")

    def test_refused(self) -> None:
        for variable, value, mode in (
            ("NODE_MODE", "", "proxy"),
            ("NODE_MODE", "Proxy", "proxy"),
            ("NODE_PROXY", "", "proxy"),
            ("NODE_PROXY", "10.0.0.5:3128", "proxy"),
            ("NODE_PROXY", "http://10.0.0.5", "proxy"),
            ("NODE_PROXY", "http://10.0.0.5:99999", "proxy"),
            ("NODE_PROXY", "http://user:secret@10.0.0.5:3128", "proxy"),
            ("NODE_PROXY", 'http://10.0.0.5:3128"\nExecStart=/bin/sh', "proxy"),
            ("NODE_NO_PROXY", 'a"b', "proxy"),
            ("NODE_NO_PROXY", "a\nb", "proxy"),
            ("NODE_MIRROR", "ftp://mirror:5000", "mirror"),
            ("NODE_DNS", "", "dns"),
            ("NODE_DNS", "ns.example.net", "dns"),
            ("NODE_DNS", "10.0.0.5:53", "dns"),
            ("NODE_HOSTS", " ", "mirror"),
            ("NODE_HOSTS", "../etc", "mirror"),
            ("NODE_HOSTS", "ghcr.io/owner", "mirror"),
            ("NODE_HOSTS", "_default", "proxy"),
            ("NODE_HOSTS", "ghcr.io _default", "dns"),
        ):
            with self.subTest(variable=variable, value=value):
                changes = {"NODE_MODE": mode, variable: value}
                error = self.assertRaises(SettingsInvalid, self.read, **changes)
                self.assertIn(variable, str(error))

    def test_certificate(self) -> None:
        for content in (b"", b"MIIB", CA + b"-----BEGIN PRIVATE KEY-----\nAAAA\n"):
            with self.subTest(content=content):
                self.ca.write_bytes(content)
                error = self.assertRaises(SettingsInvalid, self.read)
                self.assertIn(str(self.ca), str(error))
                self.assertNotIn("AAAA", str(error))
        self.ca.unlink()
        self.assertRaises(SettingsInvalid, self.read)

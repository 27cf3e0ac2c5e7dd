"""Tests of regproxy.config.check_wayout, through the whole of reading a configuration."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.load import MASK, ConfigError, effective, loads
from regproxy.config.model import Config, RegistryLimits
from regproxy.config.wayout import DIRECT, Family, ParentProxy
from regproxy.oci.names import Host
from tests.support.certificates import ec_key, make_ca, make_leaf

DATA = Path("/data")
CA = make_ca()
LEAF = make_leaf(CA, dns=["proxy.example.com"])
OTHER = make_leaf(CA, dns=["other.example.com"], key=ec_key())
FILES = {
    "ca.pem": CA.certificate_pem,
    "cert.pem": LEAF.certificate_pem + CA.certificate_pem,
    "key.pem": LEAF.key_pem,
    "other-key.pem": OTHER.key_pem,
    "locked.pem": LEAF.encrypted_key_pem(b"x"),
    "junk.pem": b"junk",
    "password": b"geheim\n",
    "empty": b"\n",
    "long": b"x" * 256,
    "latin": b"\xff",
}


def read(path: Path) -> bytes:
    try:
        return FILES[path.name]
    except KeyError:
        raise FileNotFoundError(2, "No such file") from None


def load(text: str) -> Config:
    return loads(text, "f", data=DATA, read=read)


def found(text: str) -> list[str]:
    """The problems in *text*."""
    try:
        load(text)
    except ConfigError as error:
        return list(error.problems)
    return []


class ProxyTests(SynchronousTestCase):
    """``proxy``, in [upstream] and in registries"""

    def test_forms(self) -> None:
        """A text, or a table for one that needs more."""
        for value, expected in (
            ('"direct"', DIRECT),
            ('{url = "direct"}', DIRECT),
            ('"http://Proxy.example.com:3128"', ParentProxy("http://proxy.example.com:3128")),
            ('"HTTPS://proxy.example.com:443/"', ParentProxy("https://proxy.example.com:443")),
            ('"socks5://[2001:DB8::1]:1080"', ParentProxy("socks5://[2001:db8::1]:1080")),
            ('"socks5h://10.0.0.1:1080"', ParentProxy("socks5h://10.0.0.1:1080")),
            (
                '{url = "https://a.b:1", username = "u", password_file = "password",'
                ' ca_file = "ca.pem"}',
                ParentProxy(
                    "https://a.b:1",
                    "u",
                    password_file=Path("/password"),
                    ca_file=Path("/ca.pem"),
                ),
            ),
            (
                '{url = "socks5://a.b:1", username = "u", password = "geheim"}',
                ParentProxy("socks5://a.b:1", "u", "geheim"),
            ),
        ):
            config = load(f"[upstream]\nproxy = {value}\n[registries.'a.b']\nproxy = {value}")
            self.assertEqual(config.upstream.proxy, expected)
            self.assertEqual(config.registries[Host("a.b")].proxy, expected)

    def test_table(self) -> None:
        """TOML's own table is the same."""
        config = load(
            "[upstream.proxy]\nurl = 'http://a.b:1'\n[registries.'a.b'.proxy]\nurl='direct'"
        )
        self.assertEqual(config.upstream.proxy, ParentProxy("http://a.b:1"))
        self.assertEqual(config.registries[Host("a.b")].proxy, DIRECT)

    def test_nothing_said(self) -> None:
        config = load("[registries.'a.b']")
        self.assertEqual(config.upstream.proxy, DIRECT)
        self.assertIsNone(config.registries[Host("a.b")].proxy)

    def test_bad_url(self) -> None:
        """What is wrong, never with what may be a password."""
        for url in (
            "",
            "proxy:3128",
            "http://proxy",
            "http://proxy:0",
            "http://proxy:3128/path",
            "ftp://proxy:21",
            "socks4://proxy:1080",
            "http://user:geheim@proxy:3128",
            "http://a_*:3128",
        ):
            for section in "upstream", "registries.'a.b'":
                (line,) = found(f"[{section}]\nproxy = '{url}'")
                self.assertRegex(line, r'proxy\.url: expected "direct", or http, https, socks5')
                self.assertNotIn("geheim", line)

    def test_bad_kind(self) -> None:
        (line,) = found("[upstream]\nproxy = 3128")
        self.assertEqual(line, "upstream.proxy: expected a table, found a number")

    def test_bad_login(self) -> None:
        for keys, expected in (
            ("username = 'u'", "username: needs password_file or password"),
            ("password = 'p'", "username: missing: a password needs a user name"),
            ("username = 'a:b'\npassword = 'p'", "username: expected a name without a colon"),
            ("username = 'u'\npassword = ''", "password: empty"),
            ("username = 'u'\npassword_file = 'empty'", "password_file: empty"),
            ("username = 'u'\npassword_file = 'latin'", "password_file: not UTF-8"),
            ("username = 'u'\npassword_file = 'gone'", "password_file: cannot read '/gone'"),
            (
                "username = 'u'\npassword = 'p'\npassword_file = 'password'",
                "password_file: not",
            ),
            ("ca_file = 'junk.pem'", "ca_file: expected certificates in PEM form"),
            ("user = 'u'", "user: unknown key; did you mean username?"),
        ):
            (line,) = found(f"[upstream.proxy]\nurl = 'https://a.b:1'\n{keys}")
            self.assertIn(f"upstream.proxy.{expected}", line)

    def test_keys_that_do_not_fit(self) -> None:
        for url, keys, expected in (
            ("direct", "username = 'u'\npassword = 'p'", 'url: "direct" is no proxy'),
            ("http://a.b:1", "ca_file = 'ca.pem'", "ca_file: is for https:// proxies"),
            ("socks5://a.b:1", "ca_file = 'ca.pem'", "ca_file: is for https:// proxies"),
            (
                "socks5h://a.b:1",
                "username = 'u'\npassword_file = 'long'",
                "password: SOCKS5 takes at most 255 bytes",
            ),
        ):
            (line,) = found(f"[upstream.proxy]\nurl = '{url}'\n{keys}")
            self.assertIn(expected, line)

    def test_password_is_never_shown(self) -> None:
        """And what is shown can be read again."""
        config = load(
            "[upstream.proxy]\nurl = 'http://a.b:1'\nusername = 'u'\npassword = 'geheim'\n"
            "[registries.'a.b'.proxy]\nurl = 'http://a.b:2'\nusername = 'u'\npassword = 'geheim'\n"
            "[registries.'c.d'.proxy]\nurl = 'http://a.b:3'\nusername = 'u'\n"
            "password_file = 'password'"
        )
        text = effective(config)
        self.assertNotIn("geheim", text + repr(config))
        self.assertEqual(text.count(f'password = "{MASK}"'), 2)
        self.assertEqual(effective(load(text)), text)


class UpstreamTests(SynchronousTestCase):
    """The rest of ``[upstream]``, and what registries say otherwise"""

    def test_keys(self) -> None:
        config = load(
            "[upstream]\nno_proxy = ['.example.com', '10.0.0.0/8', '*']\n"
            "source_address = ['192.0.2.9', '2001:db8::9']\nfamily = 'prefer-ipv4'\n"
            "[registries.'a.b']\nfamily = 'ipv6'\nsource_address = []"
        )
        self.assertEqual(config.upstream.no_proxy, (".example.com", "10.0.0.0/8", "*"))
        self.assertEqual(config.upstream.source_address, ("192.0.2.9", "2001:db8::9"))
        self.assertEqual(config.upstream.family, Family.PREFER_IPV4)
        section = config.registries[Host("a.b")]
        self.assertEqual((section.family, section.source_address), (Family.IPV6, ()))

    def test_bad(self) -> None:
        for text, expected in (
            (
                "[upstream]\nno_proxy = ['ok', '10.0.0.1/8']",
                r"^upstream\.no_proxy\[1\]: expected \*, a host.* found '10\.0\.0\.1/8'$",
            ),
            (
                "[upstream]\nsource_address = ['eth0']",
                r"^upstream\.source_address\[0\]: expected an IP address, found 'eth0'$",
            ),
            (
                "[upstream]\nsource_address = ['192.0.2.1', '192.0.2.2']",
                r"^upstream\.source_address\[1\]: there is an IPv4 address already$",
            ),
            (
                "[registries.'a.b']\nsource_address = ['::1', '::2']",
                r'^registries\."a\.b"\.source_address\[1\]: there is an IPv6 address already$',
            ),
            (
                "[upstream]\nfamily = 'ipv5'",
                r'^upstream\.family: expected "any" or "prefer-ipv4" or .* found \'ipv5\'$',
            ),
            (
                "[registries.'a.b']\ntag_source = 'mirror'",
                r'tag_source: expected "origin" or "first", found \'mirror\'$',
            ),
        ):
            (line,) = found(text)
            self.assertRegex(line, expected)

    def test_limits(self) -> None:
        """Some of [limits], for one registry."""
        config = load(
            "[registries.'a.b'.limits]\nconnect = '3s'\nupstream_head = '1m'\n"
            "upstream_idle = '2m'\nupstream_rate = '1KiB'"
        )
        limits = config.registries[Host("a.b")].limits
        self.assertEqual(limits, RegistryLimits(3.0, 60.0, 120.0, 1024))
        self.assertEqual(
            found("[registries.'a.b'.limits]\nconnect = 0\nupstream_rate = 0"),
            [
                f'registries."a.b".limits.{key}: expected more than 0, found 0'
                for key in ("connect", "upstream_rate")
            ],
        )


class ClientCertificateTests(SynchronousTestCase):
    """``client_cert`` and ``client_key``"""

    def found(self, keys: str) -> list[str]:
        return [
            line.removeprefix('registries."a.b".') for line in found(f"[registries.'a.b']\n{keys}")
        ]

    def test_good(self) -> None:
        """The first certificate is the proxy's own."""
        self.assertEqual(self.found("client_cert = 'cert.pem'\nclient_key = 'key.pem'"), [])

    def test_bad(self) -> None:
        for cert, key, expected in (
            ("cert.pem", None, "client_key: missing: client_cert needs its key"),
            (None, "key.pem", "client_cert: missing: client_key needs its certificate"),
            ("cert.pem", "other-key.pem", "client_key: is not the key of the first certificate"),
            ("cert.pem", "junk.pem", "client_key: expected a private key in PEM form"),
            ("cert.pem", "locked.pem", "client_key: expected a private key in PEM form, without"),
            ("junk.pem", "key.pem", "client_cert: expected certificates in PEM form"),
            ("gone", "key.pem", "client_cert: cannot read '/gone'"),
            ("cert.pem", "gone", "client_key: cannot read '/gone'"),
        ):
            keys = [
                f"{name} = '{file}'"
                for name, file in (("client_cert", cert), ("client_key", key))
                if file is not None
            ]
            (line,) = self.found("\n".join(keys))
            self.assertIn(expected, line)

"""Tests of regproxy.config.load."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.load import (
    MASK,
    ConfigError,
    default_data,
    effective,
    load,
    loads,
    resolved,
)
from regproxy.config.model import (
    Access,
    Auth,
    CacheSection,
    CASection,
    Config,
    FreshnessRule,
    FreshnessSection,
    GiB,
    HostPattern,
    InterceptionSection,
    LimitsSection,
    MirrorSection,
    ProxySection,
    Push,
    RegistryLimits,
    RegistrySection,
    RelaySection,
    TagSource,
    TLSSection,
)
from regproxy.config.wayout import DIRECT, Family, ParentProxy, UpstreamSection
from regproxy.oci.names import DOCKER_HUB, Host
from tests.oci.strategies import hosts
from tests.support.certificates import make_ca

DATA = Path("/data")
PASSWORD = "correct horse"

NO_LOGIN = (
    'auth: "{}" needs username and password_file or password,'
    " or a login in credentials.docker_config"
)

# The example of the documentation.
EXAMPLE = r"""
data = "/var/lib/regproxy"

[proxy]
listen = ["tcp:3128"]

[tls]
listen = ["tcp:443"]

[mirror]
listen = ["tcp:5000"]

[dns]
listen = ["10.0.0.5:53"]
addresses = ["10.0.0.5"]
forward_to = ["10.0.0.2"]

[management]
listen = ["tcp:8080:interface=127.0.0.1"]

[cache]
directory = "/var/lib/regproxy/cache"
max_size = "32GiB"
inactive = "60d"

[ca]
directory = "/var/lib/regproxy/ca"

[freshness]
default = "0s"
stale_if_error = "7d"
[[freshness.rule]]
match = '^v?\d+\.\d+\.\d+$'
max_age = "1d"

[registries."registry-1.docker.io"]
upstream = ["https://registry-1.docker.io"]
auth = "inject"
username = "team"
password_file = "/run/secrets/hub"
access = "shared"
push = "deny"

[registries."registry.example.com:5000"]
upstream = ["https://10.0.0.7:5000"]
ca_file = "/etc/ssl/example-ca.pem"
relay_private = true
"""

CERTIFICATE = make_ca().certificate_pem


def read(path: Path) -> bytes:
    """A PEM file holds a certificate, every other one the password, as an editor leaves it."""
    if path.suffix == ".pem":
        return CERTIFICATE
    return f"{PASSWORD}\n".encode()


def refuse(path: Path) -> bytes:
    """No file can be read."""
    raise PermissionError(13, "Permission denied")


def found(text: str) -> tuple[str, ...]:
    """The problems in *text*."""
    try:
        loads(text, "f", data=DATA, read=read)
    except ConfigError as error:
        return error.problems
    return ()


class LoadsTests(SynchronousTestCase):
    """loads"""

    def test_nothing(self) -> None:
        """All defaults."""
        config = loads("", "f", data=DATA)
        self.assertEqual(config, resolved(Config(DATA)))
        self.assertEqual(config.cache.directory, DATA / "cache")
        self.assertEqual(config.cache.max_size, 32 * GiB)
        self.assertEqual(config.proxy.listen, ("tcp:3128",))
        self.assertEqual(config.tls.listen, ())

    def test_example(self) -> None:
        """The documented example means what it says."""
        config = loads(EXAMPLE, "f", data=None, read=read)
        self.assertEqual(config.data, Path("/var/lib/regproxy"))
        self.assertEqual(config.tls.listen, ("tcp:443",))
        self.assertEqual(config.mirror, MirrorSection(("tcp:5000",), Host(DOCKER_HUB)))
        self.assertEqual(config.cache.inactive, 60 * 86400.0)
        self.assertEqual(
            config.registries[Host(DOCKER_HUB)],
            RegistrySection(
                upstream=("https://registry-1.docker.io",),
                auth=Auth.INJECT,
                username="team",
                password=PASSWORD,
                password_file=Path("/run/secrets/hub"),
                access=Access.SHARED,
                push=Push.DENY,
            ),
        )
        section = config.registries[Host("registry.example.com", 5000)]
        self.assertEqual(section.upstream, ("https://10.0.0.7:5000",))
        self.assertEqual(section.effective_auth, Auth.FORWARD)
        self.assertTrue(section.relay_private)

    def test_not_toml(self) -> None:
        """The message has the line and the column."""
        (line,) = found("[proxy]\nlisten = [")
        self.assertRegex(line, r"^not TOML: .*line 2|^not TOML: .*end of document")
        (line,) = found("[proxy]\nlisten = ?")
        self.assertRegex(line, r"^not TOML: .*line 2, column 10")
        for text in ("a = " + "9" * 5000, "a = " + "[" * 100_000):
            (line,) = found(text)
            self.assertRegex(line, "^not TOML: ")

    def test_no_data(self) -> None:
        """Without a default it has to be said."""
        error = self.assertRaises(ConfigError, loads, "", "f", data=None)
        self.assertEqual(str(error), "f: data: missing")

    def test_message(self) -> None:
        """Every line begins with the file."""
        error = self.assertRaises(
            ConfigError, loads, "[proxy]\nlisten=['']\n[x]", "a.toml", data=DATA
        )
        self.assertEqual(
            str(error).splitlines(),
            [
                'a.toml: proxy.listen[0]: expected an endpoint such as "tcp:3128",'
                " found an empty text",
                "a.toml: x: unknown key (allowed: data, proxy, tls, mirror, dns, management,"
                " interception, relay, upstream, cache, ca, freshness, limits, credentials,"
                " registries)",
            ],
        )

    def test_sections(self) -> None:
        """Checks of single sections."""
        for text, pattern in {
            "[tls]\nlisten = [' ']": r"^tls\.listen\[0\]: expected an endpoint",
            "[tls]\nhttp_listen = ['tcp:80', '']": r"^tls\.http_listen\[1\]: expected an endpoint",
            "[tls]\ndefault_registry = 'a b'": r"^tls\.default_registry: invalid host 'a b'",
            "[tls]\ndefault_registry = 5": r"^tls\.default_registry: expected a text, found",
            "[tls]\ndefault_registry = 'example.org'": (
                r"^tls\.default_registry: not a registry .* add example\.org to \[registries\]$"
            ),
            "[proxy]\ntls_names = ['a', '*.b']": r"^proxy\.tls_names\[1\]: .*found '\*\.b'$",
            "[proxy]\ntls_names = ['a:3128']": r"^proxy\.tls_names\[0\]: .*found 'a:3128'$",
            "[mirror]\nlisten = ['']": r"^mirror\.listen\[0\]: expected an endpoint",
            "[mirror]\ndefault_registry = 'a/b'": r"^mirror\.default_registry: invalid host 'a/b'",
            "[mirror]\ndefault_registry = 1": r"^mirror\.default_registry: expected a text",
            "[dns]\nforward_to = ['x']": r"^dns\.forward_to\[0\]: expected an address.*found 'x'$",
            "[relay]\nallow = ['10.0.0.0/8', 'x']": r"^relay\.allow\[1\]: .*found 'x'$",
            "[cache]\nmax_size = 0": r"^cache\.max_size: expected more than 0, found 0$",
            "[freshness]\nnot_found = '11s'": (
                r"^freshness\.not_found: expected at most 10s, found 11s$"
            ),
            "[limits]\nconnect = '0s'": r"^limits\.connect: expected more than 0, found 0$",
        }.items():
            (line,) = found(text)
            self.assertRegex(line, pattern)

    def test_names(self) -> None:
        """They get the form in which clients' are compared."""
        text = "[proxy]\ntls_names = ['Proxy.example.', '2001:DB8:0::1', '10.0.0.5']"
        names = loads(text, "f", data=DATA).proxy.tls_names
        self.assertEqual(names, ("proxy.example", "2001:db8::1", "10.0.0.5"))
        text = "[tls]\ndefault_registry = 'Docker.io'"
        self.assertEqual(loads(text, "f", data=DATA).tls.default_registry, Host(DOCKER_HUB))

    def test_default_registry(self) -> None:
        """A host, by any of its names; Docker Hub if nothing is said."""
        for text, host in (
            ("", Host(DOCKER_HUB)),
            ("default_registry = 'docker.io'", Host(DOCKER_HUB)),
            ("default_registry = 'Registry.example.com:5000'", Host("registry.example.com", 5000)),
        ):
            config = loads(f"[mirror]\n{text}", "f", data=DATA)
            self.assertEqual(config.mirror.default_registry, host)
            self.assertEqual(loads(effective(config), "f", data=None), config)


class RegistryTests(SynchronousTestCase):
    """``[registries."HOST"]``"""

    def found(self, keys: str) -> list[str]:
        """The problems of a section, without the path of the section."""
        return [
            line.removeprefix('registries."a.b".') for line in found(f"[registries.'a.b']\n{keys}")
        ]

    def test_credentials(self) -> None:
        """A name and one password, or neither."""
        for keys, expected in {
            "username='u'": ["username: needs password_file or password"],
            "password='p'": ["username: missing: a password needs a user name"],
            "password_file='p'": ["username: missing: a password needs a user name"],
            "username='u'\npassword='p'\npassword_file='p'": [
                "password_file: not together with password: give one of them"
            ],
            "auth='inject'": [NO_LOGIN.format("inject")],
            "auth='client-first'": [NO_LOGIN.format("client-first")],
            "auth='client-first'\nusername='u'\npassword='p'": [],
            "username='a:b'\npassword='p'": [
                "username: expected a name without a colon or control characters"
            ],
            "username=''\npassword='p'": [
                "username: expected a name without a colon or control characters"
            ],
            "username='u'\npassword=''": ["password: empty"],
            "username='u'\npassword='p'": [],
            "username='u'\npassword_file='p'\nauth='forward'": [],
        }.items():
            self.assertEqual(self.found(keys), expected, keys)

    def test_password_file(self) -> None:
        """One line end is not part of the password, and more are."""
        for content, password in {b"p": "p", b"p\n": "p", b"p\r\n": "p", b" p\n\n": " p\n"}.items():
            config = loads(
                "[registries.'a.b']\nusername='u'\npassword_file='p'",
                "f",
                data=DATA,
                read={Path("/p"): content}.__getitem__,
            )
            self.assertEqual(config.registries[Host("a.b")].password, password)

    def test_bad_password_file(self) -> None:
        """Empty, or not text."""
        for content, message in {b"\n": "empty", b"\xff": "not UTF-8"}.items():
            error = self.assertRaises(
                ConfigError,
                loads,
                "[registries.'a.b']\nusername='u'\npassword_file='p'",
                "f",
                data=DATA,
                read={Path("/p"): content}.__getitem__,
            )
            self.assertEqual(error.problems, (f'registries."a.b".password_file: {message}',))

    def test_no_certificates(self) -> None:
        """They are needed at the start, not at the first pull."""
        (problem,) = found("[registries.'a.b']\nca_file='/c'")
        self.assertIn('registries."a.b".ca_file: expected certificates in PEM form', problem)
        self.assertIn("found none that can be read in '/c'", problem)

    def test_passphrase(self) -> None:
        """It is in the file or beside it, and not shown."""
        config = loads(f"[ca]\npassphrase = '{PASSWORD}'", "f", data=DATA)
        self.assertEqual(config.ca.passphrase, PASSWORD)
        self.assertIn(f'passphrase = "{MASK}"', effective(config))
        self.assertNotIn(PASSWORD, effective(config) + repr(config))
        (problem,) = found(f"[ca]\npassphrase = '{PASSWORD}'\npassphrase_file = '/p'")
        self.assertEqual(
            problem, "ca.passphrase_file: not together with passphrase: give one of them"
        )

    def test_unreadable_files(self) -> None:
        """Files are needed at the start, not at the first pull."""
        error = self.assertRaises(
            ConfigError,
            loads,
            "[ca]\npassphrase_file='k'\n"
            "[registries.'a.b']\nca_file='/c'\nusername='u'\npassword_file='p'",
            "f",
            data=DATA,
            read=refuse,
        )
        self.assertEqual(
            error.problems,
            (
                "ca.passphrase_file: cannot read '/k': Permission denied",
                "registries.\"a.b\".password_file: cannot read '/p': Permission denied",
                "registries.\"a.b\".ca_file: cannot read '/c': Permission denied",
            ),
        )

    def test_upstream(self) -> None:
        """Addresses get one form, without a slash at the end."""
        for text, canonical in {
            "https://A.b": "https://a.b",
            "HTTPS://a.b:443/": "https://a.b",
            "https://a.b:5000/x/y.z/": "https://a.b:5000/x/y.z",
            "https://[::1]:5000": "https://[::1]:5000",
            "http://a.b:80": "http://a.b",
            "http://a.b:443": "http://a.b:443",
        }.items():
            config = loads(
                f"[registries.'a.b']\nplain_http=true\nupstream=['{text}']", "f", data=DATA
            )
            self.assertEqual(config.registries[Host("a.b")].upstream, (canonical,))

    def test_bad_upstream(self) -> None:
        """What might hold a secret is not repeated."""
        for text in (
            "a.b",
            "ftp://a.b",
            "https://",
            f"https://u:{PASSWORD}@a.b",
            f"https://u:{PASSWORD.split()[0]}@a.b",
            "https://a.b?x=secret",
            "https://a.b/#secret",
            "https://a.b/x/../y",
            "https://a.b/.",
            "https://a.b//x",
            "https://a.b/%2e",
            "https://a.b:x",
            "https://a..b",
        ):
            (line,) = self.found(f"upstream=['https://ok', '{text}']")
            self.assertRegex(line, r"^upstream\[1\]: expected http\(s\)://HOST\[:PORT\]\[/PREFIX\]")
            self.assertNotRegex(line, "secret|correct")
        (line,) = self.found("upstream=['http://a.b']")
        self.assertEqual(line, "upstream[0]: http:// needs plain_http = true, found 'http://a.b'")

    def test_password_is_never_shown(self) -> None:
        """Neither in a message nor in the effective configuration nor in the repr."""
        for keys in (
            f"password='{PASSWORD}'",
            f"password=['{PASSWORD}']",
            f"passwrd='{PASSWORD}'",
            f"username='u'\npassword='{PASSWORD}'\npassword_file='p'",
            f"username='u'\npassword='{PASSWORD}'\nauth='x'",
        ):
            lines = self.found(keys)
            self.assertTrue(lines)
            self.assertNotIn("correct", "".join(lines))
        config = loads(f"[registries.'a.b']\nusername='u'\npassword='{PASSWORD}'", "f", data=DATA)
        self.assertNotIn("correct", effective(config) + repr(config))
        self.assertIn(f'password = "{MASK}"', effective(config))
        self.assertNotIn("correct", effective(loads(EXAMPLE, "f", data=None, read=read)))


class LoadTests(SynchronousTestCase):
    """load"""

    def test_no_file(self) -> None:
        """All defaults."""
        config = load(None, environ={"HOME": "/home/u"}, uid=1000)
        self.assertEqual(config.data, Path("/home/u/.local/state/regproxy"))

    def test_relative_paths(self) -> None:
        """They start where the file is."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "password").write_text("p\n")
        path = directory / "regproxy.toml"
        path.write_text("data='d'\n[registries.'a.b']\nusername='u'\npassword_file='password'")
        config = load(path)
        self.assertEqual(config.data, directory / "d")
        self.assertEqual(config.registries[Host("a.b")].password, "p")

    def test_unreadable(self) -> None:
        """A file that is not there, or is no text."""
        path = Path(self.mktemp())
        error = self.assertRaises(ConfigError, load, path)
        self.assertEqual(str(error), f"{path}: cannot be read: No such file or directory")
        path.write_bytes(b"\n\xff")
        error = self.assertRaises(ConfigError, load, path)
        self.assertEqual(str(error), f"{path}: not UTF-8 at octet 1")


class DefaultDataTests(SynchronousTestCase):
    """default_data"""

    def test_root(self) -> None:
        """The system's place."""
        self.assertEqual(default_data(0, {"HOME": "/root"}), Path("/var/lib/regproxy"))

    def test_user(self) -> None:
        """The user's state, as the XDG specification has it."""
        for environ, path in (
            ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, Path("/s/regproxy")),
            ({"XDG_STATE_HOME": "s", "HOME": "/h"}, Path("/h/.local/state/regproxy")),
            ({"XDG_STATE_HOME": "", "HOME": "/h"}, Path("/h/.local/state/regproxy")),
            ({}, None),
        ):
            self.assertEqual(default_data(1000, environ), path)


_Keys = st.SearchStrategy[dict[str, Any]]

_names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=":"), min_size=1)
_paths = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1)
).map(lambda parts: Path("/", *parts))
_listeners = st.lists(_names.filter(str.strip), max_size=3).map(tuple)
_durations = st.floats(0, 1e9).map(lambda value: round(value, 9))
_positive = st.integers(1, 1 << 62)
_auth = st.sampled_from([None, *Auth])


def _with_password(password: str, path: st.SearchStrategy[Path | None]) -> _Keys:
    return st.fixed_dictionaries(
        {
            "username": _names,
            "password": st.just(password),
            "password_file": path,
            "auth": _auth,
        }
    )


_nobody: _Keys = st.just({})
_credentials = _nobody | _with_password(MASK, st.none()) | _with_password(PASSWORD, _paths)
_plain = st.booleans().flatmap(
    lambda plain: st.fixed_dictionaries(
        {
            "plain_http": st.just(plain),
            "upstream": st.lists(
                hosts.map(lambda host: f"{'http' if plain else 'https'}://{host.authority}/a/b")
            ).map(tuple),
        }
    )
)
_sources = st.sampled_from([(), ("192.0.2.9",), ("192.0.2.9", "2001:db8::9")])
_proxies = st.just(DIRECT) | st.builds(
    lambda scheme, host, login: ParentProxy(f"{scheme}://{host.authority}", **login),
    st.sampled_from(["http", "https"]),
    hosts,
    st.sampled_from(
        [
            {},
            {"username": "u", "password": MASK},
            {"username": "u", "password_file": Path("/password")},
        ]
    ),
)
_registries = st.builds(
    lambda section, credentials, plain: evolve(section, **credentials, **plain),
    st.builds(
        RegistrySection,
        access=st.sampled_from([None, *Access]),
        push=st.sampled_from(Push),
        ca_file=st.none() | st.just(Path("/ca.pem")),
        insecure=st.booleans(),
        relay_private=st.booleans(),
        tag_source=st.sampled_from(TagSource),
        proxy=st.none() | _proxies,
        source_address=st.none() | _sources,
        family=st.sampled_from([None, *Family]),
        limits=st.builds(
            RegistryLimits,
            st.none() | st.just(1.5),
            upstream_rate=st.none() | _positive,
        ),
    ),
    _credentials,
    _plain,
)
_configs = st.builds(
    Config,
    data=_paths,
    proxy=st.builds(
        ProxySection, _listeners, st.lists(hosts.map(lambda host: host.name)).map(tuple)
    ),
    tls=st.builds(
        TLSSection,
        _listeners,
        st.booleans(),
        st.sampled_from([None, Host("docker.io", 5000)]),
        _listeners,
    ),
    interception=st.builds(
        InterceptionSection, st.lists(hosts.map(str).map(HostPattern.parse)).map(tuple)
    ),
    relay=st.builds(RelaySection, st.sampled_from([(), ("10.0.0.0/8", "[::1]:5000")])),
    upstream=st.builds(
        UpstreamSection,
        _proxies,
        st.lists(hosts.map(lambda host: host.authority)).map(tuple),
        _sources,
        st.sampled_from(Family),
    ),
    cache=st.builds(
        CacheSection,
        max_size=_positive,
        inactive=st.just(1.5),
        min_free=st.integers(0, 9),
        verify=st.just(0.5),
    ),
    ca=st.builds(CASection, directory=st.none() | _paths, passphrase_file=st.none() | _paths),
    freshness=st.builds(
        FreshnessSection,
        default=_durations,
        stale_if_error=_durations,
        not_found=st.sampled_from([0.0, 0.25, 10.0]),
        rule=st.lists(
            st.builds(
                FreshnessRule,
                st.text(alphabet="ab.\\'\"").map(re.escape).map(re.compile),
                _durations,
            )
        ).map(tuple),
    ),
    limits=st.builds(LimitsSection, connect=st.just(0.25), manifest_size=_positive),
    # The first is the default registry.
    registries=st.builds(
        lambda first, others: {Host("docker.io", 5000): first} | others,
        _registries,
        st.dictionaries(hosts.map(lambda host: host.canonical), _registries, max_size=3),
    ),
)


class DockerConfigTests(SynchronousTestCase):
    """``[credentials] docker_config``"""

    LOGIN = b'{"auths": {"ghcr.io": {"auth": "dTpw"}, "hub.corp:5000": {"auth": "dTpw"}}}'

    def loads(self, text: str, **files: bytes) -> Config:
        def read(path: Path) -> bytes:
            return files.get(path.name) or refuse(path)

        return loads(text, "f", data=DATA, read=read)

    def problems(self, text: str, **files: bytes) -> tuple[str, ...]:
        found: tuple[str, ...] = self.assertRaises(ConfigError, self.loads, text, **files).problems
        return found

    def test_counts_as_login(self) -> None:
        """Where it has a login the defaults are those of a user name: inject, shared."""
        config = self.loads("[credentials]\ndocker_config = '/a'", a=self.LOGIN)
        section = config.registries[Host("ghcr.io")]
        self.assertEqual((section.auth, section.access), (Auth.INJECT, Access.SHARED))
        self.assertEqual(section.upstream, ("https://ghcr.io",))

    def test_not_intercepted(self) -> None:
        """A login alone does not have a registry intercepted; a section has."""
        credentials = "[credentials]\ndocker_config = '/a'\n"
        host = Host("hub.corp", 5000)
        config = self.loads(credentials, a=self.LOGIN)
        self.assertNotIn(host, config.registries)
        config = self.loads(credentials + "[registries.'hub.corp:5000']", a=self.LOGIN)
        self.assertEqual(config.registries[host].auth, Auth.INJECT)

    def test_section_decides(self) -> None:
        """What the section says about auth stays."""
        for auth, access in {"forward": Access.VERIFY, "client-first": Access.VERIFY}.items():
            text = f"[credentials]\ndocker_config='/a'\n[registries.'ghcr.io']\nauth='{auth}'"
            section = self.loads(text, a=self.LOGIN).registries[Host("ghcr.io")]
            self.assertEqual((section.auth, section.access), (auth, access))

    def test_several(self) -> None:
        """The logins of all files count."""
        text = "[credentials]\ndocker_config = ['/a', '/b']"
        config = self.loads(text, a=b'{"auths": {"quay.io": {"auth": "dTpw"}}}', b=self.LOGIN)
        self.assertEqual(list(config.registries), [Host("ghcr.io"), Host("quay.io")])

    def test_bad_files(self) -> None:
        """All problems, with the key, the file, and the key in the file; no secret."""
        secret = base64.b64encode(PASSWORD.encode()).decode()
        content = f'{{"auths": {{"ghcr.io": {{"auth": "{secret}"}}, "*.io": {{}}}}}}'.encode()
        found = self.problems("[credentials]\ndocker_config = ['/a', '/b']", b=content)
        self.assertEqual(
            found,
            (
                "credentials.docker_config[0]: cannot read '/a': Permission denied",
                "credentials.docker_config[1]: '/b': auths.\"ghcr.io\": auth: expected base64 of"
                " USER:PASSWORD",
                "credentials.docker_config[1]: '/b': auths.\"*.io\": expected a registry's host;"
                " patterns are not known here",
            ),
        )
        self.assertEqual(
            self.problems("[credentials]\ndocker_config = '/a'", a=b"{"),
            ("credentials.docker_config: '/a': not JSON",),
        )

    def test_no_login(self) -> None:
        """Who asks for a login has to have one in the files."""
        text = "[credentials]\ndocker_config='/a'\n[registries.'quay.io']\nauth='inject'"
        (line,) = self.problems(text, a=self.LOGIN)
        self.assertEqual(line, f'registries."quay.io".{NO_LOGIN.format("inject")}')

    def test_effective(self) -> None:
        """The files are named, the registries are there, the secrets are not."""
        text = effective(self.loads("[credentials]\ndocker_config = '/a'", a=self.LOGIN))
        self.assertIn('docker_config = [\n    "/a",\n]', text)
        self.assertIn('[registries."ghcr.io"]', text)
        self.assertNotIn("dTpw", text)
        again = self.loads(text, a=self.LOGIN)
        self.assertEqual(effective(again), text)


class EffectiveTests(SynchronousTestCase):
    """effective"""

    @given(_configs)
    @settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50)
    def test_round_trip(self, config: Config) -> None:
        """It is a configuration file that means the same, and what it gives is stable."""
        text = effective(config)
        again = loads(text, "f", data=None, read=read)
        self.assertEqual(again, resolved(config))
        self.assertEqual(effective(again), text)

    def test_example(self) -> None:
        """So with the documented example."""
        config = loads(EXAMPLE, "f", data=None, read=read)
        self.assertEqual(loads(effective(config), "f", data=None, read=read), config)

    def test_defaults_are_filled_in(self) -> None:
        """What follows from other keys is shown."""
        text = effective(loads("[registries.'docker.io']", "f", data=DATA))
        self.assertIn('directory = "/data/ca"', text)
        self.assertIn('[registries."registry-1.docker.io"]', text)
        self.assertIn('auth = "forward"', text)
        self.assertIn('access = "verify"', text)
        self.assertIn('"https://registry-1.docker.io"', text)

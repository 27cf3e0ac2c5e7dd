"""Tests of regproxy.config.compat."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config import compat
from regproxy.config.compat import IDLE, ROWS, translate
from regproxy.config.load import ConfigError, effective, from_table
from regproxy.config.model import Access, Auth, Config, GiB, Push, RegistrySection
from regproxy.config.wayout import Family
from regproxy.oci.names import DOCKER_HUB, Host, Tag
from regproxy.policy.freshness import max_age

HUB = Host(DOCKER_HUB)
SECRET = "correct-horse-battery-staple"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

VARIABLES = (*ROWS, *IDLE)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
HOSTS = st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}){1,2}", fullmatch=True)
# What neither of the delimiters occurs in.
WORDS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":;"), min_size=1
)


def no_file(path: Path) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", str(path))


def load(environ: Mapping[str, str], key: bytes | None = None) -> Config:
    """The configuration of an *environ*, with *key* as that of the CA."""

    def read(path: Path) -> bytes:
        if key is None:
            return no_file(path)
        assert path == Path("/ca/ca.key")
        return key

    return compat.load(lambda remark: None, environ={"HOME": "/", **environ}, read=read)


def remarks(**environ: str) -> tuple[str, ...]:
    return translate(environ, encrypted=False).remarks


class DefaultTests(SynchronousTestCase):
    """What holds when no variable is set."""

    def test_places(self) -> None:
        config = load({})
        self.assertEqual(config.cache_directory, Path("/docker_mirror_cache"))
        self.assertEqual(config.ca_directory, Path("/ca"))
        self.assertEqual(config.proxy.listen, ("tcp:3128",))

    def test_intercepted(self) -> None:
        """Docker Hub and what its image lists; nothing else."""
        config = load({})
        for name in DOCKER_HUB, "docker.io", "auth.docker.io", "k8s.gcr.io", "quay.io", "ghcr.io":
            self.assertTrue(config.intercepts(Host(name)), name)
        for name in "mcr.microsoft.com", "docker.caching.proxy.internal", "example.com":
            self.assertFalse(config.intercepts(Host(name)), name)

    def test_everything_is_verified_and_nothing_pushed(self) -> None:
        config = load({})
        self.assertEqual({s.push for s in config.registries.values()}, {Push.DENY})
        self.assertEqual({s.insecure for s in config.registries.values()}, {False})

    def test_tunnels(self) -> None:
        """They go where those of docker-registry-proxy go, as far as the guard has it."""
        relay = load({}).relay
        self.assertTrue(relay.allow_private)
        self.assertTrue(relay.any_port)
        self.assertEqual(relay.allow, ())

    def test_tags(self) -> None:
        """They are checked each time."""
        freshness = load({}).freshness
        self.assertEqual((freshness.default, freshness.rule), (0.0, ()))

    def test_nothing_is_remarked(self) -> None:
        self.assertEqual(remarks(), ())


class CATests(SynchronousTestCase):
    """The key in /ca"""

    def test_encrypted(self) -> None:
        """Its passphrase is the one that docker-registry-proxy has; both forms are known."""
        for key in (
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,0\n",
        ):
            self.assertEqual(load({}, key).ca.passphrase, "foobar")

    def test_plain(self) -> None:
        """An operator's own key, or none: no passphrase."""
        self.assertIsNone(load({}, b"-----BEGIN PRIVATE KEY-----\n").ca.passphrase)
        self.assertIsNone(load({}).ca.passphrase)


class RegistriesTests(SynchronousTestCase):
    """REGISTRIES"""

    def test_replaces(self) -> None:
        config = load({"REGISTRIES": " quay.io  registry.example.com:5000\nDOCKER.io "})
        self.assertEqual(
            set(config.registries), {HUB, Host("quay.io"), Host("registry.example.com", 5000)}
        )

    def test_empty(self) -> None:
        """Docker Hub remains, as there."""
        self.assertEqual(set(load({"REGISTRIES": ""}).registries), {HUB})

    def test_star(self) -> None:
        config = load({"REGISTRIES": "*.dkr.ecr.eu-west-1.amazonaws.com"})
        self.assertTrue(config.intercepts(Host("1.dkr.ecr.eu-west-1.amazonaws.com")))
        self.assertIn("those with a star", remarks(REGISTRIES="quay.io *.example.com")[0])
        self.assertNotIn("star", remarks(REGISTRIES="quay.io")[0])

    @settings(max_examples=20)
    @given(st.lists(HOSTS, max_size=4))
    def test_any(self, names: list[str]) -> None:
        config = load({"REGISTRIES": " ".join(names)})
        for name in names:
            self.assertTrue(config.intercepts(Host(name)))


class LoginTests(SynchronousTestCase):
    """AUTH_REGISTRIES"""

    def sections(self, text: str, **environ: str) -> dict[Host, RegistrySection]:
        """The registries for which there is a login."""
        config = load({"AUTH_REGISTRIES": text, **environ})
        return {h: section for h, section in config.registries.items() if section.username}

    def test_docker_hub(self) -> None:
        """The login for the host that hands out its tokens is Docker Hub's."""
        for name in "auth.docker.io", "docker.io", "index.docker.io", DOCKER_HUB:
            (host, section), *others = self.sections(f"{name}:team:{SECRET}").items()
            self.assertEqual((host, others), (HUB, []))
            self.assertEqual((section.username, section.password), ("team", SECRET))
            self.assertEqual(section.auth, Auth.INJECT)
            self.assertEqual(section.access, Access.SHARED)
            self.assertEqual(section.push, Push.DENY)

    def test_gitlab_com(self) -> None:
        (host,) = self.sections("gitlab.com:u:p")
        self.assertEqual(host, Host("registry.gitlab.com"))

    def test_gitlab(self) -> None:
        """As its README tells it: the login of the primary domain is for the registry."""
        registries = "reg.example.com git.example.com"
        (host,) = self.sections("git.example.com:u:p", REGISTRIES=registries)
        self.assertEqual(host, Host("reg.example.com"))

    def test_no_gitlab(self) -> None:
        """A login is not for another registry, nor for one of another domain."""
        for registries in (
            "reg.example.com git.example.com images.example.com",
            "reg.example.org git.example.com",
            "reg.example.com",
        ):
            (host,) = self.sections("git.example.com:u:p", REGISTRIES=registries)
            self.assertEqual(host, Host("git.example.com"), registries)
        (host,) = self.sections("a.example.com:u:p", REGISTRIES="a.example.com b.example.com")
        self.assertEqual(host, Host("a.example.com"))

    def test_not_in_registries(self) -> None:
        """It is intercepted all the same: else the login would be of no use."""
        (host,) = self.sections("registry.example.com:5000;u;p", AUTH_REGISTRY_DELIMITER=";")
        self.assertEqual(host, Host("registry.example.com", 5000))

    def test_service_account(self) -> None:
        """Google's are JSON, with colons and spaces: what the delimiters are for."""
        key = '{"type": "service_account",\n "key": "a:b c"}'
        sections = self.sections(
            f"gcr.io:::_json_key:::{key};;;auth.docker.io:::team:::{SECRET}",
            AUTH_REGISTRIES_DELIMITER=";;;",
            AUTH_REGISTRY_DELIMITER=":::",
        )
        self.assertEqual(sections[Host("gcr.io")].password, key)
        self.assertEqual(sections[HUB].password, SECRET)

    @settings(max_examples=20)
    @given(st.dictionaries(HOSTS, st.tuples(WORDS, WORDS), max_size=4), st.booleans())
    def test_any(self, logins: dict[str, tuple[str, str]], other: bool) -> None:
        """Every login arrives as it was, with both sets of delimiters."""
        assume(not any(name.startswith("git") for name in logins))
        between, within = (";;;", ":::") if other else (" ", ":")
        text = between.join(within.join((name, *login)) for name, login in logins.items())
        environ = {"AUTH_REGISTRIES_DELIMITER": between, "AUTH_REGISTRY_DELIMITER": within}
        sections = self.sections(text, **(environ if other else {}))
        found = {str(host): (s.username, s.password) for host, s in sections.items()}
        self.assertEqual(found, logins)

    def test_bad(self) -> None:
        """The message names the entry, and not what is in it."""
        for text in (
            f"auth.docker.io:team:{SECRET} quay.io:{SECRET}",
            f"auth.docker.io:team:{SECRET} quay.io:u:{SECRET}:{SECRET}",
            f"auth.docker.io:team:{SECRET} quay.io::{SECRET}",
            f"auth.docker.io:team:{SECRET} ___/{SECRET}:u:p",
            f"auth.docker.io:team:{SECRET} docker.io:team:{SECRET}",
        ):
            with self.assertRaises(ConfigError) as caught:
                load({"AUTH_REGISTRIES": text})
            message = str(caught.exception)
            self.assertIn("environment: AUTH_REGISTRIES: ", message)
            self.assertIn("entry 2", message)
            self.assertNotIn(SECRET, message)

    def test_own_login(self) -> None:
        """ALLOW_OWN_AUTH: a client that has a login uses it."""
        sections = self.sections("quay.io:u:p", ALLOW_OWN_AUTH="true")
        self.assertEqual(sections[Host("quay.io")].auth, Auth.CLIENT_FIRST)
        sections = self.sections("quay.io:u:p", ALLOW_OWN_AUTH="false")
        self.assertEqual(sections[Host("quay.io")].auth, Auth.INJECT)


class FreshnessTests(SynchronousTestCase):
    """ENABLE_MANIFEST_CACHE and the tiers"""

    def age(self, tag: str, **environ: str) -> float:
        return max_age(load({"ENABLE_MANIFEST_CACHE": "true", **environ}).freshness, Tag.parse(tag))

    def test_defaults(self) -> None:
        for tag, age in {
            "stable": 10 * MINUTE,
            "nightly-2024.01.02": 10 * MINUTE,
            "1.2.3": 60 * DAY,
            "v1.27.1-alpine": 60 * DAY,
            "latest": HOUR,
            "v1": HOUR,
            "unstable": HOUR,
        }.items():
            self.assertEqual(self.age(tag), age, tag)

    def test_set(self) -> None:
        environ = {
            "MANIFEST_CACHE_PRIMARY_REGEX": "latest|main",
            "MANIFEST_CACHE_PRIMARY_TIME": "30",
            "MANIFEST_CACHE_SECONDARY_REGEX": "",
            "MANIFEST_CACHE_DEFAULT_TIME": "2h",
        }
        self.assertEqual(self.age("main-1.2.3", **environ), 30.0)
        self.assertEqual(self.age("1.2.3", **environ), 2 * HOUR)
        self.assertEqual(self.age("domain", **environ), 2 * HOUR)

    def test_off(self) -> None:
        """The others do not count then, and that is said."""
        for value in "false", "":
            environ = {"ENABLE_MANIFEST_CACHE": value, "MANIFEST_CACHE_DEFAULT_TIME": "2h"}
            freshness = load(environ).freshness
            self.assertEqual((freshness.default, freshness.rule), (0.0, ()))
            self.assertIn("not used", remarks(**environ)[-1])

    @settings(max_examples=20)
    @given(
        st.sampled_from(["1.2.3", "v1.0", "latest", "stable-1", "a_b-c", "0"]),
        st.sampled_from(["(stable|nightly)", r"v?\d", "latest$", "[a-z]+", r"(.*)\.(.*)"]),
    )
    def test_as_nginx(self, tag: str, expression: str) -> None:
        """A location ``~ ^/v2/(.*)/manifests/EXPRESSION`` decides the same."""
        location = re.search(f"^/v2/(.*)/manifests/{expression}", f"/v2/a/manifests/{tag}")
        age = self.age(
            tag, MANIFEST_CACHE_PRIMARY_REGEX=expression, MANIFEST_CACHE_SECONDARY_REGEX=""
        )
        self.assertEqual(age, 10 * MINUTE if location else HOUR)


class ValueTests(SynchronousTestCase):
    """The other variables"""

    def test_size(self) -> None:
        for text, size in {"256g": 256 * GiB, "64M": 64 << 20, "1024": 1024}.items():
            self.assertEqual(load({"CACHE_MAX_SIZE": text}).cache.max_size, size)

    @given(st.lists(st.integers(0, 49), min_size=7, max_size=7).filter(any))
    def test_time(self, counts: list[int]) -> None:
        """Units stand as in nginx, where m is a minute and M a month."""
        days = (365.0, 30.0, 7.0, 1.0)
        units = {**dict(zip("yMwd", (n * DAY for n in days), strict=True)), "h": HOUR, "m": MINUTE}
        units["s"] = 1.0
        parts = list(zip(counts, units.items(), strict=True))
        seconds = sum(count * unit for count, (_, unit) in parts)
        for between in "", " ":
            text = between.join(f"{count}{letter}" for count, (letter, _) in parts if count)
            table = translate({"CACHE_INACTIVE": text}, encrypted=False).table
            self.assertEqual(table["cache"]["inactive"], seconds, text)

    def test_flags(self) -> None:
        def sections(name: str, value: str) -> set[RegistrySection]:
            return {
                RegistrySection(push=section.push, insecure=section.insecure)
                for section in load({name: value}).registries.values()
            }

        for name in "ALLOW_PUSH", "ALLOW_PUSH_WITH_OWN_AUTH":
            self.assertEqual(sections(name, "true"), {RegistrySection(push=Push.FORWARD)})
            self.assertEqual(sections(name, "false"), {RegistrySection(push=Push.DENY)})
        self.assertEqual(
            sections("VERIFY_SSL", "false"), {RegistrySection(push=Push.DENY, insecure=True)}
        )
        # Its own default is what an empty text leaves in force; there it turned verification off.
        self.assertEqual(sections("VERIFY_SSL", ""), {RegistrySection(push=Push.DENY)})
        self.assertEqual(load({"DISABLE_IPV6": "true"}).upstream.family, Family.IPV4)
        self.assertEqual(load({"DISABLE_IPV6": "false"}).upstream.family, Family.ANY)

    def test_timeouts(self) -> None:
        """Of two that have become one the longest counts."""
        limits = load({"SEND_TIMEOUT": "2m", "CLIENT_BODY_TIMEOUT": "90s"}).limits
        self.assertEqual(limits.client_stall, 120.0)
        for name, key in {
            "CLIENT_HEADER_TIMEOUT": "request_head",
            "KEEPALIVE_TIMEOUT": "client_idle",
            "PROXY_CONNECT_TIMEOUT": "connect",
            "PROXY_CONNECT_CONNECT_TIMEOUT": "connect",
            "PROXY_READ_TIMEOUT": "upstream_idle",
            "PROXY_SEND_TIMEOUT": "upstream_idle",
            "PROXY_CONNECT_READ_TIMEOUT": "tunnel_idle",
            "PROXY_CONNECT_SEND_TIMEOUT": "tunnel_idle",
        }.items():
            self.assertEqual(getattr(load({name: "77s"}).limits, key), 77.0, name)

    def test_bad(self) -> None:
        """Each is told of by its name, all at once, with what was found."""
        environ = {
            "REGISTRIES": "https://quay.io",
            "ALLOW_PUSH": "yes",
            "VERIFY_SSL": "True",
            "CACHE_MAX_SIZE": "32 gigs",
            "CACHE_INACTIVE": "0",
            "MANIFEST_CACHE_PRIMARY_REGEX": "(stable",
            "MANIFEST_CACHE_SECONDARY_TIME": "any 60d",
            "SEND_TIMEOUT": "500ms",
            "PROXY_READ_TIMEOUT": "101y",
        }
        with self.assertRaises(ConfigError) as caught:
            load(environ)
        told = dict(line.split(": ", 1) for line in caught.exception.problems)
        self.assertEqual(set(told), set(environ))
        for name in set(environ) - {"CACHE_INACTIVE", "PROXY_READ_TIMEOUT"}:
            self.assertIn(repr(environ[name]), told[name])


class RemarkTests(SynchronousTestCase):
    """What is said about variables."""

    def test_each(self) -> None:
        """A line for each that is set, and one for those that mean nothing any more."""
        found = remarks(
            ALLOW_PUSH="true", CACHE_MAX_SIZE="1g", DEBUG="false", PROXY_REQUEST_BUFFERING="true"
        )
        self.assertEqual(
            found,
            (
                "ALLOW_PUSH: pushes are passed on, with the login of the client",
                "CACHE_MAX_SIZE: cache.max_size = 1GiB",
                "PROXY_REQUEST_BUFFERING, DEBUG: without meaning here, not used",
            ),
        )

    def test_logged(self) -> None:
        """Without braces in them being taken for fields."""
        with capturedLogs() as events:
            compat.load(environ={"HOME": "/", "MANIFEST_CACHE_PRIMARY_REGEX": "v{2}"}, read=no_file)
        (event,) = events
        self.assertIn("v{2}", event["remark"])

    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(VARIABLES, TEXTS)))
    def test_anything(self, environ: dict[str, str]) -> None:
        """Whatever the texts are, there is a configuration, or a message for each problem."""
        try:
            found = translate(environ, encrypted=False)
        except ConfigError as error:
            self.assertTrue(error.problems)
            for line in error.problems:
                self.assertIn(line.split(":")[0], environ)
        else:
            said = {name for line in found.remarks for name in line.split(": ")[0].split(", ")}
            # An empty text is that of a variable that is not set.
            self.assertLessEqual({name for name, text in environ.items() if text}, said)
            self.assertLessEqual(said, set(environ))

    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(VARIABLES, TEXTS)))
    def test_usable(self, environ: dict[str, str]) -> None:
        """What is understood is a configuration, save for a user name that cannot be sent."""
        environ.pop("AUTH_REGISTRIES", None)
        try:
            table = translate(environ, encrypted=False).table
        except ConfigError:
            return
        self.assertTrue(effective(from_table(table, "f", data=Path("/"))))

    def test_no_secret(self) -> None:
        """Not in remarks, in what is printed, nor in the repr of anything."""
        environ = {"AUTH_REGISTRIES": f"quay.io:team:{SECRET}"}
        found = translate(environ, encrypted=True)
        everything: tuple[Any, ...] = (found, load(environ), effective(load(environ)))
        for each in everything:
            self.assertNotIn(SECRET, repr(each))

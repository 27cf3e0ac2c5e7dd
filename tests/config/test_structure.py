"""Tests of regproxy.config.structure."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from cattrs import BaseValidationError
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import (
    Access,
    Auth,
    Config,
    FreshnessRule,
    HostPattern,
    ProxySection,
    Push,
    RegistrySection,
)
from regproxy.config.structure import KeyPath, Problems, make_converter, path_text, problems
from regproxy.oci.names import DOCKER_HUB, Host

DIRECTORY = Path("/etc/regproxy")


def structured(text: str) -> Config:
    """The configuration in *text*, without checks across keys."""
    table = {"data": "/data", **tomllib.loads(text)}
    return make_converter(DIRECTORY, {}).structure(table, Config)


def found(text: str) -> list[str]:
    """The problems in *text*, as lines."""
    try:
        structured(text)
    except (BaseValidationError, Problems) as error:
        return [f"{path_text(path)}: {message}" for path, message in problems(error)]
    return []


class PathTextTests(SynchronousTestCase):
    """path_text"""

    def test_forms(self) -> None:
        """Keys are quoted where TOML wants it."""
        cases: dict[KeyPath, str] = {
            ("proxy", "listen", 1): "proxy.listen[1]",
            ("registries", "ghcr.io", "auth"): 'registries."ghcr.io".auth',
            ('a"b',): '"a\\"b"',
            ("",): '""',
        }
        for path, text in cases.items():
            self.assertEqual(path_text(path), text)

    @given(
        st.lists(
            st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])), min_size=1
        )
    )
    def test_is_toml(self, keys: list[str]) -> None:
        """Without an index it is the key of a TOML file, in the basic plane."""
        value: Any = tomllib.loads(f"{path_text(tuple(keys))} = 1")
        for key in keys:
            value = value[key]
        self.assertEqual(value, 1)


class ValueTests(SynchronousTestCase):
    """Values of every kind."""

    def test_good(self) -> None:
        """Each kind is read, and relative paths start where they are told to."""
        config = structured(
            r"""
            [interception]
            hosts = ["*.example:5000"]
            [cache]
            directory = "cache"
            max_size = "1g"
            min_free = 5
            inactive = "1h"
            [ca]
            directory = "/ca"
            [freshness]
            default = 1.5
            [[freshness.rule]]
            match = '\d+'
            max_age = "1d"
            [registries."docker.io"]
            auth = "inject"
            access = "verify"
            push = "deny"
            insecure = true
            """
        )
        self.assertEqual(config.interception.hosts, (HostPattern("*.example", 5000),))
        self.assertEqual(config.cache.directory, DIRECTORY / "cache")
        self.assertEqual(config.cache.max_size, 1 << 30)
        self.assertEqual(config.cache.min_free, 5)
        self.assertEqual(config.cache.inactive, 3600.0)
        self.assertEqual(config.ca.directory, Path("/ca"))
        self.assertEqual(config.freshness.default, 1.5)
        self.assertEqual(config.freshness.rule, (FreshnessRule(re.compile(r"\d+"), 86400.0),))
        self.assertEqual(
            config.registries,
            {
                Host(DOCKER_HUB): RegistrySection(
                    auth=Auth.INJECT, access=Access.VERIFY, push=Push.DENY, insecure=True
                )
            },
        )

    def test_one_path(self) -> None:
        """A single path need not be in a list; a text elsewhere is none."""
        for value in ("'config.json'", "['config.json']"):
            config = structured(f"[credentials]\ndocker_config = {value}")
            self.assertEqual(config.credentials.docker_config, (DIRECTORY / "config.json",))

    def test_bad(self) -> None:
        """Nothing is converted silently, and the message says what is allowed."""
        for text, expected in {
            "proxy = 5": "proxy: expected a table, found a number",
            "[proxy]\nlisten = 'x'": "proxy.listen: expected a list, found a text",
            "[proxy]\nlisten = ['x', 5]": "proxy.listen[1]: expected a text, found a number",
            "data = 1.5": "data: expected a text, found a number",
            "data = 2026-01-01": "data: expected a text, found a date or time",
            "data = ''": "data: expected a path, found ''",
            '[ca]\ndirectory = "a\\u0000"': "ca.directory: expected a path, found 'a\\x00'",
            "[registries.'a.b']\ninsecure = 1": (
                'registries."a.b".insecure: expected true or false, found a number'
            ),
            "[registries.'a.b']\npush = 'x'": (
                'registries."a.b".push: expected "forward" or "deny", found \'x\''
            ),
            "[registries.'a.b']\nauth = 'x'": (
                'registries."a.b".auth: expected "forward" or "inject" or "client-first",'
                " found 'x'"
            ),
            "[credentials]\ndocker_config = 5": (
                "credentials.docker_config: expected a list, found a number"
            ),
            "[credentials]\ndocker_config = ['a', '']": (
                "credentials.docker_config[1]: expected a path, found ''"
            ),
            "[credentials]\ndocker_config = ''": (
                "credentials.docker_config[0]: expected a path, found ''"
            ),
            "[registries.'a.b']\naccess = 'all'": (
                'registries."a.b".access: expected "public" or "shared" or "verify", found \'all\''
            ),
            "registries = []": "registries: expected a table, found a list",
            "registries.a = 1": "registries.a: expected a table, found a number",
            "[interception]\nhosts = ['*']": (
                "interception.hosts[0]: expected a host, host:port or *.suffix, found '*'"
            ),
            "[[freshness.rule]]\nmax_age = 1": "freshness.rule[0].match: missing",
        }.items():
            self.assertEqual(found(text), [expected])

    def test_bad_units(self) -> None:
        """Sizes, durations and regular expressions bring examples."""
        for text, pattern in {
            "[cache]\nmax_size = '1GB'": r"^cache\.max_size: .*32GiB.*, found '1GB'$",
            "[cache]\nmax_size = true": r"^cache\.max_size: .*32GiB.*, found true or false$",
            "[cache]\ninactive = []": r"^cache\.inactive: .*1h30m.*, found a list$",
            "[[freshness.rule]]\nmatch='('\nmax_age=1": (
                r"^freshness\.rule\[0\]\.match: expected a regular expression, found '\('"
            ),
            "[[freshness.rule]]\nmatch='a{99999999999}'\nmax_age=1": "regular expression",
            "registries.'a b' = {}": r'^registries\."a b": invalid host',
        }.items():
            (line,) = found(text)
            self.assertRegex(line, pattern)

    def test_unknown_keys(self) -> None:
        """A key close to a known one is suggested; the value is never shown."""
        self.assertEqual(
            found("[proxy]\nlisen = 'secret'"),
            ["proxy.lisen: unknown key; did you mean listen? (allowed: listen, tls_names)"],
        )
        (line,) = found("[registries.'a.b']\nqqqqqq = 'secret'")
        self.assertIn("username, password", line)
        self.assertNotIn("did you mean", line)
        self.assertNotIn("secret", line)

    def test_one_registry_twice(self) -> None:
        """Two names of Docker Hub are one registry; the second's own problems are told too."""
        self.assertEqual(
            found("[registries.'docker.io']\n[registries.'registry-1.docker.io']\npush = 1"),
            [
                'registries."registry-1.docker.io": the same registry as registries."docker.io"',
                'registries."registry-1.docker.io".push: expected a text, found a number',
            ],
        )

    def test_all_at_once(self) -> None:
        """One file, many problems, in no more than one run."""
        self.assertEqual(
            len(found("a = 1\n[proxy]\nlisten = [1, 2]\n[cache]\nmax_size = ''\nb = 1")), 5
        )


class FinishTests(SynchronousTestCase):
    """Checks across the keys of a section."""

    def test_called(self) -> None:
        """Its result is taken."""
        converter = make_converter(DIRECTORY, {ProxySection: lambda _: ProxySection(("y",))})
        config = converter.structure({"data": "/d", "proxy": {"listen": ["x"]}}, Config)
        self.assertEqual(config.proxy.listen, ("y",))

    def test_problems(self) -> None:
        """Its problems get the section's path in front."""

        def refuse(_: ProxySection) -> ProxySection:
            raise Problems([(("listen", 0), "no")])

        converter = make_converter(DIRECTORY, {ProxySection: refuse})
        error = self.assertRaises(
            BaseValidationError, converter.structure, {"data": "/d", "proxy": {}}, Config
        )
        self.assertEqual(list(problems(error)), [(("proxy", "listen", 0), "no")])

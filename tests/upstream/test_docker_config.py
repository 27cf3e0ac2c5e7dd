"""Tests for :mod:`regproxy.upstream.docker_config`."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import DOCKER_HUB, Host
from regproxy.upstream.docker_config import (
    CredentialsNotFound,
    DockerConfigInvalid,
    Helper,
    Source,
    parse_docker_config,
    parse_helper_answer,
)
from regproxy.upstream.logins import IdentityToken, Password
from tests.oci.strategies import hosts

HUB = Host(DOCKER_HUB)
GHCR = Host("ghcr.io")
TEAM = Password("team", "secret")


def auth(username: str, password: str) -> dict[str, str]:
    return {"auth": b64encode(f"{username}:{password}".encode()).decode()}


def parsed(**table: Any) -> dict[Host, Source]:
    return parse_docker_config(json.dumps(table).encode())


_names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters=":"), min_size=1
)
_passwords = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
_json = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class HostTests(SynchronousTestCase):
    """Keys as docker, podman and people write them."""

    def test_keys(self) -> None:
        for key, host in {
            "https://index.docker.io/v1/": HUB,
            "index.docker.io": HUB,
            "docker.io": HUB,
            "registry-1.docker.io": HUB,
            "ghcr.io": GHCR,
            "https://ghcr.io": GHCR,
            "HTTPS://GHCR.IO/": GHCR,
            "https://ghcr.io/v2/": GHCR,
            "ghcr.io/v2": GHCR,
            "http://localhost:5000": Host("localhost", 5000),
            "10.0.0.7:5000": Host("10.0.0.7", 5000),
            "[::1]:5000": Host("::1", 5000),
        }.items():
            self.assertEqual(parsed(auths={key: auth("team", "secret")}), {host: TEAM}, key)

    def test_parts(self) -> None:
        """What is for a part of a registry, or for something else at its host, is not taken."""
        for key in (
            "quay.io/team",
            "https://index.docker.io/v1/access-token",
            "ghcr.io/v2/team",
            "https://ghcr.io/v3/",
        ):
            self.assertEqual(parsed(auths={key: auth("team", "secret")}), {}, key)

    def test_first_counts(self) -> None:
        """Docker Hub may be there by several names."""
        entries = {"docker.io": auth("team", "secret"), "index.docker.io": auth("x", "y")}
        self.assertEqual(parsed(auths=entries), {HUB: TEAM})
        entries = {"docker.io": {}, "index.docker.io": auth("team", "secret")}
        self.assertEqual(parsed(auths=entries), {HUB: TEAM})

    def test_bad(self) -> None:
        for key in ("", "*.azurecr.io", "a b", "user@host"):
            error = self.assertRaises(DockerConfigInvalid, parsed, auths={key: {}})
            self.assertIn("expected a registry's host", str(error))

    @given(hosts, st.sampled_from(["{}", "https://{}", "http://{}/v1/", "{}/"]))
    def test_any_host(self, host: Host, form: str) -> None:
        """Each host is found by each of its forms."""
        key = form.format(host)
        self.assertEqual(parsed(auths={key: auth("team", "secret")}), {host.canonical: TEAM})


class LoginTests(SynchronousTestCase):
    """The entries of ``auths``."""

    def login(self, **entry: Any) -> Source | None:
        return parsed(auths={"ghcr.io": entry}).get(GHCR)

    def problem(self, **entry: Any) -> str:
        error = self.assertRaises(DockerConfigInvalid, self.login, **entry)
        return str(error).removeprefix('auths."ghcr.io": ')

    @given(_names, _passwords)
    def test_round_trip(self, username: str, password: str) -> None:
        """What "docker login" writes is read."""
        expected = Password(username, password)
        self.assertEqual(self.login(**auth(username, password)), expected)
        self.assertEqual(self.login(username=username, password=password), expected)

    def test_padding(self) -> None:
        """Docker takes NUL octets off."""
        self.assertEqual(self.login(**auth("team", "secret\0\0")), TEAM)

    def test_identity_token(self) -> None:
        """It counts more than what stands beside it, which is a placeholder."""
        entry = {"identitytoken": "t", **auth("00000000-0000-0000-0000-000000000000", "")}
        self.assertEqual(self.login(**entry), IdentityToken("t"))

    def test_nothing(self) -> None:
        for entry in ({}, {"auth": ""}, {"email": "a@b"}, {"username": "", "password": ""}):
            self.assertIsNone(self.login(**entry))

    def test_bad(self) -> None:
        """The messages say what is wrong, and not what is there."""
        self.assertEqual(self.problem(auth=5), "auth: expected a text")
        for text in ("geheim", "Z2VoZWlt", "dTp3\n", "/w==", "dTpwé"):
            self.assertEqual(self.problem(auth=text), "auth: expected base64 of USER:PASSWORD")
        self.assertIn("user name without a colon", self.problem(**auth("", "geheim")))
        self.assertIn("user name without", self.problem(username="a:b", password="geheim"))
        self.assertEqual(self.problem(**auth("team", "")), "the password is empty")
        self.assertIn("or neither", self.problem(username="team"))
        self.assertIn("registrytoken is not supported", self.problem(registrytoken="geheim"))
        error = self.assertRaises(DockerConfigInvalid, parsed, auths={"ghcr.io": "geheim"})
        self.assertEqual(str(error), 'auths."ghcr.io": expected an object')


class HelperTests(SynchronousTestCase):
    """``credHelpers`` and ``credsStore``"""

    def test_helper(self) -> None:
        """It is asked for the key as it stands; it goes before what auths says."""
        found = parsed(
            auths={"ghcr.io": auth("team", "secret")},
            credHelpers={
                "https://ghcr.io": "gh",
                "123.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login",
            },
        )
        self.assertEqual(
            found,
            {
                GHCR: Helper("gh", "https://ghcr.io"),
                Host("123.dkr.ecr.eu-west-1.amazonaws.com"): Helper(
                    "ecr-login", "123.dkr.ecr.eu-west-1.amazonaws.com"
                ),
            },
        )
        self.assertEqual(Helper("gh", "x").program, "docker-credential-gh")

    def test_store(self) -> None:
        """It has the logins of the hosts whose entries are empty, and no others."""
        entries = {"https://index.docker.io/v1/": {}, "ghcr.io": auth("team", "secret")}
        self.assertEqual(
            parsed(auths=entries, credsStore="pass"),
            {HUB: Helper("pass", "https://index.docker.io/v1/"), GHCR: TEAM},
        )
        self.assertEqual(parsed(credsStore="pass"), {})

    def test_empty_name(self) -> None:
        """No helper: docker uses that to make an exception from the store."""
        entries = {"ghcr.io": auth("team", "secret")}
        self.assertEqual(parsed(auths=entries, credHelpers={"ghcr.io": ""}), {GHCR: TEAM})
        self.assertEqual(parsed(auths={"ghcr.io": {}}, credsStore=""), {})

    def test_bad_names(self) -> None:
        """Nothing that leads to another directory."""
        names: list[Any] = ["../x", "a/b", "a b", ".", "..", "-x", "x\0", "x" * 65, 5, {}]
        for name in names:
            for table in ({"credsStore": name}, {"credHelpers": {"ghcr.io": name}}):
                error = self.assertRaises(DockerConfigInvalid, parsed, **table)
                self.assertIn("expected NAME of a program docker-credential-NAME", str(error))


class FileTests(SynchronousTestCase):
    """The file as a whole."""

    def test_other_keys(self) -> None:
        """Docker keeps more in it."""
        table = {"auths": {}, "HttpHeaders": {"a": "b"}, "psFormat": "x", "proxies": {}}
        self.assertEqual(parsed(**table), {})
        self.assertEqual(parsed(auths=None), {})

    def test_not_this_format(self) -> None:
        for content in (b"", b"{", b"\xff", b"[" * 100_000):
            error = self.assertRaises(DockerConfigInvalid, parse_docker_config, content)
            self.assertEqual(error.problems, ("not JSON",))
        for content in (b"[]", b"{}", b'"auths"', b'{"ghcr.io": {"auth": "dTpw"}}'):
            error = self.assertRaises(DockerConfigInvalid, parse_docker_config, content)
            self.assertIn("not a Docker config.json", str(error))

    def test_all_problems(self) -> None:
        error = self.assertRaises(
            DockerConfigInvalid,
            parsed,
            auths={"*": {}, "ghcr.io": []},
            credHelpers=[1],
            credsStore="/",
        )
        self.assertEqual(len(error.problems), 4)

    @given(_json)
    def test_any_json(self, value: Any) -> None:
        """Whatever stands there, it is read or refused."""
        for table in ({"auths": value}, {"auths": {"ghcr.io": value}}, {"credHelpers": value}):
            try:
                parsed(**table)
            except DockerConfigInvalid as error:
                self.assertTrue(error.problems)


class AnswerTests(SynchronousTestCase):
    """What a helper prints."""

    @given(_names.filter(lambda name: name != "<token>"), _passwords)
    def test_password(self, username: str, password: str) -> None:
        answer = json.dumps({"ServerURL": "x", "Username": username, "Secret": password})
        self.assertEqual(parse_helper_answer(answer.encode()), Password(username, password))

    def test_identity_token(self) -> None:
        answer = parse_helper_answer(b'{"Username": "<token>", "Secret": "t"}')
        self.assertEqual(answer, IdentityToken("t"))

    def test_not_found(self) -> None:
        content = b"credentials not found in native keychain\n"
        self.assertRaises(CredentialsNotFound, parse_helper_answer, content)

    @given(
        st.binary() | st.sampled_from([b"{}", b"[]", b'{"Username": "geheim"}', b'{"Secret": 1}'])
    )
    def test_bad(self, content: bytes) -> None:
        error = self.assertRaises(ValueError, parse_helper_answer, content)
        self.assertNotIn("geheim", str(error))

"""Tests for :mod:`regproxy.policy.tokens`."""

from __future__ import annotations

import json

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Host, Repository
from regproxy.policy.tokens import (
    KEY_SIZE,
    LIFETIME,
    Ticket,
    TokenRequest,
    own_token,
    token_answer,
)
from tests.oci.strategies import hosts

KEY = bytes(range(KEY_SIZE))
HUB = Host("registry-1.docker.io")
APP = Repository("library/app")
TICKET = Ticket(frozenset({HUB}), frozenset({APP}), 1000)

_tickets = st.builds(
    Ticket,
    st.frozensets(hosts, max_size=3),
    st.frozensets(st.from_regex(r"[a-z0-9]{1,9}(/[a-z0-9]{1,9})?", fullmatch=True)).map(
        lambda names: frozenset(map(Repository.parse, names))
    ),
    st.integers(0, 1 << 40),
)


class TicketTests(SynchronousTestCase):
    """What a token is good for."""

    def test_admits(self) -> None:
        """This registry, these repositories, until then; and the ping."""
        other = Repository("library/other")
        for registry, repository, now, admitted in (
            (HUB, APP, 999.9, True),
            (HUB, None, 999.9, True),
            (HUB, APP, 1000.0, False),
            (HUB, None, 1000.0, False),
            (HUB, other, 0.0, False),
            (Host("ghcr.io"), APP, 0.0, False),
            (Host("ghcr.io"), None, 0.0, False),
            (Host(HUB.name, 5000), APP, 0.0, False),
        ):
            self.assertIs(TICKET.admits(registry, repository, now), admitted)

    @given(_tickets)
    def test_round_trip(self, ticket: Ticket) -> None:
        """A token is a word that a header can hold, and comes back as it was."""
        token = ticket.sealed(KEY)
        self.assertRegex(token, r"\A[A-Za-z0-9._=-]+\Z")
        self.assertEqual(Ticket.unsealed(token, KEY), ticket)
        self.assertEqual(own_token(f"Bearer {token}".encode()), token)

    @given(_tickets, st.binary(min_size=KEY_SIZE, max_size=KEY_SIZE))
    def test_another_key(self, ticket: Ticket, key: bytes) -> None:
        if key != KEY:
            self.assertIsNone(Ticket.unsealed(ticket.sealed(key), KEY))

    @given(st.data())
    def test_changed(self, data: st.DataObject) -> None:
        """No character may be another one."""
        token = TICKET.sealed(KEY)
        position = data.draw(st.integers(len("regproxy."), len(token) - 1))
        character = data.draw(st.characters().filter(lambda c: c != token[position]))
        forged = token[:position] + character + token[position + 1 :]
        self.assertIsNone(Ticket.unsealed(forged, KEY))

    @given(st.text() | st.text().map("regproxy.".__add__))
    def test_any_text(self, text: str) -> None:
        self.assertIsNone(Ticket.unsealed(text, KEY))

    def test_transplanted(self) -> None:
        """The seal of one ticket is none for another."""
        _, _, seal = TICKET.sealed(KEY).rpartition(".")
        payload, _, _ = evolve(TICKET, expires=2000).sealed(KEY).rpartition(".")
        self.assertIsNone(Ticket.unsealed(f"{payload}.{seal}", KEY))

    def test_size(self) -> None:
        """As many repositories as are taken, with the longest names, fit into a header."""
        scopes = [f"repository:{'a' * 200}{number:055}:pull" for number in range(50)]
        request = TokenRequest.parse(f"/t?scope={'+'.join(scopes)}".encode())
        self.assertEqual(len(request.repositories), 32)
        token = Ticket(frozenset({HUB}), request.repositories, 1000).sealed(KEY)
        self.assertLess(len(token), 12_000)


class OwnTokenTests(SynchronousTestCase):
    """own_token"""

    def test_found(self) -> None:
        """What says that it is one; whether it is right is another question."""
        for authorization in (b"Bearer regproxy.x", b"bearer  regproxy.x ", b"BEARER regproxy.x"):
            self.assertEqual(own_token(authorization), "regproxy.x")

    def test_others(self) -> None:
        for authorization in (
            None,
            b"",
            b"Bearer eyJ",
            b"Basic regproxy.x",
            b"regproxy.x",
            b"\xff",
        ):
            self.assertIsNone(own_token(authorization))


class TokenRequestTests(SynchronousTestCase):
    """What clients ask token services for."""

    def test_docker(self) -> None:
        request = TokenRequest.parse(
            b"/token?scope=repository%3Alibrary%2Fapp%3Apull&service=registry.docker.io"
        )
        expected = TokenRequest("/token", "registry.docker.io", frozenset({APP}))
        self.assertEqual(request, expected)

    def test_scopes(self) -> None:
        """Several, in one field or in more; only pulling counts."""
        for query, names in {
            "": set(),
            "scope=": set(),
            "scope=repository:a:pull&scope=repository:b:pull,push": {"a", "b"},
            "scope=repository:a:pull+repository:b:push,pull": {"a", "b"},
            "scope=repository:a:push&scope=registry:catalog:*": set(),
            "scope=repository:a:pullx&scope=repository:A:pull&scope=repository": set(),
            "scope=repository(plugin):a:pull": {"a"},
            "scope=repository:a:pull&account=x": {"a"},
        }.items():
            found = TokenRequest.parse(f"/t?{query}".encode())
            self.assertEqual(found.repositories, frozenset(map(Repository, names)), query)
            self.assertIsNone(found.service)

    @given(st.binary())
    def test_any_target(self, target: bytes) -> None:
        self.assertLessEqual(len(TokenRequest.parse(target).repositories), 32)


class TokenAnswerTests(SynchronousTestCase):
    """token_answer"""

    def test_fields(self) -> None:
        """Those of the token specification and of OAuth 2.0."""
        self.assertEqual(
            json.loads(token_answer("t", 1_700_000_000.5)),
            {
                "token": "t",
                "access_token": "t",
                "expires_in": LIFETIME,
                "issued_at": "2023-11-14T22:13:20Z",
            },
        )

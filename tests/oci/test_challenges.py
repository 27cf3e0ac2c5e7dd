"""Tests of regproxy.oci.challenges."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.challenges import (
    Bearer,
    Challenge,
    ChallengeInvalid,
    bearer,
    parse_challenges,
)

HUB = (
    b'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    b'scope="repository:library/debian:pull,push"'
)

_SPECIAL = re.compile(r'(["\\])')
_ESCAPED = r"\\\1"


def written(challenge: Challenge) -> bytes:
    """The field that says *challenge*."""
    if challenge.token68 is not None:
        return f"{challenge.scheme} {challenge.token68}".encode()
    params = ", ".join(
        f'{name}="{_SPECIAL.sub(_ESCAPED, value)}"' for name, value in challenge.params.items()
    )
    return f"{challenge.scheme} {params}".strip().encode("latin-1")


_tokens = st.from_regex(r"[!#$%&'*+.^_`|~0-9a-z-]{1,12}", fullmatch=True)
_values = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]) | st.just("\t"))
_challenges = st.builds(
    Challenge, _tokens, st.dictionaries(_tokens, _values, max_size=4)
) | st.builds(
    Challenge,
    _tokens,
    st.just({}),
    st.from_regex(r"[A-Za-z0-9._~+/-]{1,12}={0,2}", fullmatch=True),
)


class ParseTests(SynchronousTestCase):
    """parse_challenges"""

    def test_docker_hub(self) -> None:
        """A comma inside quotes does not end a value."""
        (challenge,) = parse_challenges(HUB)
        self.assertEqual(challenge.scheme, "bearer")
        self.assertEqual(challenge.params["scope"], "repository:library/debian:pull,push")
        self.assertIsNone(challenge.token68)

    def test_several(self) -> None:
        """The example of RFC 9110 section 11.6.1, and what may stand around it."""
        self.assertEqual(
            parse_challenges(
                b' ,Basic realm="simple", , NewAuth Realm = "ap\\"ps\\\\", type=1,Negotiate,'
                b"Other dG9rZW4=, Last"
            ),
            [
                Challenge("basic", {"realm": "simple"}),
                Challenge("newauth", {"realm": 'ap"ps\\', "type": "1"}),
                Challenge("negotiate"),
                Challenge("other", token68="dG9rZW4="),
                Challenge("last"),
            ],
        )

    def test_nothing(self) -> None:
        """An empty field has no challenge."""
        self.assertEqual(parse_challenges(b" , "), [])

    def test_unquoted_address(self) -> None:
        """Some registries forget the quotes."""
        self.assertEqual(
            parse_challenges(b"Bearer realm=https://r.example/token?a=b,service=r:1"),
            [Challenge("bearer", {"realm": "https://r.example/token?a=b", "service": "r:1"})],
        )

    def test_malformed(self) -> None:
        """What breaks the grammar gives no half-read challenge."""
        for value in (
            b'Bearer realm="x',
            b'Bearer realm="x" service="y"',
            b'Bearer realm="x", realm="y"',
            b'Bearer realm="x",Realm="y"',
            b'Bearer "x"',
            b'="x"',
            b'Bearer realm="\x00"',
            b'Bearer realm="x\\',
            b"Bearer\trealm=x",
            b"\xff",
        ):
            self.assertRaises(ChallengeInvalid, parse_challenges, value)

    @given(
        st.binary()
        | st.lists(
            st.sampled_from([b"a", b"=", b'"', b"\\", b" ", b",", b"b=", b'c="d"', b"\xff"])
        ).map(b"".join)
    )
    def test_arbitrary(self, value: bytes) -> None:
        """Challenges that can be written again, or one kind of error."""
        try:
            challenges = parse_challenges(value)
        except ChallengeInvalid:
            return
        self.assertEqual(parse_challenges(b", ".join(map(written, challenges))), challenges)

    @given(st.lists(_challenges, max_size=4))
    def test_round_trip(self, challenges: list[Challenge]) -> None:
        """What is written is read."""
        self.assertEqual(parse_challenges(b", ".join(map(written, challenges))), challenges)

    def test_long(self) -> None:
        """Time is linear in what an upstream may send."""
        for value in (b"a " * 50_000, b'a b="' + b"\\" * 99_999, b"=" * 99_999, b"a=" * 50_000):
            self.assertRaises(ChallengeInvalid, parse_challenges, value)


class BearerTests(SynchronousTestCase):
    """bearer"""

    def test_first_with_a_realm(self) -> None:
        """Other schemes and bearers without a realm are passed over."""
        challenges = parse_challenges(b'Basic realm="b", Bearer error="x", ' + HUB)
        self.assertEqual(
            bearer(challenges),
            Bearer(
                "https://auth.docker.io/token",
                "registry.docker.io",
                "repository:library/debian:pull,push",
            ),
        )

    def test_none(self) -> None:
        """There need not be one."""
        self.assertIsNone(bearer(parse_challenges(b'Basic realm="x"')))
        self.assertIsNone(bearer(parse_challenges(b'Bearer realm=""')))

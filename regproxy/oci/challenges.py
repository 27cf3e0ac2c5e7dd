"""WWW-Authenticate: RFC 9110 section 11.6.1, and the Bearer challenge of registries.

The parser takes one thing beyond the grammar: a value that should have been quoted, such
as ``realm=https://example.com/token``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)"'
_SEPARATORS: Final = re.compile(rb"[\t ,]*")
_SCHEME: Final = re.compile(rb"(%s)(?:[\t ]*(?=,|\Z)| +)" % _TOKEN)
_TOKEN68: Final = re.compile(rb"([A-Za-z0-9\-._~+/]+=*)[\t ]*(?=,|\Z)")
_PARAMETER: Final = re.compile(
    rb"(%s)[\t ]*=[\t ]*(?:%s|([\x21\x23-\x2b\x2d-\x7e\x80-\xff]+))[\t ]*(?=,|\Z)"
    % (_TOKEN, _QUOTED)
)
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)


class ChallengeInvalid(ValueError):
    """A WWW-Authenticate field that breaks the grammar."""


@frozen
class Challenge:
    """One challenge.

    Attributes:
        scheme: in lower case.
        params: names in lower case; values unquoted, one character per octet.
        token68: what stands in the place of parameters with some schemes.
    """

    scheme: str
    params: Mapping[str, str] = field(factory=dict, hash=False)
    token68: str | None = None


@frozen
class Bearer:
    """Where a registry wants a token fetched (distribution specification, "token")."""

    realm: str
    service: str | None = None
    scope: str | None = None


def parse_challenges(value: bytes) -> list[Challenge]:
    """Read one line of WWW-Authenticate, which may hold several challenges.

    Raises:
        ChallengeInvalid: it breaks the grammar, or repeats a parameter.
    """
    challenges = []
    position = _skip(value, 0)
    while position < len(value):
        scheme = _SCHEME.match(value, position)
        if scheme is None:
            raise ChallengeInvalid(f"no authentication scheme at octet {position}")
        position = scheme.end()
        params: dict[str, str] = {}
        token68 = _TOKEN68.match(value, position)
        if token68 is not None:
            position = token68.end()
        else:
            while parameter := _PARAMETER.match(value, position):
                name = parameter[1].decode("ascii").lower()
                if name in params:
                    raise ChallengeInvalid(f"parameter {name!r} repeated")
                params[name] = _value(parameter)
                position = _skip(value, parameter.end())
            if position < len(value) and not params and value[position : position + 1] != b",":
                raise ChallengeInvalid(f"neither a parameter nor a token at octet {position}")
        challenges.append(
            Challenge(
                scheme[1].decode("ascii").lower(),
                params,
                None if token68 is None else token68[1].decode("ascii"),
            )
        )
        position = _skip(value, position)
    return challenges


def bearer(challenges: Sequence[Challenge]) -> Bearer | None:
    """The first Bearer challenge that says where to get a token, if there is one."""
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.params.get("realm"):
            params = challenge.params
            return Bearer(params["realm"], params.get("service"), params.get("scope"))
    return None


def _skip(value: bytes, position: int) -> int:
    """Past white space and commas: lists may have empty members (section 5.6.1.2)."""
    match = _SEPARATORS.match(value, position)
    return position if match is None else match.end()


def _value(parameter: re.Match[bytes]) -> str:
    quoted, bare = parameter[2], parameter[3]
    return (bare if quoted is None else _ESCAPE.sub(rb"\1", quoted)).decode("latin-1")

"""Header fields that tie a reader's browser down, for every answer of the management site."""

from __future__ import annotations

from typing import Final

from twisted.web.iweb import IRequest

#: Nothing may be loaded, framed or sent by what is answered.
NOTHING_ELSE: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FIELDS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With "no-referrer", forms of the site's own pages would come with "Origin: null", and be
    # taken for those of others (the Fetch standard, "append a request `Origin` header").
    "Referrer-Policy": "same-origin",
}


def restrict(request: IRequest, policy: str = NOTHING_ELSE) -> None:
    """Set them; *policy* is the Content-Security-Policy."""
    request.setHeader("Content-Security-Policy", policy)
    for name, value in _FIELDS.items():
        request.setHeader(name, value)

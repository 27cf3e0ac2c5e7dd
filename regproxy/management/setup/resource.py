"""``/setup``: the page for people, and the scripts for machines.

What is asked for may be on its way into a shell, ``curl ... | sh``: so errors are scripts, too,
that say what is wrong and fail.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from twisted.web.resource import Resource

from regproxy.management.pages.answers import POLICY
from regproxy.management.security import restrict
from regproxy.management.setup.choices import BadChoice, Choices, CloudChoices
from regproxy.management.setup.facts import Facts
from regproxy.management.setup.kinds import KINDS
from regproxy.management.setup.page import CLOUD_INIT, Offer
from regproxy.management.setup.scripts import Authority, refusal, script, user_data
from regproxy.oci.errors import shown
from regproxy.oci.names import Host
from regproxy.web.headers import field_text
from regproxy.web.site import StrictRequest


class Render(Protocol):
    """Makes a page of a template below ``templates/`` and values."""

    def __call__(self, template: str, here: str, **values: object) -> bytes:
        """The page; *here* is its entry in the navigation."""


class SetupResource(Resource):
    """``/setup`` and what is below.

    Args:
        facts: what scripts are filled in with.
        ca_pem: gives the CA certificates that clients have to trust, in PEM form.
        render: makes the page.
        at_proxy_port: it answers at the proxy's own port: the one that clients name, whatever
            lies in between, is the right one for them.
    """

    isLeaf = True

    def __init__(
        self,
        facts: Facts,
        ca_pem: Callable[[], bytes],
        render: Render,
        *,
        at_proxy_port: bool,
    ) -> None:
        super().__init__()
        self._facts = facts
        self._ca_pem = ca_pem
        self._render = render
        self._at_proxy_port = at_proxy_port

    def render(self, request: StrictRequest) -> bytes:
        """Answer."""
        restrict(request)
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        # It names the proxy by the name that this client came by.
        request.setHeader("Cache-Control", "no-store")
        name = b"/".join(request.postpath or ()).decode("ascii", "replace")
        try:
            if request.method not in (b"GET", b"HEAD"):
                request.setHeader("Allow", "GET, HEAD")
                raise BadChoice("expected GET or HEAD", HTTPStatus.METHOD_NOT_ALLOWED)
            # twisted.web drops it when the method is HEAD.
            return self._script(request, name).encode("ascii") if name else self._page(request)
        except BadChoice as bad:
            request.note(reason=bad.message)
            request.setResponseCode(bad.status)
            return refusal(bad.message).encode("ascii")

    def _script(self, request: StrictRequest, name: str) -> str:
        authority = Authority.of(self._ca_pem())
        query, at = _query(request), self._at(request)
        if name == CLOUD_INIT:
            return user_data(CloudChoices.read(query, at, self._facts), self._facts, authority)
        if name not in KINDS:
            known = ", ".join((*KINDS, CLOUD_INIT))
            raise BadChoice(f"there is no such script: there are {known}", HTTPStatus.NOT_FOUND)
        choices = Choices.read(KINDS[name], query, at, self._facts)
        return script(choices, self._facts, authority)

    def _page(self, request: StrictRequest) -> bytes:
        offer, error = None, None
        try:
            offer = Offer.read(_query(request), self._at(request), self._facts)
        except BadChoice as bad:
            if "text/html" not in (field_text(request.requestHeaders, "accept") or ""):
                raise
            request.note(reason=bad.message)
            request.setResponseCode(bad.status)
            error = bad.message
        restrict(request, POLICY)
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        return self._render(
            "setup/page.html",
            "/setup",
            kinds=KINDS.values(),
            offer=offer,
            error=error,
            fingerprint=Authority.of(self._ca_pem()).fingerprint,
        )

    def _at(self, request: StrictRequest) -> Host:
        """The proxy as this client can reach it: by the name that brought the client here."""
        if request.authority is None:
            raise BadChoice("Host: expected the name of the proxy")
        if self._at_proxy_port:
            return request.authority
        return Host(request.authority.name, self._facts.proxy_port)


def _query(request: StrictRequest) -> dict[str, str]:
    query = {}
    for name, values in (request.args or {}).items():
        try:
            key, texts = name.decode("ascii"), [value.decode("ascii") for value in values]
        except UnicodeDecodeError:
            raise BadChoice("the query has other characters than those of ASCII") from None
        if len(texts) > 1:
            raise BadChoice(f"{shown(key)} is there {len(texts)} times")
        (query[key],) = texts
    return query

"""``/setup``: the page for people, and the scripts for machines.

What is asked for may be on its way into a shell, ``curl ... | sh``: so errors are scripts, too,
that say what is wrong and fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import urlencode

from attrs import frozen
from jinja2 import ChoiceLoader, DictLoader, Environment, PackageLoader, StrictUndefined
from twisted.web.resource import Resource
from twisted.web.server import Request

from regproxy.management.setup.choices import BadChoice, Choices, CloudChoices, unusable
from regproxy.management.setup.facts import Facts
from regproxy.management.setup.kinds import IN_CLOUDS, KINDS, Cloud, Kind, Mode
from regproxy.management.setup.scripts import Authority, refusal, script, user_data
from regproxy.oci.errors import HostInvalid, shown
from regproxy.oci.names import Host

CLOUD_INIT: Final = "cloud-init"

_TEXT: Final = "text/plain; charset=utf-8"
_FIELDS: Final = {
    # It names the proxy by the name that this client came by.
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

#: What a mode is, for people.
MODES: Final[Mapping[Mode, str]] = {
    Mode.PROXY: "as its proxy",
    Mode.HOSTS: "as its mirror",
    Mode.DNS: "by its name server",
}

_FRAME: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{% block title required %}{% endblock %} · regproxy</title>
</head>
<body><main>{% block content required %}{% endblock %}</main></body>
</html>
"""


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

    def render(self, request: Request) -> bytes:
        """Answer."""
        for name, value in _FIELDS.items():
            request.setHeader(name, value)
        name = b"/".join(request.postpath or ()).decode("ascii", "replace")
        status, media_type, content = self._answer(request, name)
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            status, media_type = HTTPStatus.METHOD_NOT_ALLOWED, _TEXT
            content = refusal("this can be read with GET and HEAD only").encode()
        request.setResponseCode(status)
        request.setHeader("Content-Type", media_type)
        # twisted.web drops it when the method is HEAD.
        return content

    def _answer(self, request: Request, name: str) -> tuple[HTTPStatus, str, bytes]:
        if not name:
            return HTTPStatus.OK, "text/html; charset=utf-8", self._page(request)
        try:
            return HTTPStatus.OK, _TEXT, self._script(request, name).encode("ascii")
        except BadChoice as bad:
            return bad.status, _TEXT, refusal(bad.message).encode("ascii")

    def _script(self, request: Request, name: str) -> str:
        authority = Authority.of(self._ca_pem())
        query, at = _query(request), self._at(request)
        if name == CLOUD_INIT:
            return user_data(CloudChoices.read(query, at, self._facts), self._facts, authority)
        if name not in KINDS:
            known = ", ".join((*KINDS, CLOUD_INIT))
            raise BadChoice(f"there is no such script: there are {known}", HTTPStatus.NOT_FOUND)
        choices = Choices.read(KINDS[name], query, at, self._facts)
        return script(choices, self._facts, authority)

    def _page(self, request: Request) -> bytes:
        error = None
        try:
            offer = self._offer(_query(request), self._at(request))
        except BadChoice as bad:
            error = bad.message
            offer = self._offer({}, Host("proxy.invalid", self._facts.proxy_port))
        return self._render(
            "setup/page.html",
            "/setup",
            kinds=KINDS.values(),
            offer=offer,
            error=error,
            fingerprint=Authority.of(self._ca_pem()).fingerprint,
        )

    def _offer(self, query: Mapping[str, str], at: Host) -> Offer:
        query = dict(query)
        name = query.pop("runtime", "docker")
        if name not in KINDS:
            raise BadChoice(f"runtime: expected one of {', '.join(KINDS)}")
        kind = KINDS[name]
        # An empty field of the form is not filled in.
        query = {key: text for key, text in query.items() if text}
        choices = Choices.read(kind, query, at, self._facts)
        asked = {"mode": choices.mode.value} if choices.mode is not kind.modes[0] else {}
        if "no_proxy" in query:
            asked["no_proxy"] = query["no_proxy"]
        address = f"http://{choices.proxy.authority}/setup"
        clouds = []
        if name in IN_CLOUDS and choices.mode is not Mode.HOSTS:
            clouds = [
                (cloud, _url(f"/setup/{CLOUD_INIT}", cloud=cloud.value, runtime=name, **asked))
                for cloud in Cloud
            ]
        return Offer(
            kind=kind,
            mode=choices.mode,
            modes=tuple((mode, MODES[mode], unusable(mode, self._facts)) for mode in kind.modes),
            url=_url(f"{address}/{name}", **asked),
            undo_url=_url(f"{address}/{name}", **asked, undo="1"),
            no_proxy=query.get("no_proxy", ""),
            clouds=tuple(clouds),
        )

    def _at(self, request: Request) -> Host:
        """The proxy as this client can reach it: by the name that brought the client here."""
        (field,) = request.requestHeaders.getRawHeaders(b"host", [b""])[:1]
        try:
            # The port of http, if none is named.
            host = Host.parse(field.decode("latin-1"), default_port=80)
        except HostInvalid:
            raise BadChoice("Host: expected the name of the proxy") from None
        return host if self._at_proxy_port else Host(host.name, self._facts.proxy_port)


def bare_page(template: str, here: str, **values: object) -> bytes:
    """A page without the frame and the style of the other pages."""
    return _bare().get_template(template).render(values).encode()


@cache
def _bare() -> Environment:
    frame = DictLoader({"base.html": _FRAME})
    return Environment(
        loader=ChoiceLoader([frame, PackageLoader("regproxy.management")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@frozen
class Offer:
    """What the page has for one runtime.

    Attributes:
        modes: each with its name for people, and why it cannot be used, if so.
        url: where the script is.
        undo_url: where the one is that takes everything back.
        no_proxy: what the reader has added.
        clouds: where user-data with the script is.
    """

    kind: Kind
    mode: Mode
    modes: tuple[tuple[Mode, str, str | None], ...]
    url: str
    undo_url: str
    no_proxy: str
    clouds: tuple[tuple[Cloud, str], ...]


def _url(path: str, **query: str) -> str:
    # Quotes are escaped in it: it can stand between single quotes in a shell.
    return f"{path}?{urlencode(query, safe=',/:')}" if query else path


def _query(request: Request) -> dict[str, str]:
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

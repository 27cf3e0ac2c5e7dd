"""The management API of a running regproxy, over HTTP.

urllib3 by itself, and not one of the libraries built upon it: it trusts the certificates that the
system trusts, looks neither for a proxy in the environment (on a node that would be regproxy
itself) nor for logins in ``.netrc``, follows no redirect unless told, and streams both ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from regproxy import __version__
from regproxy.cli.errors import CommandFailed, NotAllowed, NotReachable
from regproxy.cli.settings import Settings

#: Bytes that are moved at a time.
BLOCK: Final = 1 << 18
_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 60.0
# An upload is answered when the disk has it all.
_UPLOAD_SECONDS: Final = 600.0
_ITEMS: Final = 1000


class Source(Protocol):
    """Something to upload."""

    def read(self, size: int = ..., /) -> bytes:
        """The next bytes; none at the end."""


class Client:
    """Asks, and raises what goes wrong in the words of the command line.

    Each method may raise NotReachable, NotAllowed, or CommandFailed with what the server says.
    Arguments that are None are left out of the query.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = settings.url
        self._headers = {"User-Agent": f"regproxy-cli/{__version__}"}
        if settings.authorization is not None:
            self._headers["Authorization"] = settings.authorization
        self._pool = urllib3.PoolManager(blocksize=BLOCK)

    def get(self, path: str, **query: str | int | None) -> Any:
        """What the API says at *path*."""
        return self._ask("GET", path, query)

    def post(self, path: str, body: Any = None, **query: str | int | None) -> Any:
        """Have something done; *body* is what is sent as JSON. None when there is no answer."""
        return self._ask("POST", path, query, body)

    def put(self, path: str, **query: str | int | None) -> Any:
        """Have something be so."""
        return self._ask("PUT", path, query)

    def delete(self, path: str, **query: str | int | None) -> Any:
        """Have something be no more."""
        return self._ask("DELETE", path, query)

    def items(self, path: str, **query: str | int | None) -> Iterator[Any]:
        """All items of the list at *path*, fetched in parts while they are read."""
        cursor: str | None = None
        while True:
            page = self.get(path, **{"limit": _ITEMS, **query, "cursor": cursor})
            try:
                items, cursor = page["items"], page["next"]
            except (TypeError, KeyError):
                raise self._strange() from None
            yield from items
            if cursor is None:
                return

    def has(self, path: str) -> bool:
        """Whether there is something at *path*."""
        with self._send("GET", self._api(path, {})) as response:
            if response.status != 404:
                self._check(response)
            return response.status != 404

    @contextmanager
    def download(self, path: str) -> Iterator[urllib3.BaseHTTPResponse]:
        """The content at *path*, to be read bit by bit."""
        with self._send("GET", self._api(path, {})) as response:
            self._check(response)
            yield response

    def upload(self, path: str, source: Source, size: int) -> None:
        """Send the *size* bytes of *source* to *path*."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
        }
        blocks = iter(partial(source.read, BLOCK), b"")
        with self._send("PUT", self._api(path, {}), blocks, headers, _UPLOAD_SECONDS) as response:
            self._check(response)

    def page(self, path: str) -> bytes:
        """What the site itself, outside the API, has at *path*."""
        with self._send("GET", f"{self.url}{path}") as response:
            self._check(response)
            return response.data

    def _ask(
        self, method: str, path: str, query: dict[str, str | int | None], body: Any = None
    ) -> Any:
        headers = {"Accept": "application/json"}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        with self._send(method, self._api(path, query), content, headers) as response:
            self._check(response)
            data = response.data
        if not data:
            return None
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise self._strange() from None
        if not isinstance(answer, dict):
            # All that the API says is an object.
            raise self._strange()
        return answer

    def _api(self, path: str, query: dict[str, str | int | None]) -> str:
        given = {key: value for key, value in query.items() if value is not None}
        text = f"?{urlencode(given, quote_via=quote, safe='/:@')}" if given else ""
        return f"{self.url}/api/v1/{quote(path, safe='/:')}{text}"

    @contextmanager
    def _send(
        self,
        method: str,
        url: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        read_seconds: float = _READ_SECONDS,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer, with its body not yet read; what breaks while it is read counts too."""
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=self._headers | (headers or {}),
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                yield response
            except BaseException:
                # Half an answer is left on the connection.
                response.close()
                raise
            response.drain_conn()
            response.release_conn()
        except HTTPError as error:
            raise NotReachable(self._unreachable(error)) from None

    def _check(self, response: urllib3.BaseHTTPResponse) -> None:
        status = response.status
        if 200 <= status < 300:
            return
        told = _told(response)
        if status == 401:
            raise NotAllowed(
                f"{told or 'the server wants a login'}: give one with --token-file or --user,"
                " REGPROXY_TOKEN, or the file of settings"
            )
        if status == 403:
            raise NotAllowed(told or "the server does not allow this")
        if told is not None:
            raise CommandFailed(told)
        raise self._strange()

    def _strange(self) -> CommandFailed:
        return CommandFailed(
            f"{self.url} does not answer as the management site of regproxy does:"
            " look at --url or REGPROXY_URL"
        )

    def _unreachable(self, error: HTTPError) -> str:
        match error:
            case NameResolutionError():
                reason = "its name is not known"
            case NewConnectionError():
                reason = "nothing listens there"
            case ConnectTimeoutError():
                reason = "it does not answer"
            case SSLError():
                reason = f"its certificate is not trusted or TLS fails ({error})"
            case ReadTimeoutError():
                reason = "the answer did not come in time"
            case _:
                reason = f"the connection broke ({error})"
        return (
            f"cannot talk to regproxy at {self.url}: {reason};"
            " is it running, and is --url or REGPROXY_URL right?"
        )


def _told(response: urllib3.BaseHTTPResponse) -> str | None:
    """What the server says of an error (RFC 9457 section 3.1), None when it says nothing."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    if media_type != "application/problem+json":
        return None
    try:
        problem = json.loads(response.data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(problem, dict):
        return None
    said = [problem.get(key) for key in ("detail", "title")]
    return next((text for text in said if isinstance(text, str) and text), None)

"""A management API for the tests of the command line: real HTTP on loopback, all in memory."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import Factory, define, frozen

from regproxy.oci.manifests import ImageIndex, Part, parse_manifest
from regproxy.oci.names import Digest
from tests.support.images import Content, Image, Index

NOW: Final = "2026-11-24T12:00:00Z"


@frozen
class Asked:
    """A request that came.

    Attributes:
        path: below ``/api/v1/``, or with its leading slash what is not there.
        body: what JSON said, None without any.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    authorization: str | None


@frozen
class Answer:
    """What is answered; as JSON unless it is bytes."""

    body: Any = None
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = Factory(dict)


def problem(status: int, detail: str) -> Answer:
    """An error as the API answers it."""
    body = {"type": "about:blank", "title": "Error", "status": status, "detail": detail}
    return Answer(body, status, "application/problem+json")


@define
class ManagementApi:
    """The API, with images in it, and answers by the script for everything else.

    Attributes:
        answers: by method and path, one after the other; the last one again and again.
        contents: what is stored, by its digest.
        images: the digest and the media type of each reference.
        damaged: digests of which other bytes are given out.
        asked: all requests.
    """

    answers: dict[tuple[str, str], list[Answer]] = Factory(dict)
    contents: dict[str, bytes] = Factory(dict)
    images: dict[str, tuple[str, str]] = Factory(dict)
    damaged: set[str] = Factory(set)
    asked: list[Asked] = Factory(list)
    url: str = ""
    _server: _Server | None = None

    def start(self) -> ManagementApi:
        """Answer requests at ``url`` from now on."""
        api = self

        class Handler(_Handler):
            def handle_all(self) -> None:
                api._handle(self)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Answer no more."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def script(self, method: str, path: str, *answers: Any) -> None:
        """Answer requests for *path* with *answers*, each an Answer or what is said in JSON."""
        self.answers[method, path] = [
            each if isinstance(each, Answer) else Answer(each) for each in answers
        ]

    def add(self, reference: str, image: Image | Index) -> None:
        """Store all of *image*."""
        self.images[reference] = (image.digest, image.manifest.media_type)
        images = image.images if isinstance(image, Index) else (image,)
        contents: Iterable[Content] = (
            image.manifest,
            *(content for each in images for content in (each.manifest, *each.blobs)),
        )
        self.contents |= {each.digest: each.content for each in contents}

    def written(self) -> list[tuple[str, str]]:
        """Method and path of the requests that change something."""
        return [(each.method, each.path) for each in self.asked if each.method != "GET"]

    def _handle(self, handler: _Handler) -> None:
        parts = urlsplit(handler.path)
        path = unquote(parts.path).removeprefix("/api/v1/")
        length = int(handler.headers.get("Content-Length", 0))
        data = handler.rfile.read(length)
        if len(data) < length:
            # The client has left in the midst of it.
            handler.close_connection = True
            return
        is_json = handler.headers.get("Content-Type") == "application/json"
        asked = Asked(
            handler.command,
            path,
            dict(parse_qsl(parts.query, strict_parsing=bool(parts.query))),
            json.loads(data) if is_json else None,
            handler.headers.get("Authorization"),
        )
        self.asked.append(asked)
        answer = self._answer(asked, data)
        body = answer.body
        if not isinstance(body, bytes):
            body = b"" if body is None else json.dumps(body).encode()
        handler.send_response(answer.status)
        for name, value in {"Content-Type": answer.media_type, **answer.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _answer(self, asked: Asked, data: bytes) -> Answer:
        scripted = self.answers.get((asked.method, asked.path))
        if scripted is not None:
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        match asked.method, asked.path.split("/"):
            case "PUT", ["blobs", digest]:
                if str(Digest.of(data, Digest.parse(digest).algorithm)) != digest:
                    return problem(400, f"{digest} is not what was sent")
                self.contents[digest] = data
                return Answer(None, 204)
            case "GET", ["blobs", digest] if digest in self.contents:
                return Answer({"digest": digest, "bytes": len(self.contents[digest])})
            case "GET", ["blobs", digest, "content"] if digest in self.contents:
                content = self.contents[digest]
                if digest in self.damaged:
                    content = bytes(len(content))
                return Answer(content, media_type="application/octet-stream")
            case "POST", ["image"] if asked.body["digest"] in self.contents:
                self.images[asked.query["reference"]] = (
                    asked.body["digest"],
                    asked.body["media_type"],
                )
                return Answer(self._value(asked.query["reference"]))
            case "GET", ["image"] if asked.query["reference"] in self.images:
                return Answer(self.tree(asked.query["reference"]))
        return problem(404, f"there is no {asked.path}")

    def _value(self, reference: str) -> dict[str, Any]:
        digest, media_type = self.images[reference]
        tag = None if "@" in reference else reference.rpartition(":")[2]
        return image_value(reference, tag=tag, digest=digest, media_type=media_type)

    def tree(self, reference: str) -> dict[str, Any]:
        """The image of *reference* as the API says it."""
        digest, media_type = self.images[reference]
        part = Part(Digest.parse(digest), media_type, len(self.contents.get(digest, b"")))
        return {"image": self._value(reference), "manifest": self._node(part)}

    def _node(self, part: Part) -> dict[str, Any]:
        content = self.contents.get(str(part.digest))
        node = {
            "digest": str(part.digest),
            "media_type": part.media_type,
            "bytes": part.size,
            "stored": content is not None,
            "platform": None if part.platform is None else str(part.platform),
            "config": None,
            "layers": [],
            "children": [],
        }
        if content is not None:
            manifest = parse_manifest(content)
            if isinstance(manifest, ImageIndex):
                node["children"] = [self._node(each) for each in manifest.manifests]
                node["layers"] = [self._layer(each) for each in manifest.blobs]
            else:
                node["config"] = manifest.config and self._layer(manifest.config)
                node["layers"] = [self._layer(each) for each in manifest.layers]
        return node

    def _layer(self, part: Part) -> dict[str, Any]:
        return {
            "digest": str(part.digest),
            "media_type": part.media_type,
            "bytes": part.size,
            "stored": str(part.digest) in self.contents,
            "shared_by": 1,
        }


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave in the midst of an answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_all(self) -> None:
        """Answer the request."""
        raise NotImplementedError

    def do_GET(self) -> None:
        self.handle_all()

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what came is in ``asked``."""


def image_value(reference: str, **attributes: Any) -> dict[str, Any]:
    """An image as the API says it."""
    return {
        "reference": reference,
        "registry": reference.partition("/")[0],
        "repository": reference.partition("/")[2],
        "tag": "1",
        "digest": f"sha256:{'0' * 64}",
        "media_type": "application/vnd.oci.image.index.v1+json",
        "bytes": 1,
        "complete": True,
        "pinned": False,
        "last_used": NOW,
        "checked_at": NOW,
        "stored_at": NOW,
        "brought_by": None,
    } | attributes


def job(state: str = "running", **attributes: Any) -> dict[str, Any]:
    """A job as the API says it."""
    return {
        "id": "j1",
        "kind": "verify",
        "state": state,
        "started_at": NOW,
        "ended_at": None if state == "running" else NOW,
        "done": 0,
        "total": None,
        "unit": "items",
        "message": None,
        "failures": [],
        "images": [],
    } | attributes


def stats(**attributes: Any) -> dict[str, Any]:
    """Numbers of a proxy as the API says them."""
    return {
        "version": "0.1.0",
        "started_at": NOW,
        "requests": 10,
        "hits": 9,
        "hit_ratio": 0.9,
        "bytes_to_clients": 5 << 20,
        "bytes_from_upstream": 1 << 20,
        "bytes_saved": 4 << 20,
        "store": {
            "bytes": 3 << 30,
            "blobs": 1234,
            "limit": 32 << 30,
            "free": 64 << 30,
            "evicted": 0,
            "evicted_bytes": 0,
            "quarantined": 0,
            "disk_full": 0,
        },
        "rate_limits": [],
        "fills": 0,
        "connections": 2,
        "loop_delay_p99": 0.001,
        "ca": ca(),
    } | attributes


def ca(**attributes: Any) -> dict[str, Any]:
    """A certificate authority as the API says it."""
    return {
        "subject": "CN=regproxy",
        "fingerprint": "AB:CD",
        "not_after": "2036-11-24T12:00:00Z",
        "next": None,
        "previous": [],
    } | attributes


def registry(name: str, **attributes: Any) -> dict[str, Any]:
    """A registry as the API says it."""
    return {
        "name": name,
        "upstream": [f"https://{name}"],
        "auth": "forward",
        "access": "verify",
        "push": "forward",
        "requests": 0,
        "hits": 0,
        "bytes_to_clients": 0,
        "bytes_from_upstream": 0,
        "errors": 0,
        "last_error": None,
        "last_error_at": None,
        "backoff_seconds": 0.0,
        "latency_p50": None,
    } | attributes


def fill(**attributes: Any) -> dict[str, Any]:
    """A transfer as the API says it."""
    return {
        "digest": f"sha256:{'0' * 64}",
        "registry": "ghcr.io",
        "repository": "o/a",
        "kind": "blob",
        "state": "running",
        "size": 10,
        "stored": 5,
        "readers": 1,
        "started_at": NOW,
        "bytes_per_second": 0.0,
    } | attributes

"""A small API server: leases and nodes, with the conflicts that the real one answers."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.certificates import make_ca, make_leaf

TOKEN = "the-token-of-the-account"


class KubernetesApi:
    """Answers over TLS on the loopback interface.

    Attributes:
        labels: of the nodes, by name.
        leases: by namespace and name.
        log: method, path and status of each request.
        account: a directory like the one that a pod has.
    """

    def __init__(self, directory: Path, *nodes: str) -> None:
        self.labels: dict[str, dict[str, str]] = {node: {} for node in nodes}
        self.leases: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[str, str, int]] = []
        self._lock = threading.Lock()
        self._version = 0
        self.account = directory / "account"
        self.account.mkdir(parents=True)
        ca = make_ca()
        leaf = make_leaf(ca, ips=["127.0.0.1"])
        (self.account / "ca.crt").write_bytes(ca.certificate_pem)
        (self.account / "token").write_text(TOKEN + "\n")
        files = directory / "server.crt", directory / "server.key"
        files[0].write_bytes(leaf.certificate_pem)
        files[1].write_bytes(leaf.key_pem)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environ(self) -> dict[str, str]:
        """What a pod has in its environment."""
        host, port = self._server.server_address[:2]
        return {"KUBERNETES_SERVICE_HOST": str(host), "KUBERNETES_SERVICE_PORT": str(port)}

    @property
    def holder(self) -> str | None:
        """Who has the only lease."""
        (lease,) = self.leases.values()
        holder: str | None = lease["spec"].get("holderIdentity")
        return holder

    def hold(self, holder: str) -> None:
        """Have another write itself into the only lease."""
        with self._lock:
            (lease,) = self.leases.values()
            self._stamp(lease | {"spec": lease["spec"] | {"holderIdentity": holder}})

    def _stamp(self, lease: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        metadata = lease["metadata"] | {"resourceVersion": str(self._version)}
        new = lease | {"metadata": metadata}
        self.leases[f"{metadata['namespace']}/{metadata['name']}"] = new
        return new

    def answer(self, method: str, path: str, media_type: str, body: Any) -> tuple[int, Any]:
        """What the real one would answer."""
        parts = path.strip("/").split("/")
        with self._lock:
            match method, parts:
                case "PATCH", ["api", "v1", "nodes", name] if name in self.labels:
                    if media_type != "application/merge-patch+json":
                        return 415, {"reason": "UnsupportedMediaType"}
                    for key, value in body["metadata"]["labels"].items():
                        if value is None:
                            self.labels[name].pop(key, None)
                        else:
                            self.labels[name][key] = value
                    return 200, {"metadata": {"name": name}}
                case "POST", ["apis", "coordination.k8s.io", "v1", "namespaces", space, "leases"]:
                    if f"{space}/{body['metadata']['name']}" in self.leases:
                        return 409, {"reason": "AlreadyExists"}
                    return 201, self._stamp(body)
                case _, ["apis", "coordination.k8s.io", "v1", "namespaces", space, "leases", name]:
                    return self._lease(method, self.leases.get(f"{space}/{name}"), body)
        return 404, {"reason": "NotFound"}

    def _lease(self, method: str, lease: dict[str, Any] | None, body: Any) -> tuple[int, Any]:
        if lease is None:
            return 404, {"reason": "NotFound"}
        if method == "GET":
            return 200, lease
        if method != "PUT":
            return 405, {"reason": "MethodNotAllowed"}
        if body["metadata"].get("resourceVersion") != lease["metadata"]["resourceVersion"]:
            return 409, {"reason": "Conflict"}
        return 200, self._stamp(body)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    status, answer = 401, {"reason": "Unauthorized"}
                else:
                    media_type = self.headers.get("Content-Type", "")
                    status, answer = api.answer(self.command, self.path, media_type, body)
                api.log.append((self.command, self.path, status))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = handle_any

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

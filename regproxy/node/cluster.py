"""The API of Kubernetes: one machine's turn at a time, and a label that says how it went.

Whose turn it is stands in a Lease (``coordination.k8s.io/v1``), which is used as client-go's leader
election uses it: no two clocks are compared. A holder whose lease has not changed while its
duration went by here is gone.
"""

from __future__ import annotations

import json
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, Self
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from attrs import frozen

from regproxy.node.errors import ClusterError
from regproxy.node.machine import COMMAND_TIMEOUT

#: On the node: the mode it is in, or FAILED.
LABEL: Final = "regproxy/node"
FAILED: Final = "failed"
LEASE: Final = "regproxy-node-turn"
# Seconds. Longer than a turn can take: five commands, and once more to put everything back.
LEASE_DURATION: Final = int(12 * COMMAND_TIMEOUT)
# Seconds between two looks at a lease that somebody else has.
_WAIT: Final = 5.0
_TIMEOUT: Final = 30.0
#: Where a pod finds the address of the API, and who it is.
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@frozen
class Api:
    """The API server.

    Attributes:
        url: without a path.
        account: the directory with the token, which is exchanged for a new one now and then.
    """

    url: str
    account: Path
    context: ssl.SSLContext

    @classmethod
    def of_pod(cls, environ: Mapping[str, str], account: Path = ACCOUNT) -> Self:
        """The one that the environment of a pod names.

        Raises:
            ClusterError: this is no pod.
        """
        try:
            host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
            context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        except (KeyError, OSError) as error:
            raise ClusterError(f"this is no pod of a cluster: {error} is missing") from None
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", account, context)

    def call(
        self, method: str, path: str, body: Any = None, media_type: str = "application/json"
    ) -> tuple[int, Any]:
        """Status and answer of one request.

        Raises:
            ClusterError: there was no answer.
        """
        token = (self.account / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": media_type}
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, headers, method=method)
        opener = build_opener(ProxyHandler({}), HTTPSHandler(context=self.context))
        try:
            with opener.open(request, timeout=_TIMEOUT) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, error.read().decode("utf-8", "replace")
        except (OSError, HTTPException, ValueError) as error:
            raise ClusterError(f"{method} {path}: {error}") from None


@frozen
class Cluster:
    """The cluster that a machine belongs to.

    Attributes:
        node: the machine's name there.
        clock: seconds, of whatever beginning.
    """

    api: Api
    namespace: str
    node: str
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until it is this machine's turn; when the block ends, it is another's.

        Raises:
            ClusterError: the API refuses.
        """
        self._take()
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Give up the turn, if this machine has it: from now, or since before a crash.

        Raises:
            ClusterError: the API refuses.
        """
        lease = self._lease()
        if lease is not None and lease["spec"].get("holderIdentity") == self.node:
            # If another has taken it meanwhile, it is not ours to give up.
            self._put(lease, "")

    def label(self, value: str | None) -> None:
        """Say at the node how it is configured; None for not at all.

        Raises:
            ClusterError: the API refuses.
        """
        path = f"/api/v1/nodes/{self.node}"
        body = {"metadata": {"labels": {LABEL: value}}}
        status, answer = self.api.call("PATCH", path, body, "application/merge-patch+json")
        _expect(status, answer, "PATCH", path, HTTPStatus.OK)

    def _take(self) -> None:
        seen: str | None = None
        since = self.clock()
        while True:
            lease = self._lease() or self._create()
            if lease is not None:
                spec = lease["spec"]
                holder = spec.get("holderIdentity")
                now = self.clock()
                if seen != lease["metadata"]["resourceVersion"]:
                    seen, since = lease["metadata"]["resourceVersion"], now
                gone = now - since > spec.get("leaseDurationSeconds", LEASE_DURATION)
                if (holder in (None, "", self.node) or gone) and self._put(lease, self.node):
                    return
            # Apart, so that not all of a large cluster look at once.
            self.sleep(_WAIT * random.uniform(0.5, 1.5))

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    def _lease(self) -> Any:
        path = f"{self._path}/{LEASE}"
        status, answer = self.api.call("GET", path)
        if status == HTTPStatus.NOT_FOUND:
            return None
        _expect(status, answer, "GET", path, HTTPStatus.OK)
        answer.setdefault("spec", {})
        return answer

    def _create(self) -> Any:
        """A new lease that nobody has; None if another was faster."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE, "namespace": self.namespace},
            "spec": {},
        }
        status, answer = self.api.call("POST", self._path, lease)
        if status == HTTPStatus.CONFLICT:
            return None
        _expect(status, answer, "POST", self._path, HTTPStatus.CREATED)
        answer.setdefault("spec", {})
        return answer

    def _put(self, lease: Any, holder: str) -> bool:
        """Write the holder; whether nobody else has written since *lease* was read."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = lease["spec"]
        changes = lease["spec"].get("leaseTransitions", 0)
        new = lease | {
            "spec": spec
            | {
                "holderIdentity": holder,
                "leaseDurationSeconds": LEASE_DURATION,
                "renewTime": now,
                "acquireTime": now if holder else spec.get("acquireTime", now),
                "leaseTransitions": changes + 1 if holder else changes,
            }
        }
        path = f"{self._path}/{LEASE}"
        status, answer = self.api.call("PUT", path, new)
        if status == HTTPStatus.CONFLICT:
            return False
        _expect(status, answer, "PUT", path, HTTPStatus.OK)
        return True


def _expect(status: int, answer: Any, method: str, path: str, expected: HTTPStatus) -> None:
    if status != expected:
        raise ClusterError(f"{method} {path} was answered {status}: {str(answer)[:300]}")

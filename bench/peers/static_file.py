"""Twisted's own file server over TLS: a yardstick, what its usual means bring.

``python -m bench.peers.static_file DIRECTORY PORT CERTIFICATE KEY`` serves the files of DIRECTORY.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.internet.endpoints import serverFromString
from twisted.python.failure import Failure
from twisted.web.server import Site
from twisted.web.static import File

from bench.setting import Peer, Setting
from bench.upstreams import HOST, REPOSITORY, FileServer
from bench.way import ADDRESS, Way
from tests.support.process import environment, free_port

_ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def static_file(setting: Setting, upstream: FileServer) -> Iterator[Peer]:
    """With the files of *upstream*."""
    port = free_port()
    keys = upstream.keys
    script = [sys.executable, "-m", __name__, str(upstream.directory), str(port)]
    command = [*script, str(keys.certificate), str(keys.key)]
    env = environment(PYTHONPATH=_ROOT)
    with setting.serving("static.File", command, port, env=env) as process:
        yield Peer("static.File", process, Way(port, HOST, REPOSITORY, keys.ca))


def serve(directory: str, port: str, certificate: str, key: str) -> None:
    """Serve until a signal comes."""
    # Imported here: it installs the reactor for good.
    from twisted.internet import reactor

    # Its default is to hand out text/html.
    site = Site(File(directory, defaultType="application/octet-stream"))
    description = f"ssl:{port}:interface={ADDRESS}:certKey={certificate}:privateKey={key}"
    serverFromString(reactor, description).listen(site).addErrback(_fail)
    reactor.run()


def _fail(failure: Failure) -> None:
    failure.printTraceback()
    sys.exit(1)


if __name__ == "__main__":
    serve(*sys.argv[1:])

"""The program of the DaemonSet: ``python3 -m regproxy.node.main``.

It looks at the machine when it starts and every few minutes, for what others may have changed
and for a new certificate of the CA, and leaves alone what is as it should be.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from regproxy.node import reach
from regproxy.node.cluster import ACCOUNT, Api, Cluster
from regproxy.node.errors import NodeError
from regproxy.node.machine import Machine, runner
from regproxy.node.node import Alone, Node, Turns
from regproxy.node.services import Services
from regproxy.node.settings import Settings

# Its programs run in all of the machine's namespaces, so that they reach its systemd.
ENTER: Final = "nsenter --target 1 --mount --uts --ipc --net --pid --"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; *arguments* default to those of the process.

    Returns:
        0, or with ``--once`` 1 when the machine is not as the settings want it.
    """
    options = _parser().parse_args(arguments)
    machine = Machine(options.root.resolve(), runner(shlex.split(options.enter)))
    stopping = threading.Event()
    for number in signal.SIGTERM, signal.SIGINT:
        # What has begun is brought to its end.
        signal.signal(number, lambda *_: stopping.set())
    try:
        turns: Turns = Alone() if options.alone else _cluster(os.environ, options.account, stopping)
    except NodeError as error:
        _log(str(error))
        return 1
    node = Node(machine, Services(machine), turns, reach.check, _log)
    while True:
        good = _round(node, options.ca, options.ready)
        if options.once or stopping.wait(options.interval):
            return 0 if good else 1


def _round(node: Node, ca: Path, ready: Path | None) -> bool:
    try:
        settings = Settings.read(os.environ, ca)
        node.configure(settings)
    except (NodeError, OSError) as error:
        _log(f"failed: {error}")
        if ready is not None:
            ready.unlink(missing_ok=True)
        return False
    if ready is not None and not ready.exists():
        ready.touch()
        _log(f"{settings.mode}: done")
    return True


def _cluster(environ: Mapping[str, str], account: Path, stopping: threading.Event) -> Cluster:
    names = "NODE_NAME", "NODE_NAMESPACE"
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise NodeError(f"{' and '.join(missing)} have to be set, or --alone")
    api = Api.of_pod(environ, account)

    def sleep(seconds: float) -> None:
        # Whoever comes next may have other settings: a turn is not waited for with these.
        if stopping.wait(seconds):
            sys.exit("ended before it was this machine's turn")

    cluster = Cluster(api, environ["NODE_NAMESPACE"], environ["NODE_NAME"], sleep)
    # It may have been ended by the restart of a daemon in the middle of its turn.
    cluster.release()
    return cluster


def _log(message: str) -> None:
    print(message, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Point a machine at regproxy, or undo that.")
    parser.add_argument("--root", type=Path, default=Path("/host"), help="the machine's root")
    parser.add_argument("--ca", type=Path, default=Path("/ca/ca.crt"), help="the CA's certificate")
    parser.add_argument("--enter", default=ENTER, help="begins each command of the machine")
    parser.add_argument("--interval", type=float, default=300.0, help="seconds between looks")
    parser.add_argument("--once", action="store_true", help="look once, and end")
    parser.add_argument("--alone", action="store_true", help="without a cluster")
    parser.add_argument("--account", type=Path, default=ACCOUNT, help="the pod's account")
    parser.add_argument("--ready", type=Path, help="a file that is there while all is well")
    return parser


if __name__ == "__main__":
    sys.exit(main())

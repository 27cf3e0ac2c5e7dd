"""Docker's credential helpers: programs that are asked for a login.

The protocol is that of Docker's "credential helper protocol": ``docker-credential-NAME
get``, the server's URL on its input, JSON on its output. What it prints reaches
no log and no message.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from regproxy.upstream.docker_config import CredentialsNotFound, Helper, parse_helper_answer
from regproxy.upstream.errors import UpstreamLoginFailed
from regproxy.upstream.logins import Login

# A helper that asks a cloud's API takes a second or two; a client's patience with the
# head of a response ends at 30 s.
TIME_LIMIT: Final = 15.0
# Tokens of cloud registries have 2 to 4 kB.
OUTPUT_LIMIT: Final = 64 * 1024


async def ask_helper(
    reactor: Any, helper: Helper, environ: Mapping[str, str], time_limit: float = TIME_LIMIT
) -> Login:
    """The login that *helper* knows.

    Args:
        reactor: provides IReactorProcess and IReactorTime.
        environ: the environment of the program; its PATH says where the program is.
        time_limit: seconds after which it is killed.

    Raises:
        UpstreamLoginFailed: there is no such program, it fails, or it knows none.
    """
    path = shutil.which(helper.program, path=environ.get("PATH", os.defpath))
    if path is None:
        raise _failed(helper, "is not in the PATH of the proxy: install it there")
    conversation = _Conversation(helper.server)
    try:
        reactor.spawnProcess(conversation, path, [helper.program, "get"], dict(environ))
    except OSError as error:
        raise _failed(helper, f"cannot be started: {error.strerror}") from error
    try:
        succeeded, output = await conversation.done.addTimeout(time_limit, reactor)
    except TimeoutError:
        raise _failed(helper, f"was killed after {time_limit:g} seconds") from None
    if len(output) > OUTPUT_LIMIT:
        raise _failed(helper, f"was killed: it printed more than {OUTPUT_LIMIT} bytes")
    try:
        login = parse_helper_answer(output)
    except CredentialsNotFound:
        what = "has no login there: log in as the user that the proxy runs as"
        raise _failed(helper, what) from None
    except ValueError as error:
        reason = str(error) if succeeded else "it failed"
        what = f"gave no login, {reason}: run it as the user that the proxy runs as"
        raise _failed(helper, what) from None
    if not succeeded:
        raise _failed(helper, "failed: run it as the user that the proxy runs as")
    return login


def _failed(helper: Helper, what: str) -> UpstreamLoginFailed:
    return UpstreamLoginFailed(f"{helper.program}, asked for {helper.server}, {what}")


class _Conversation(ProcessProtocol):
    """One question to one helper.

    Attributes:
        done: fires with whether it succeeded and what it printed; when that is
            cancelled or too much, the program is killed.
    """

    transport: IProcessTransport

    def __init__(self, server: str) -> None:
        self.done: Deferred[tuple[bool, bytes]] = Deferred(lambda _: self._kill())
        self._server = server
        self._output = bytearray()

    def connectionMade(self) -> None:
        """It runs: ask."""
        self.transport.writeToChild(0, self._server.encode())
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        """A part of the answer."""
        self._output += data
        if len(self._output) > OUTPUT_LIMIT and not self.done.called:
            self._kill()
            self.done.callback((False, bytes(self._output)))

    def errReceived(self, data: bytes) -> None:
        """What it says to people may hold anything: it is dropped."""

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and everything that it printed is here."""
        if not self.done.called:
            self.done.callback((reason.check(ProcessDone) is not None, bytes(self._output)))

    def _kill(self) -> None:
        # Its own children may hold the pipes open: nobody waits for them.
        self.transport.loseConnection()
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            return

"""The operations about the certificate authority."""

from __future__ import annotations

from http import HTTPStatus

from regproxy.management.ca import Authority
from regproxy.management.operations import AnyOperation, Nothing, Operation
from regproxy.management.values import CAValue
from regproxy.tls.errors import CAError, RotationRefused

_ERRORS = {
    RotationRefused: HTTPStatus.CONFLICT,
    CAError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def operations(authority: Authority) -> tuple[AnyOperation, ...]:
    """The rows."""

    async def show(parameters: Nothing, body: None) -> CAValue:
        return authority.state()

    async def announce(parameters: Nothing, body: None) -> CAValue:
        return await authority.announce()

    async def rotate(parameters: Nothing, body: None) -> CAValue:
        return await authority.rotate()

    return (
        Operation(
            name="getCA",
            method="GET",
            path="/ca",
            summary="The certificate authority, its successor and its predecessors.",
            handler=show,
            parameters=Nothing,
            answer=CAValue,
        ),
        Operation(
            name="announceCA",
            method="POST",
            path="/ca/announce",
            summary="Make the next certificate authority, and give it to clients beside this one.",
            handler=announce,
            parameters=Nothing,
            answer=CAValue,
            errors=_ERRORS,
            changes=True,
        ),
        Operation(
            name="rotateCA",
            method="POST",
            path="/ca/rotate",
            summary="Sign with the next certificate authority from now on. There is no way back.",
            handler=rotate,
            parameters=Nothing,
            answer=CAValue,
            errors=_ERRORS,
            changes=True,
        ),
    )

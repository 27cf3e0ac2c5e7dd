"""What can go wrong between two ends of TLS, and before."""

from __future__ import annotations

from OpenSSL import SSL


class CAError(Exception):
    """The files of a certificate authority cannot be used.

    The message names the file, what was found, and what to do.
    """


class RotationRefused(Exception):
    """It is not the moment to announce a CA, or to put it in the place of the one in use."""


class HandshakeRefused(SSL.Error):
    """This side breaks off a handshake.

    An SSL error, so that whoever handles failed handshakes handles this one. Its
    arguments have the form of OpenSSL's error queue, which Twisted looks into.
    """

    def __init__(self, reason: str) -> None:
        super().__init__([("regproxy", "handshake", reason)])
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class VerificationFailed(HandshakeRefused):
    """The server's certificate does not prove that it is the host wanted."""

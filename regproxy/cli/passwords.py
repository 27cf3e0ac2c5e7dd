"""Lines for ``[management] htpasswd_file``."""

from __future__ import annotations

from typing import Final

import bcrypt

from regproxy.cli.errors import CommandFailed

# bcrypt takes no more into account: what follows would be no secret.
_MAX_BYTES: Final = 72


def htpasswd_line(user: str, password: str) -> str:
    """A line that lets *user* in with *password*.

    Raises:
        CommandFailed: no such line lets anybody in.
    """
    # The same rule holds for the login itself (RFC 7617 section 2).
    if not user or ":" in user or not user.isprintable():
        raise CommandFailed("the name of a user has at least one character and no colon")
    if user.startswith("#") or user != user.strip():
        raise CommandFailed("the name of a user begins with no # and has no spaces around it")
    secret = password.encode()
    if not secret or b"\0" in secret:
        raise CommandFailed("the password is empty, or has a NUL in it")
    if len(secret) > _MAX_BYTES:
        raise CommandFailed(
            f"the password has {len(secret)} bytes, and bcrypt takes {_MAX_BYTES}: shorten it"
        )
    return f"{user}:{bcrypt.hashpw(secret, bcrypt.gensalt()).decode('ascii')}"

"""Starts regproxy in place of docker-registry-proxy, whose volumes belong to root.

As root, they are given to the user; then this process is the user, and then regproxy.
"""

import errno
import os
import sys
from pathlib import Path

USER = GROUP = 65532
CA, CACHE, DATA = Path("/ca"), Path("/docker_mirror_cache"), Path("/var/lib/regproxy")
COMMAND = ["twistd", "--nodaemon", "--pidfile=", "regproxy", "--drop-in"]


def give(path: Path) -> None:
    """Have *path* belong to the user, unless nobody can: what is read-only may be readable."""
    try:
        os.chown(path, USER, GROUP, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise


def main() -> None:
    """Become regproxy."""
    if os.geteuid() == 0:
        try:
            for path in CA, *CA.iterdir(), CACHE, DATA:
                give(path)
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(USER)
        except OSError as error:
            sys.exit(
                f"cannot give the volumes to the user {USER}: {error}; that takes the capabilities"
                " CHOWN, SETUID and SETGID, or chown them and use --user"
            )
    if any((CACHE / name).is_dir() for name in "0123456789abcdef"):
        print(
            f"{CACHE}/[0-9a-f] are of docker-registry-proxy and are not used: remove them",
            file=sys.stderr,
            flush=True,
        )
    os.execvp(COMMAND[0], [*COMMAND, *sys.argv[1:]])


main()

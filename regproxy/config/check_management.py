"""Checks of ``[management]``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from regproxy.config.check_wayout import ReadFile, content
from regproxy.config.model import ManagementSection
from regproxy.config.name_server import check_network
from regproxy.config.structure import Problem, Problems
from regproxy.oci.errors import shown
from regproxy.policy.visitors import parse_htpasswd, parse_token

_FILES: Final[dict[str, Callable[[str], object]]] = {
    "token_file": parse_token,
    "htpasswd_file": parse_htpasswd,
}


def finish_management(read: ReadFile, section: ManagementSection) -> ManagementSection:
    """*section*, which can be used: its files are read at each login, and are right now.

    Raises:
        Problems: it cannot.
    """
    found: list[Problem] = []
    for index, text in enumerate(section.read_from):
        try:
            check_network(text)
        except ValueError as error:
            found.append((("read_from", index), f"{error}, found {shown(text)}"))
    for key, parse in _FILES.items():
        path: Path | None = getattr(section, key)
        if path is not None:
            found.extend(_file_problems(read, key, path, parse))
    if found:
        raise Problems(found)
    return section


def _file_problems(
    read: ReadFile, key: str, path: Path, parse: Callable[[str], object]
) -> list[Problem]:
    found: list[Problem] = []
    data = content(read, (key,), path, found)
    if not found:
        try:
            parse(data.decode())
        except UnicodeDecodeError:
            found.append(((key,), f"{shown(str(path), 200)} is not UTF-8"))
        except ValueError as error:
            found.append(((key,), f"{shown(str(path), 200)}: {error}"))
    return found

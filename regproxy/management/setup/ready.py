"""The user-data in ``deploy/cloud-init``, for a proxy that is not there yet.

``python -m regproxy.management.setup.ready DIRECTORY`` writes it anew, from the templates that a
running proxy fills in by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from regproxy.management.setup.choices import CloudChoices
from regproxy.management.setup.facts import PROXY_PORT, Facts
from regproxy.management.setup.kinds import IN_CLOUDS, Cloud, Mode
from regproxy.management.setup.scripts import Authority, user_data
from regproxy.oci.names import Host

#: In the place of the proxy, its name server and its CA.
PROXY: Final = Host("regproxy.example.net", PROXY_PORT)
NAME_SERVER: Final = "192.0.2.53"
NOBODY: Final = Authority(bytes(32).hex(":"))

_FACTS: Final = Facts(
    proxy_port=PROXY_PORT,
    mirror=None,
    name_server=NAME_SERVER,
    registries=(Host("docker.io"),),
    plain_http=False,
)
_BLANKS: Final = {
    Mode.PROXY: "proxy=, fingerprint=",
    Mode.DNS: "proxy=, fingerprint=, name_server=",
}


def files() -> Iterator[tuple[str, str]]:
    """Names and contents: each cloud by the proxy, any of them by the name server."""
    for runtime in IN_CLOUDS:
        for cloud in Cloud:
            yield f"{cloud}-{runtime}.yaml", _file(cloud, runtime, Mode.PROXY)
        yield f"dns-{runtime}.yaml", _file(Cloud.PLAIN, runtime, Mode.DNS)


def _file(cloud: Cloud, runtime: str, mode: Mode) -> str:
    query = {"cloud": cloud.value, "runtime": runtime, "mode": mode.value}
    choices = CloudChoices.read(query, PROXY, _FACTS)
    notes = (
        "",
        "Before that, fill in below where the proxy is and the fingerprint of its CA, which its",
        f"log tells: {_BLANKS[mode]}. A proxy that runs fills in all of it:",
        "",
        f"  curl -o user-data.yaml 'http://PROXY:3128/setup/cloud-init?{urlencode(query)}'",
    )
    return user_data(choices, _FACTS, NOBODY, notes)


def main(directory: Path) -> None:
    """Write them to *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files():
        (directory / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Pictures of the pages for the documentation: ``python -m tests.support.pictures DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.support.browser import reader
from tests.support.demo_process import Demo

SHOP: Final = "ghcr.io/acme/shop:2.14.0"
#: Paths by the names of their pictures, with the height that is to be seen.
PICTURES: Final = {
    "dashboard": ("/", 940),
    "images": ("/images", 760),
    "image": (f"/image?reference={SHOP}", 900),
}


def main() -> None:
    """The command."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    demo = Demo()
    try:
        for name, (path, height) in PICTURES.items():
            for scheme in "light", "dark":
                # Without the script nothing moves: the same is seen each time.
                with reader(
                    demo.url, (1200, height), scheme, java_script_enabled=False
                ) as somebody:
                    somebody.open(path)
                    somebody.page.screenshot(path=directory / f"{name}-{scheme}.png")
    finally:
        demo.stop()


if __name__ == "__main__":
    main()

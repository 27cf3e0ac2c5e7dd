"""Sphinx's settings."""

from importlib.metadata import version as version_of

project = "regproxy"
author = "The regproxy authors"
project_copyright = "The regproxy authors"
version = release = version_of("regproxy")

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"regproxy {release}"

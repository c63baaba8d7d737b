"""Settings of the site: `make docs`. The pages are Markdown as GitHub reads it."""

import re
from typing import Any

project = "Podium"
html_title = "Podium"
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_show_sphinx = html_copy_source = html_show_copyright = False
suppress_warnings = ["misc.highlighting_failure"]


def add_navigation(app: Any, page: str, source: list[str]) -> None:
    """Make the lists of links in index.md the navigation of the site; a page that is in none is a warning."""
    if page == "index":
        for heading, links in re.findall(r"^## (.+)\n+((?:- .*\n(?:  .*\n)*)+)", source[0], re.MULTILINE):
            pages = "\n".join(re.findall(r"\]\(([\w-]+)\.md\)", links))
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{pages}\n```\n"


def setup(app: Any) -> None:
    """Sphinx calls it."""
    app.connect("source-read", add_navigation)

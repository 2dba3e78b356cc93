"""How Sphinx makes the site: ``make site``. The whole repository is its source, so links are the same there and on the site."""

import re
from pathlib import Path
from typing import Any

from interp._version import __version__

_ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[([^\]\n]*)\]\(([^)#:\s]+)\)")

project = "interp"
author = "the interp authors"
version = release = __version__
language = "en"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md", "experiments/README.md", "experiments/*/README.md"]
exclude_patterns = [
    "docs/README.md",
    "**/out/**",
    "tests/**",
    "interp/**",
    "cli/**",
    "site/**",
    "build/**",
    ".[a-z]*/**",
]
myst_heading_anchors = 3  # headings can be linked to, as in a repository browser
nitpicky = True
smartquotes = False  # text as it is written

html_theme = "furo"
html_title = "interp"
html_extra_path = ["site"]  # index.html leads on to docs/
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"


def _as_on_the_site(app: Any, docname: str, source: list[str]) -> None:
    """Links to folders lead to their README.md, as in a repository browser; without one they are only words.

    docs/README.md is the first page here.
    """
    here = (_ROOT / docname).parent

    def link(match: re.Match[str]) -> str:
        target = here / match[2]
        if target.is_dir():
            return f"[{match[1]}]({match[2]}/README.md)" if (target / "README.md").is_file() else match[1]
        if target.resolve() == _ROOT / "docs" / "README.md":
            return f"[{match[1]}]({match[2].replace('README', 'index')})"
        return match[0]

    source[0] = _LINK.sub(link, source[0])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _as_on_the_site)

"""How Sphinx makes the site: ``make site``. The whole repository is its source, so links are the same there and on the site."""

from interp._version import __version__

project = "interp"
author = "the interp authors"
version = release = __version__
language = "en"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md", "experiments/**/README.md"]
exclude_patterns = ["docs/README.md", "**/out/**", "tests/**", "interp/**", "cli/**", "site/**", "build/**", ".*/**"]
myst_heading_anchors = 3  # headings can be linked to, as in a repository browser
nitpicky = True

html_theme = "furo"
html_title = "interp"
html_extra_path = ["site"]  # index.html leads on to docs/
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

"""The documentation's site: built without a warning, every page within reach, and nothing on it asks for anything elsewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


class References(HTMLParser):
    """What a page loads, where it leads, and the ids that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loads += [values[name] or "" for name in ("src", "srcset", "data") if name in values]
        if "href" in values:
            (self.leads if tag == "a" else self.loads).append(values["href"] or "")
        self.ids |= {value for name in ("id", "name") if (value := values.get(name))}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", folder / "trees"]
    done = subprocess.run([*command, "-b", "html", ".", folder / "html"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, References]:
    return {page: References(page) for page in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, References]) -> None:
    for page, found in pages.items():
        for address in found.loads:
            assert not re.match(r"(?:https?:)?//", address), f"{page.name} loads {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_link_leads_somewhere(pages: dict[Path, References]) -> None:
    for page, found in pages.items():
        for address in found.leads:
            if re.match(r"[a-z]+:", address):
                continue
            file, _, anchor = unquote(address).partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.is_file(), f"{page.name} leads to {address}"
            if anchor and target in pages:
                assert anchor in pages[target].ids, f"{page.name} leads to {address}"


def test_every_page_is_in_the_contents(site: Path, pages: dict[Path, References]) -> None:
    start = site / "docs" / "index.html"
    listed = {(start.parent / address.partition("#")[0]).resolve() for address in pages[start].leads}
    for source in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "how-to").glob("*.md")]:
        page = site / source.relative_to(ROOT).with_suffix(".html")
        assert source.name in ("README.md", "index.md") or page.resolve() in listed, source.name


def test_the_top_page_leads_on(site: Path) -> None:
    found = re.search(r'url=([^"]+)"', (site / "index.html").read_text(encoding="utf-8"))
    assert found
    assert (site / found[1]).is_file()

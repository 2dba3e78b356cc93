"""Takes the pictures of the README: ``python docs/pictures.py`` makes a report on the default model and photographs it.

Needs Chromium; the DevTools client is the one of the tests.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import interp  # noqa: E402

# cli/ is installed under this name, where no type checker looks for it
from interp_cli.report_analyses import Asked, analyse, chosen  # noqa: E402  # pyright: ignore[reportMissingImports]
from report.chromium import EXECUTABLE, Page  # noqa: E402

PROMPT = "The Eiffel Tower is located in the city of"
FOLDER = ROOT / "docs" / "images"
WIDTH = 1100
LIMIT = 300_000
# A picture's name, whether it is dark, and the elements it starts and ends with.
PICTURES = (
    ("report.png", False, "body", "#tokens"),
    ("report-dark.png", True, "#lens", "#lens figure"),
)


def main() -> int:
    """Writes the pictures; fails where there is no browser or a picture is too large."""
    if EXECUTABLE is None:
        sys.exit("the pictures need Chromium: install chromium, or google-chrome, and try again")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Page(WIDTH, 900) as page:
        path = Path(folder) / "report.html"
        asked = Asked(prompt=PROMPT)  # as interp report without options
        results = analyse(interp.load("smollm2-135m"), asked, chosen(None, asked), lambda *_: None)
        interp.report(results).save(path)
        for name, dark, first, last in PICTURES:
            take(page, path, FOLDER / name, dark=dark, first=first, last=last)
    sizes = {name: (FOLDER / name).stat().st_size for name, *_ in PICTURES}
    sys.stdout.writelines(f"docs/images/{name} ({size / 1000:.0f} kB)\n" for name, size in sizes.items())
    return int(max(sizes.values()) > LIMIT)


def take(page: Page, path: Path, picture: Path, *, dark: bool, first: str, last: str) -> None:
    """A picture of the page from the top of one element to the end of another, as high as that needs."""
    page.dark(dark)
    page.resize(WIDTH, 900)
    page.open_report(path)
    # With a mouse the buttons of a plot show while it is pointed at; without one, always.
    page.run(
        "document.head.append(Object.assign(document.createElement('style'), { textContent: '.modebar { display: none }' }))"
    )
    page.draw_all()
    edges = "[a.getBoundingClientRect().top, b.getBoundingClientRect().bottom, bar.offsetHeight]"
    names = f"a = document.querySelector('{first}'), b = document.querySelector('{last}'), bar = document.querySelector('.selection')"
    top, bottom, bar = page.run(f"(() => {{ const {names}; return {edges}; }})()")
    margin = 0 if first == "body" else 24
    page.resize(WIDTH, round(bottom - top + margin + 24 + bar))
    page.run(
        f"scrollTo({{ top: scrollY + document.querySelector('{first}').getBoundingClientRect().top - {margin}, behavior: 'instant' }})"
    )
    page.run("new Promise(done => setTimeout(done, 500))")
    page.screenshot(picture)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m experiments.picture EXPERIMENT``: photographs the figure in its out/ for the documentation (needs Chromium)."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
IMAGES = FOLDER.parent / "docs" / "images"
FIGURES = {
    "causal_tracing": ("averages.html", "causal-tracing.png", (1200, 565)),
    "induction_emergence": ("emergence.html", "induction-emergence.png", (1000, 565)),
    "ioi": ("heads.html", "ioi-heads.png", (1200, 475)),
    "lens_depth": ("depth.html", "lens-depth.png", (1200, 425)),
    "nondeterminism": ("drift.html", "nondeterminism.png", (1200, 475)),
    "rome": ("methods.html", "rome-methods.png", (1200, 435)),
    "second_moment_corpus": ("corpus.html", "second-moment-corpus.png", (1200, 385)),
}
"""The page, the picture and its size in pixels."""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def main(arguments: list[str] | None = None) -> int:
    """Writes the picture; fails where there is no browser or no figure."""
    parser = argparse.ArgumentParser(prog="python -m experiments.picture", description=__doc__)
    parser.add_argument("experiment", choices=sorted(FIGURES))
    name = parser.parse_args(arguments).experiment
    page_name, picture_name, size = FIGURES[name]
    page, picture = FOLDER / name / "out" / page_name, IMAGES / picture_name
    browser = next((found for found in map(shutil.which, _BROWSERS) if found), None)
    if browser is None:
        sys.exit("the picture needs Chromium: install chromium, or google-chrome, and try again")
    if not page.is_file():
        sys.exit(f"{page.relative_to(FOLDER.parent)} does not exist; run python -m experiments.{name}.run first")
    with tempfile.TemporaryDirectory() as folder:
        window = ",".join(map(str, size))
        options = (
            f"--user-data-dir={folder}",
            f"--screenshot={picture}",
            f"--window-size={window}",
            "--hide-scrollbars",
        )
        command = [browser, *_FLAGS, *options, "--virtual-time-budget=20000", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    print(f"{picture.relative_to(FOLDER.parent)} ({picture.stat().st_size / 1000:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m experiments.induction_emergence.picture``: photographs out/emergence.html for the documentation (needs Chromium)."""

import shutil
import subprocess
import sys
import tempfile

from experiments.induction_emergence.config import FOLDER, ROOT

PAGE = FOLDER / "out" / "emergence.html"
PICTURE = ROOT / "docs" / "images" / "induction-emergence.png"
SIZE = (1000, 565)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def main() -> int:
    """Writes the picture; fails where there is no browser or no figure."""
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("the picture needs Chromium: install chromium, or google-chrome, and try again")
    if not PAGE.is_file():
        sys.exit(f"{PAGE.relative_to(ROOT)} does not exist; run python -m experiments.induction_emergence.run first")
    with tempfile.TemporaryDirectory() as folder:
        size = ",".join(map(str, SIZE))
        options = (f"--user-data-dir={folder}", f"--screenshot={PICTURE}", f"--window-size={size}", "--hide-scrollbars")
        command = [browser, *_FLAGS, *options, "--virtual-time-budget=20000", PAGE.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    print(f"{PICTURE.relative_to(ROOT)} ({PICTURE.stat().st_size / 1000:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

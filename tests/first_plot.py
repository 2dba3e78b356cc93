"""``python tests/first_plot.py PAGE [LOADS]``: seconds from opening a report to its first drawn plot, in a new browser each time."""

import statistics
import sys
import time
from pathlib import Path

from report.chromium import DRAWN, EXECUTABLE, Page


def seconds(path: Path) -> float:
    """From asking for the page to the first picture that plotly has drawn; the browser itself has started before."""
    with Page(1280, 900) as page:
        start = time.monotonic()
        page.open(path)
        page.until(f"{DRAWN} > 0")
        return time.monotonic() - start


def main(arguments: list[str]) -> int:
    """Prints the median of the loads and each of them."""
    if EXECUTABLE is None:
        sys.exit("this needs Chromium: install chromium, or google-chrome, and try again")
    path, loads = Path(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 5
    found = [seconds(path) for _ in range(loads)]
    print(f"{statistics.median(found):.2f} s to the first plot, median of {', '.join(f'{one:.2f}' for one in found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

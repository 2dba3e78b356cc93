"""One headless browser for each module, and a module's report opened in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from report.chromium import EXECUTABLE, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    if EXECUTABLE is None:
        pytest.skip("there is no chromium on this machine")
    with Page() as page:
        yield page


@pytest.fixture
def page(browser: Page, path: Path) -> Page:
    """The report that the module's fixture ``path`` wrote, in a light window of 1280 pixels."""
    browser.resize(1280, 900)
    browser.dark(False)
    browser.open_report(path)
    return browser

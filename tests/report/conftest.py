"""One headless browser for each module, and a module's report opened in it, anew for each test or once for all of them."""

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


_AT_START = "window.atStart = JSON.stringify(selection.now)"
_RESET = """(() => {
  document.activeElement.blur();
  document.querySelectorAll('dialog[open]').forEach((one) => one.close());
  document.querySelectorAll('details[open]').forEach((one) => { one.open = false; });
  for (const holder of document.querySelectorAll('.switch')) {
    const menu = holder.querySelector('select');
    if (menu && menu.selectedIndex) { menu.selectedIndex = 0; menu.dispatchEvent(new Event('change')); }
    const [first] = holder.querySelectorAll('button');
    if (first && first.ariaPressed !== 'true') first.click();
  }
  const { layer, head, tokens } = JSON.parse(window.atStart);
  selection.choose(null, { layer, head });
  for (const [key, pos] of Object.entries(tokens)) selection.choose(key, { pos });
  scrollTo({ top: 0, behavior: 'instant' });
})()"""


@pytest.fixture(scope="module")
def opened(browser: Page, path: Path) -> Page:
    """The module's report with all of its pictures drawn, loaded once."""
    _open_drawn(browser, path)
    return browser


def _open_drawn(browser: Page, path: Path) -> None:
    browser.resize(1280, 900)
    browser.dark(False)
    browser.open_report(path)
    browser.draw_all()
    browser.run(_AT_START)


@pytest.fixture
def kept(opened: Page, path: Path) -> Page:
    """That page with the selection, switches and window that it began with: for tests that do not need it loaded anew."""
    if opened.run("window.atStart === undefined"):  # a test in between loaded it for itself
        _open_drawn(opened, path)
    opened.problems.clear()
    opened.resize(1280, 900)
    opened.media()
    opened.run(_RESET)
    return opened

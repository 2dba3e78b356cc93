"""The walkthrough's first half in a browser: every version of every picture draws, and its table says what it shows."""

from pathlib import Path

import pytest

from interp.report import report
from interp.runner.model import Model
from report.chromium import Page
from report.test_walkthrough import IDS, walkthrough
from tiny_models import build


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("walkthrough") / "report.html"
    report(walkthrough(Model(build("mixtral")), IDS)).save(path)
    return path


def choose_all(page: Page, section: str) -> None:
    """Each version of each picture of a section in turn."""
    buttons = f"#{section} .switch button"
    for index in range(page.run(f"document.querySelectorAll('{buttons}').length")):
        page.run(f"document.querySelectorAll('{buttons}')[{index}].click()")
        page.run("new Promise(done => setTimeout(done, 50))")


@pytest.mark.long
def test_every_version_draws_and_nothing_is_asked_for(page: Page) -> None:
    page.draw_all()
    for section in ("embedding-geometry", "positions", "attention-summary", "experts", "tensors"):
        assert page.run(f"document.querySelectorAll('#{section} .js-plotly-plot').length") >= 1, section
        choose_all(page, section)
    assert page.problems == []
    assert page.outside() == []


@pytest.mark.long
def test_tables_name_what_the_pictures_show(page: Page) -> None:
    page.draw_all()
    page.run("document.querySelectorAll('figure details').forEach(one => one.open = true)")
    tables = "[...document.querySelectorAll('{} figure details table')].map(t => [...t.rows].map(r => r.cells[0].textContent))"
    page.until("document.querySelectorAll('#tensors figure details table').length === 1")
    neighbours, pairs = page.run(tables.format("#embedding-geometry"))
    assert neighbours == ["neighbour", "0", "1", "2", "3", "4"]
    assert (len(pairs), pairs[1], pairs[-1]) == (81, "-0.9875", "0.9875")
    (distances,) = page.run(tables.format("#positions"))
    assert distances[1:4] == ["1", "2", "3"]
    assert page.run(tables.format("#tensors"))[0][1:3] == ["embedding", "attention"]


@pytest.mark.long
def test_the_keys_read_follow_the_selection(page: Page) -> None:
    cell = "document.querySelector('#attention-summary .linked table').rows[{}].cells[{}].textContent"
    page.run("document.querySelectorAll('.strip button')[3].click()")
    assert page.run(cell.format(1, 0)) == "the first token"
    third = page.run(cell.format(3, 1))
    page.run("document.querySelectorAll('.strip button')[1].click()")
    assert page.run(cell.format(3, 1)).strip() == "–" != third.strip()  # the second token has none in between

"""Hostile text as prompt, tokens, names and answers: nothing runs, nothing becomes markup, and each is shown literally."""

import csv
import io
import json
import re
from collections.abc import Sequence

import pytest

from interp.report import report
from interp.tokens import visible
from report import samples
from report.chromium import Page
from report.samples import HOSTILE
from report.test_page import Outline, data_of

EVERYTHING = " ".join(HOSTILE)
LAYERS = 2


def results_of(pieces: Sequence[str], words: Sequence[str], name: str) -> list:
    """Every place of a page that text from outside reaches."""
    pieces, words = tuple(pieces), tuple(words)
    where = samples.provenance(
        model=name, command=name, architecture=name, device=name, created=name, versions={name: name}
    )
    shared = {"layers": LAYERS, "provenance": where}
    return [
        samples.lens(pieces, words, **shared),
        samples.attribution(pieces, target_piece=words[0], against_id=1001, against_piece=words[2], **shared),
        samples.generation(pieces, words, provenance=where),
        samples.story(pieces, words, **shared),
        samples.attention(pieces, **shared),
        samples.causal_trace(pieces, subject=(0, 1), answer=words[0], **shared),
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "page.html"
    report(results_of(HOSTILE, HOSTILE, EVERYTHING), title=EVERYTHING).save(path)
    return path


def test_there_are_enough_of_them():
    assert len(set(HOSTILE)) == len(HOSTILE) >= 40


@pytest.mark.long
def test_text_does_not_become_markup(path):
    plain = [f" a plain word, number {index:03d}" for index in range(len(HOSTILE))]
    outline = Outline(path.read_text(encoding="utf-8"))
    expected = Outline(report(results_of(plain, plain, "a name"), title="a title").html())
    assert [tag for tag, _ in outline.tags] == [tag for tag, _ in expected.tags]
    names = [{name for _, values in one.tags for name in values} for one in (outline, expected)]
    assert names[0] == names[1]
    for script in ("code", "program", "plotly"):
        assert outline.scripts[script] == expected.scripts[script]
    assert data_of(outline).prompts["p0"]["labels"] == [visible(text) for text in HOSTILE]
    for text in HOSTILE:
        assert visible(text) in outline.text
    assert re.findall("[\u200b-\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff\x00]", outline.text) == []
    assert not re.findall("[\ud800-\udfff]", outline.text)


def open_tables(page: Page) -> None:
    page.run("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    page.until("[...document.querySelectorAll('details .scroll')].every(node => node.querySelector('td'))")


def open_everything(page: Page) -> None:
    """Uses all that a reader can: each token, each version of a picture, each table, the search, and hovering."""
    open_tables(page)
    page.run(f"for (let pos = 0; pos < {len(HOSTILE)}; pos++) selection.choose('p0', {{ pos }})")
    page.run("document.querySelectorAll('.switch button').forEach(node => node.click())")
    page.run(
        "for (const menu of document.querySelectorAll('.switch select'))"
        " for (const option of menu.options) { menu.value = option.value; menu.dispatchEvent(new Event('change')); }"
    )
    for name in ("#lens", "#story", "#causal-trace", "#attention", "#logits"):
        page.run(f"document.querySelector('{name} .plot').scrollIntoView({{ block: 'center', behavior: 'instant' }})")
        area = page.run(
            f"(b => [b.left, b.top, b.width, b.height])(document.querySelector('{name} .nsewdrag').getBoundingClientRect())"
        )
        for part in (0.1, 0.35):
            at = {"x": area[0] + part * area[2], "y": area[1] + 0.8 * area[3]}
            page.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
    page.press("/")


@pytest.mark.long
def test_nothing_runs_and_all_is_shown_literally(browser, path):
    browser.resize(1280, 900)
    browser.open_report(path)
    browser.draw_all()
    open_everything(browser)
    found = browser.run("[...document.querySelectorAll('#found bdi')].map(node => node.textContent)")
    assert found == [visible(text) for text in HOSTILE]
    browser.run("document.getElementById('find').close()")
    made = "main script, main iframe, main img, main base, main math, main style:not(noscript style), .plot a, .hoverlayer a"
    assert browser.run(f"document.querySelectorAll('{made}').length") == 0
    assert browser.run("document.title") == " ".join(visible(EVERYTHING).split())
    shown = browser.run("document.querySelector('main').textContent")
    options = browser.run("[...document.getElementById('select-token').options].map(one => one.textContent)")
    for pos, text in enumerate(HOSTILE):
        assert visible(text) in shown
        assert options[pos] == f"{pos} {visible(text)}"
    ticks = browser.run("[...document.querySelectorAll('#logits .ytick text')].map(node => node.textContent)")
    for tick, text in zip(ticks, HOSTILE, strict=False):
        assert tick == (visible(text) if len(visible(text)) <= 14 else visible(text)[:13] + "…")
    for text in (*HOSTILE, "token=" + EVERYTHING):
        browser.run(f"location.hash = {json.dumps(text)}")
    assert browser.run("window.harm") is None
    assert browser.problems == []
    assert browser.outside() == []


@pytest.mark.long
def test_files_hold_the_same_text(browser, path):
    browser.open_report(path)
    open_tables(browser)
    tables = browser.run(
        "[...document.querySelectorAll('details .scroll, .linked .scroll')].map(node => node.data())"
        ".map(table => [tableFiles.csv(table), tableFiles.json(table)])"
    )
    assert len(tables) > 10
    for as_csv, as_json in tables:
        rows, records = list(csv.reader(io.StringIO(as_csv, newline=""), strict=True)), json.loads(as_json)
        assert len(rows) == len(records) + 1
        assert [len(row) for row in rows] == [len(rows[0])] * len(rows)
        for row, record in zip(rows[1:], records, strict=True):
            assert len(record) == len(row)
    tokens = [one["token"] for one in json.loads(tables[0][1])]
    assert tokens == [visible(text) for text in HOSTILE]

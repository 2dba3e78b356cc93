"""What a page shows beside the selection, in a real browser: contrast, what is drawn unseen, the address of a view, keys, tables."""

import json
from dataclasses import replace

import pytest

import interp
from interp.report import report
from interp.runner.model import Model
from report import decoding_samples, samples
from report.chromium import Page
from report.test_ablation_section import ablated
from tiny_models import build

CONTRASTS = """(() => {
  const pen = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].map((value, index) => (index < 3 ? value : value / 255));
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((value, index) => value * a + under[index] * (1 - a));
  const ground = (node) => {
    const under = node.parentElement ? ground(node.parentElement) : rgba(getComputedStyle(document.body).backgroundColor);
    return over(rgba(getComputedStyle(node).backgroundColor), under);
  };
  const light = (color) => {
    const [r, g, b] = color.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const low = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest('svg, script, style, noscript, .aside, select, .modebar') || !node.getClientRects().length) continue;
    const under = ground(node);
    let color = rgba(getComputedStyle(node).color);
    for (let one = node; one; one = one.parentElement) color[3] *= Number(getComputedStyle(one).opacity);
    const [high, less] = [light(over(color, under)), light(under)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (less + 0.05);
    if (ratio < 4.5) low.push([node.tagName, node.className, node.textContent.slice(0, 20), Number(ratio.toFixed(2))]);
  }
  return low;
})()"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    results = [samples.attention(layers=6), samples.lens(layers=6), ablated(prompts=1), decoding_samples.token_losses()]
    path = tmp_path_factory.mktemp("views") / "page.html"
    report(results).save(path)
    return path


@pytest.mark.long
def test_all_is_drawn_without_being_seen(page: Page) -> None:
    page.until("[...document.querySelectorAll('.plot')].every(one => one.dataset.drawn)", 30)
    assert page.run("scrollY") == 0
    assert page.run("[...document.querySelectorAll('canvas')].every(one => one.width > 0)")
    assert page.problems == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.long
def test_text_has_the_contrast_that_it_needs(kept: Page, dark: bool) -> None:
    kept.media(dark=dark)
    kept.run("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    for pos in (0, len(samples.PIECES) - 1):
        kept.run(f"selection.choose('p0', {{ pos: {pos}, layer: 1, head: 2 }})")
        kept.until("document.querySelector('.heads .where').textContent.startsWith('L1H2')")
        kept.run("new Promise(done => setTimeout(done, 300))")
        assert kept.run(CONTRASTS) == []
    weights = kept.run("[...document.querySelectorAll('.heads .pick')].map(one => one.style.background)")
    assert any("100%" in one or "var(--heat) 9" in one for one in weights), weights


@pytest.mark.long
def test_the_address_names_what_is_shown(kept: Page) -> None:
    kept.run("document.querySelectorAll('#lens .switch button')[2].click()")
    menu = "document.querySelector('.heads .switch select')"
    kept.run(f"{menu}.value = '1'; {menu}.dispatchEvent(new Event('change'))")
    kept.run("document.querySelectorAll('.heads .switch button')[1].click()")
    kept.until("location.hash.includes('weighting')")
    cited = kept.run("location.hash")
    shown = kept.run("document.querySelector('#lens .plot').data[0].colorbar.title.text")
    kept.run("document.querySelectorAll('#lens .switch button')[0].click()")
    kept.run(f"{menu}.value = '-1'; {menu}.dispatchEvent(new Event('change'))")
    kept.run("document.querySelectorAll('.heads .switch button')[0].click()")
    kept.until(
        "!location.hash.includes('weighting') && !location.hash.includes('shows') && !location.hash.includes('order')"
    )
    kept.run(f"location.hash = {json.dumps(cited)}")
    pressed = "[...document.querySelectorAll('{} .switch button')].findIndex(one => one.ariaPressed === 'true')"
    kept.until(f"{pressed.format('#lens')} === 2 && {pressed.format('.heads')} === 1 && {menu}.value === '1'")
    assert kept.run("document.querySelector('#lens .plot').data[0].colorbar.title.text") == shown
    kept.run(f"location.hash = {json.dumps(cited.replace('=2&', '=99&'))}")
    kept.until("!document.getElementById('missing').hidden")
    assert "there are 0 to" in kept.run("document.getElementById('missing').textContent")


@pytest.mark.parametrize(
    ("how", "moves"),
    [
        ({"modifierAltGraph": True, "ctrlKey": True, "altKey": True}, True),
        ({"altKey": True}, True),
        ({"ctrlKey": True}, False),
        ({"metaKey": True}, False),
    ],
)
def test_a_bracket_that_needs_another_key_is_a_bracket(kept: Page, how: dict, moves: bool) -> None:
    before = kept.run("selection.now.layer")
    event = {"key": "[", "bubbles": True, **how}
    kept.run(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {json.dumps(event)}))")
    assert kept.run("selection.now.layer") == before - moves
    arrow = {"key": "ArrowLeft", "altKey": True, "bubbles": True}
    token = kept.run("selection.now.tokens.p0")
    kept.run(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {json.dumps(arrow)}))")
    assert kept.run("selection.now.tokens.p0") == token


def test_bars_without_intervals_have_no_bounds(kept: Page) -> None:
    kept.run("document.querySelectorAll('#ablation details').forEach(node => { node.open = true; })")
    heads = kept.run("[...document.querySelectorAll('#ablation details th[scope=col]')].map(one => one.textContent)")
    assert "attention" in heads
    assert not [one for one in heads if one.endswith(("lower", "upper"))]


def test_whiskers_are_seen_on_either_ground(kept: Page) -> None:
    figure = "{ data: [{ type: 'bar', error_y: { array: [1] } }], layout: { xaxis: {}, yaxis: {} } }"
    of_both = []
    for dark in (False, True):
        kept.dark(dark)
        whiskers, ink = kept.run(f"[figures.themed({figure}, 800).data[0].error_y, writing.color('--ink')]")
        assert whiskers == {"array": [1], "color": ink}
        of_both.append(ink)
    assert len(set(of_both)) == 2


def test_boxes_that_do_not_scroll_are_no_stops_and_tables_have_captions(kept: Page) -> None:
    kept.run("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    kept.run("new Promise(done => setTimeout(done, 300))")
    boxes = kept.run(
        "[...document.querySelectorAll('.scroll')].filter(one => one.getClientRects().length).map(one => ["
        "one.tabIndex === 0, one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1])"
    )
    assert {stop for stop, _ in boxes} == {True, False}
    assert all(stop == scrolls for stop, scrolls in boxes)
    bare = kept.run(
        "[...document.querySelectorAll('table')].filter(one => !(one.caption && one.caption.textContent.trim())"
        " && !one.hasAttribute('aria-labelledby')).map(one => one.outerHTML.slice(0, 80))"
    )
    assert bare == []


def test_what_is_chosen_is_more_than_a_colour(kept: Page) -> None:
    kept.run("selection.choose('p0', { pos: 2 })")
    rows = "[...document.querySelectorAll('#tokens tbody tr')]"
    assert kept.run(f"{rows}.map(row => row.getAttribute('aria-current'))").index("true") == 2
    shadows = kept.run(f"{rows}.map(row => getComputedStyle(row.cells[0]).boxShadow)")
    assert "inset" in shadows[2]
    assert shadows[1] == "none"


def test_cells_that_a_spreadsheet_would_run_are_text(kept: Page) -> None:
    rows = [["=1+1", "+cmd|x", "@SUM(A1)", "\tx", "-2+3"], [-1.5, "-0.25", "+3", "a=b", "−1"]]
    table = {"columns": ["a", "b", "c", "d", "=e"], "rows": rows}
    lines = kept.run(f"tableFiles.csv({json.dumps(table)})").split("\r\n")
    assert lines == ["a,b,c,d,'=e", "'=1+1,'+cmd|x,'@SUM(A1),'\tx,'-2+3", "-1.5,-0.25,+3,a=b,−1", ""]


@pytest.mark.long
def test_help_tells_no_keys_of_what_the_page_has_not(browser: Page, path, tmp_path) -> None:
    hidden = "[...document.querySelectorAll('[data-needs]')].map(one => [one.dataset.needs, one.hidden])"
    bare = tmp_path / "bare.html"
    report([samples.lens(layers=3)]).save(bare)
    browser.open_report(bare)
    assert {name for name, off in browser.run(hidden) if off} == {"heads", "mosaic"}
    model = tmp_path / "model.html"
    report([interp.architecture(Model(build("llama")))]).save(model)
    browser.open_report(model)
    assert {name for name, off in browser.run(hidden) if off} == {"heads", "mosaic", "tokens", "layers"}
    browser.open_report(path)
    assert not any(off for _, off in browser.run(hidden))


@pytest.mark.long
def test_positions_of_one_text_are_one_prompt(browser: Page, tmp_path) -> None:
    whole = samples.lens(layers=2)
    part = samples.lens((" city", " of"), layers=2, positions=(7, 8))
    held = {name: getattr(whole.tokens, name)[7:9] for name in ("ids", "pieces", "spans")}
    of_whole = replace(part, tokens=replace(whole.tokens, **held))
    made = report([whole, of_whole]).html()
    assert "prompt 2" not in made
    assert made.count(">Tokens and ids<") == 1
    assert "Tokens and ids · " not in made
    assert "Logit lens · positions 7 to 8" in made
    page = tmp_path / "parts.html"
    report([whole, of_whole]).save(page)
    browser.open_report(page)
    browser.run("selection.choose('p0', { pos: 7 })")
    assert browser.run("selection.now.tokens.p1") == 0
    browser.run("selection.choose('p1', { pos: 1 })")
    assert browser.run("selection.now.tokens.p0") == 8


def test_the_byline_says_where_results_differ() -> None:
    other = samples.provenance(dtype="bfloat16", created="2026-01-05T00:00:00Z")
    head = report([samples.lens(layers=2), samples.story(layers=2, provenance=other)]).html().split("<section", 1)[0]
    assert "float32 on cpu" in head
    assert "bfloat16 on cpu" in head
    assert "2026-01-02T03:04:05Z</bdi> to <bdi" in head
    alike = report([samples.lens(layers=2), samples.story(layers=2)]).html().split("<section", 1)[0]
    assert " to <bdi" not in alike

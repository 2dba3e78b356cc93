"""One page in a real browser, loaded once: linked views, keys, the address, themes, files, tables, small screens and paper."""

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.report import report
from interp.tokens import visible
from report import samples
from report.chromium import Page

LAYERS, HEADS, LAST = 12, 4, len(samples.PIECES) - 1
HOME = (
    f"document.activeElement.blur(); selection.choose('p0', {{ pos: {LAST}, layer: {LAYERS - 1}, head: 0 }});"
    "document.querySelectorAll('details').forEach(node => { node.open = false; }); scrollTo(0, 0)"
)
NOW = "[selection.now.tokens.p0, selection.now.layer, selection.now.head]"
SHAPES = "(name => (document.querySelector(name).layout.shapes || []).map(s => [s.x0, s.y0, s.type]))"


@pytest.fixture(scope="module")
def results():
    attention = samples.attention(layers=LAYERS, heads=HEADS)
    return [*samples.all_results(layers=LAYERS), attention, samples.causal_trace(layers=LAYERS)]


@pytest.fixture(scope="module")
def loaded(browser: Page, results, tmp_path_factory) -> Iterator[Page]:
    path = tmp_path_factory.mktemp("linked") / "page.html"
    report(results).save(path)
    browser.resize(1280, 900)
    browser.dark(False)
    browser.open_report(path)
    browser.draw_all()
    yield browser
    assert browser.problems == []
    assert set(browser.outside()) <= {path.as_uri()}


@pytest.fixture
def page(loaded: Page) -> Page:
    loaded.run(HOME)
    return loaded


def choose(page: Page, **what: int) -> None:
    page.run(f"selection.choose('p0', {json.dumps(what)})")


def open_tables(page: Page) -> None:
    page.run("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    page.until("[...document.querySelectorAll('details .scroll')].every(node => node.querySelector('td'))")


def assert_everywhere(page: Page, pos: int, layer: int, head: int) -> None:
    """The selection is shown by the bar, the strips, every table and every picture."""
    assert page.run(NOW) == [pos, layer, head]
    assert page.run("document.getElementById('select-token').value") == f"p0:{pos}"
    bar = "[document.getElementById('shown-layer').textContent, document.getElementById('shown-head').textContent]"
    assert page.run(bar) == [str(layer), str(head)]
    pressed = page.run(
        "[...document.querySelectorAll('.strip')].map(s => [...s.children].findIndex(b => b.ariaPressed === 'true'))"
    )
    assert pressed == [pos, pos]
    assert page.run("document.querySelector('#tokens tr.chosen td').textContent") == str(pos)
    words = f"Layer {layer}, {visible(samples.PIECES[pos])} (position {pos})"
    assert set(page.run("[...document.querySelectorAll('.linked .where')].map(node => node.textContent)")) == {words}
    page.until(f"document.querySelector('.heads .where').textContent.startsWith('L{layer}H{head} ')")
    for name in ("#lens .plot", "#story .plot"):
        page.until(f"{SHAPES}('{name}')[0].join() === '{pos - 0.5},{layer - 0.5},rect'")
    page.until(f"{SHAPES}('#causal-trace .plot')[0].join() === '{layer - 0.5},{pos - 0.5},rect'")
    page.until(f"{SHAPES}('#embeddings .plot')[0][0] === {pos - 0.5}")
    page.until(f"{SHAPES}('#attribution .plot')[0][0] === {layer - 0.5}")
    page.until(f"{SHAPES}('#attention .plot')[0][1] === {pos - 0.5}")
    page.until(f"{SHAPES}('#lens .picture:last-of-type .plot')[0][0] === {layer - 0.5}")


@pytest.mark.long
def test_choosing_anywhere_chooses_everywhere(page):
    page.run("document.querySelector('#tokens .pick:nth-child(4)').click()")
    assert_everywhere(page, 3, LAYERS - 1, 0)
    page.run("document.querySelectorAll('#tokens tbody tr')[1].cells[0].click()")
    assert_everywhere(page, 1, LAYERS - 1, 0)
    open_tables(page)
    # The last layer is the first row, so the third is layer 9; the first column names the layers.
    page.run("document.querySelector('#lens details table').tBodies[0].rows[2].cells[6].click()")
    assert_everywhere(page, 5, 9, 0)
    page.run("document.querySelector('#causal-trace details table').tBodies[0].rows[2].cells[5].click()")
    assert_everywhere(page, 2, 4, 0)
    page.run("document.querySelector('#attention details table').tBodies[0].rows[6 * 4 + 3].cells[0].click()")
    assert_everywhere(page, 2, 6, 3)
    site = "document.querySelector('#causal-trace [data-pos] .choose')"
    pos, layer = page.run(f"(row => [Number(row.dataset.pos), Number(row.dataset.layer)])({site}.closest('tr'))")
    page.run(f"{site}.click()")
    assert_everywhere(page, pos, layer, 3)
    marked = page.run(
        "[...document.querySelectorAll('#lens details td.chosen')].map(c => [c.parentNode.rowIndex, c.cellIndex])"
    )
    assert marked == [[LAYERS - layer, pos + 1]]


@pytest.mark.long
def test_keys(page):
    page.press("ArrowLeft", "ArrowLeft", "[", "[", "[", "]", ".", ".", ",")
    assert_everywhere(page, LAST - 2, LAYERS - 3, 1)
    page.press("ArrowRight", "ArrowRight", "ArrowRight", "]", "]", "]")
    assert page.run(NOW) == [LAST, LAYERS - 1, 1]
    page.press("ArrowUp", "ArrowDown", "a")
    assert page.run(NOW) == [LAST, LAYERS - 1, 1]
    page.run("document.querySelector('#lens .plot').focus()")
    page.press("ArrowDown", "ArrowDown", "ArrowUp", "ArrowLeft")
    assert page.run(NOW) == [LAST - 1, LAYERS - 2, 1]
    # A slider and a menu keep their own keys.
    page.run("document.getElementById('select-layer').focus()")
    page.press("ArrowRight")
    assert page.run(NOW) == [LAST - 1, LAYERS - 1, 1]
    page.press("[")
    assert page.run(NOW) == [LAST - 1, LAYERS - 2, 1]


def test_the_focus_follows_in_a_strip_that_is_one_stop(page):
    page.run("document.querySelector('#tokens .pick:last-child').focus()")
    page.press("ArrowLeft")
    assert page.run("[...document.activeElement.parentNode.children].indexOf(document.activeElement)") == LAST - 1
    stops = "[...document.querySelectorAll('#tokens .pick')].filter(b => b.tabIndex === 0).length"
    assert page.run(stops) == 1


def test_tab_reaches_all_and_shows_where_it_is(page):
    page.run("document.querySelector('.skip').focus()")
    seen = []
    for _ in range(90):
        page.press("Tab")
        seen.append(
            page.run(
                "(n => [n.id || n.className || n.tagName, getComputedStyle(n).outlineStyle])(document.activeElement)"
            )
        )
    names = {name for name, _ in seen}
    for name in ("theme", "open-help", "pick", "plot", "SUMMARY", "CANVAS", "BUTTON"):
        assert any(name in one for one in names), name
    assert [name for name, outline in seen if outline == "none" and name not in ("BODY", "HTML")] == []


def test_finding_a_token(page):
    page.press("/")
    assert page.run("document.getElementById('find').open")
    page.press(*"ow")
    assert page.run("document.getElementById('find-count').textContent") == "1 token"
    page.press("Enter")
    assert not page.run("document.getElementById('find').open")
    assert page.run(NOW)[0] == 2
    page.press("/", *" i", "ArrowDown", "ArrowDown")
    assert page.run("[...document.querySelectorAll('#found bdi')].map(n => n.textContent)") == ["␣is", "␣in"]
    page.press("Enter")
    assert page.run(NOW)[0] == 5
    page.press("/", *"xyz", "Enter", "ArrowDown")
    assert page.run("document.getElementById('find-count').textContent") == "0 tokens"
    page.press("Escape")
    page.until("!document.getElementById('find').open")
    page.press("ArrowLeft")
    assert page.run(NOW)[0] == 4


def test_help(page):
    page.press("?")
    assert page.run("document.getElementById('help').open")
    page.press("ArrowLeft", "[")
    assert page.run(NOW) == [LAST, LAYERS - 1, 0]
    page.press("Tab", "Tab")
    assert page.run("document.activeElement === document.body || !!document.activeElement.closest('#help')")
    page.press("Escape")
    page.until("!document.getElementById('help').open")
    page.run("document.getElementById('open-help').click()")
    page.run("document.querySelector('#help .close').click()")
    assert not page.run("document.getElementById('help').open")


def test_what_is_chosen_is_said(page):
    page.press("ArrowLeft", "[")
    page.until("document.getElementById('said').textContent === 'token 7 ␣city, layer 10, head 0'")


@pytest.mark.long
def test_the_address_names_what_is_chosen(page):
    choose(page, pos=4, layer=3, head=2)
    page.until("location.hash === '#token=4&layer=3&head=2'")
    page.run("location.hash = '#lens&token=2&layer=5'")
    assert_everywhere(page, 2, 5, 2)
    page.until("Math.abs(document.getElementById('lens').getBoundingClientRect().top - 24) < 60", 5)
    page.until("location.hash === '#lens&token=2&layer=5&head=2'")
    page.run("document.querySelector('nav a[href=\"#story\"]').click()")
    page.until("location.hash === '#story&token=2&layer=5&head=2'")
    choose(page, pos=0)
    page.until("location.hash.endsWith('&token=0&layer=5&head=2')")
    page.run("history.back()")
    page.until(f"{NOW}.join() === '2,5,2'")


@pytest.mark.parametrize(
    "fragment",
    [
        "%",
        "token=%zz",
        "token=-1&layer=1e3",
        "=&&=&token",
        "token=<script>window.harm=1</script>",
        "lens&layer=" + 40 * "9",
    ],
)
def test_an_address_that_names_nothing_changes_nothing(page, fragment):
    page.run(f"location.hash = {json.dumps(fragment)}")
    page.run("new Promise(done => setTimeout(done, 10))")
    assert page.run(NOW) == [LAST, LAYERS - 1, 0]
    assert page.run("document.getElementById('missing').hidden")


def test_an_address_that_names_what_is_not_here_says_so(page):
    page.run("location.hash = '#token=3&layer=99'")
    page.until(f"{NOW}.join() === '3,{LAYERS - 1},0'")
    assert page.run("document.getElementById('missing').textContent").endswith(": layer 99 (there are 0 to 11).")
    page.run("location.hash = '#token=3&layer=2'")
    page.until("document.getElementById('missing').hidden")


@pytest.mark.long
def test_a_theme_is_chosen_and_kept_with_the_view(page):
    ground, ink = (
        "getComputedStyle(document.body).backgroundColor",
        "document.querySelector('.plot')._fullLayout.font.color",
    )
    light = page.run(ground), page.run(ink)
    pick = "(name => { const m = document.getElementById('theme'); m.value = name; m.dispatchEvent(new Event('change')); })"
    page.run(f"{pick}('dark')")
    page.until(f"{ink} !== '{light[1]}'")
    dark = page.run(ground)
    assert dark != light[0]
    page.run("location.hash = '#token=1&layer=2&head=3'")
    page.until(f"{NOW}.join() === '1,2,3'")
    page.call("Page.reload")
    page.until("typeof Plotly === 'object' && document.readyState === 'complete'")
    assert page.run(NOW) == [1, 2, 3]
    assert (page.run(ground), page.run("document.getElementById('theme').value")) == (dark, "dark")
    page.dark(True)
    page.run(f"{pick}('light')")
    assert page.run(ground) == light[0]
    page.run(f"{pick}('system')")
    assert page.run(ground) == dark
    page.dark(False)
    assert page.run(ground) == light[0]
    page.draw_all()


def test_no_motion_where_the_system_asks_for_none(page):
    behavior = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.run(behavior) == "smooth"
    page.media(still=True)
    assert page.run(behavior) == "auto"
    page.media()


def saved(folder: Path, name: str) -> str:
    end = time.monotonic() + 10
    while not (folder / name).exists():
        assert time.monotonic() < end, list(folder.iterdir())
        time.sleep(0.02)
    return (folder / name).read_bytes().decode()


def take(page: Page, table: str, words: str) -> None:
    """Clicks a button of the line under a table."""
    found = f"[...document.querySelectorAll('{table} .take')][0]"
    clicked = f"[...{found}.children].find(b => b.ariaLabel === '{words}').click()"
    page.call("Runtime.evaluate", expression=clicked, userGesture=True)


def test_tables_are_downloaded(page, results, tmp_path):
    lens = results[0]
    page.downloads_to(tmp_path)
    take(page, "#tokens", "Download as CSV")
    rows = list(csv.reader(io.StringIO(saved(tmp_path, "tokens.csv"), newline="")))
    assert rows[0] == ["position", "token", "id", "bytes", "characters of the prompt"]
    assert rows[2] == ["1", "␣Eiffel", "505", "7", "3 to 10"]
    open_tables(page)
    page.run("document.querySelectorAll('#lens .switch button')[3].click()")
    page.until("document.querySelector('#lens .plot').data[0].colorbar.title.text.startsWith('entropy')")
    take(page, "#lens", "Download as JSON")
    records = json.loads(saved(tmp_path, "lens.json"))
    assert len(records) == LAYERS * len(samples.PIECES)
    layer, pos = 7, 3
    (one,) = [one for one in records if (one["layer"], one["position"]) == (layer, pos)]
    assert one["token"] == "␣is"
    assert one["top token"] == visible(lens.vocabulary[str(int(lens.top_ids[layer, pos, 0]))])
    assert one["entropy (nats)"] == pytest.approx(float(lens.entropy_nats[layer, pos]), abs=0.011)
    page.run("document.querySelectorAll('#lens .switch button')[0].click()")


def test_tables_are_copied(page, results):
    page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.call("Emulation.setFocusEmulationEnabled", enabled=True)
    choose(page, pos=2, layer=4)
    take(page, "#story .linked", "Copy as JSON")
    page.until("[...document.querySelectorAll('#story .linked .take button')].some(b => b.textContent === 'copied')")
    first, second = json.loads(page.run("navigator.clipboard.readText()"))
    assert (first["layer"], first["position"], first["token"], first["part"]) == (4, 2, "␣Tower", "attention")
    assert second["norm"] == pytest.approx(float(results[2].mlp_norm[4, 2]), rel=6e-3)
    assert len(second["pushes up"]) == 5


def test_a_page_that_may_not_use_the_clipboard_copies_all_the_same(page):
    page.run("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    take(page, "#logits", "Copy as CSV")
    page.until("[...document.querySelectorAll('#logits .take button')].some(b => b.textContent === 'copied')")
    page.run("delete navigator.clipboard.writeText")


def test_csv_is_quoted_as_it_must_be(page):
    columns = ["a,b", 'say "x"', "", "", "line\nbreak"]
    rows = [
        ["1,5", 'he said "no"', " edge ", "\r\n", 1.25],
        [None, "", "plain", "'", -3e-7],
        [["x", "y"], "שלום", "</td>", "\t", 0],
    ]
    text = page.run(f"tableFiles.csv({json.dumps({'columns': columns, 'rows': rows})})")
    assert text.count("\r\n") >= 4
    read = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert read[0] == ["a,b", 'say "x"', "name", "name 2", "line\nbreak"]
    assert read[1:] == [
        ["1,5", 'he said "no"', " edge ", "\r\n", "1.25"],
        ["", "", "plain", "'", "-3e-7"],
        ["x y", "שלום", "</td>", "'\t", "0"],
    ]


def test_every_picture_is_a_table_too(page):
    open_tables(page)
    plots = page.run("document.querySelectorAll('.plot').length")
    full = page.run(
        "[...document.querySelectorAll('[data-block] details')].map(d => [d.querySelectorAll('tbody tr').length,"
        " d.querySelectorAll('thead th').length, [...d.querySelectorAll('thead th')].filter(h => !h.textContent).length])"
    )
    assert len(full) == plots + 1  # the mosaic has one for all heads and one for the selected head
    assert [one for one in full if one[0] < 2 or one[1] < 2 or one[2]] == []


def test_the_table_of_a_head_is_its_pattern(page, results):
    choose(page, layer=2, head=1)
    open_tables(page)
    page.until("document.querySelector('.heads .where').textContent.startsWith('L2H1 ')")
    table = "document.querySelectorAll('.heads details')[1].querySelector('table')"
    expected = results[3].pattern(2, 1)
    page.until(f"{table}.tBodies[0].rows[5].cells[3].textContent.startsWith('{float(expected[5, 2]):.2f}'.slice(0, 3))")
    shown = page.run(f"[...{table}.tBodies[0].rows[5].cells].map(c => c.textContent)")
    assert [float(text) for text in shown[1:7]] == pytest.approx(expected[5, :6].tolist(), abs=0.0021)
    assert shown[7:] == [""] * (len(samples.PIECES) - 6)


@pytest.mark.long
def test_a_small_screen(page):
    page.resize(375, 812)
    page.until("document.querySelector('#lens .plot')._fullLayout.width < 380")
    open_tables(page)
    assert page.run("document.documentElement.scrollWidth") <= 375
    assert page.run("document.querySelector('.selection').offsetHeight") < 110
    page.resize(1280, 900)
    page.until("document.querySelector('#lens .plot')._fullLayout.width > 800")


@pytest.mark.long
def test_paper(page):
    page.media(paper=True, dark=True)
    page.run("dispatchEvent(new Event('beforeprint'))")
    hidden = "[...document.querySelectorAll('nav, .selection, .switch, .take, summary, dialog')].every(n => !n.getClientRects().length)"
    assert page.run(hidden)
    page.until("[...document.querySelectorAll('.plot')].every(n => n._fullLayout.width <= 704)")
    assert page.run("getComputedStyle(document.body).color") == "rgb(29, 31, 33)"
    assert (
        page.run("Math.max(...[...document.querySelectorAll('.scroll')].map(n => n.scrollHeight - n.clientHeight))")
        <= 1
    )
    page.run("dispatchEvent(new Event('afterprint'))")
    page.media()
    page.until("document.querySelector('#lens .plot')._fullLayout.width > 800")
    assert page.call("Page.printToPDF")["data"]

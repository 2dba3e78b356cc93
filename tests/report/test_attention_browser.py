"""The mosaic of heads in a real browser: drawn from its bytes, chosen by click and key, sorted, and following the selection."""

import pytest

from interp.report import report
from report import samples
from report.chromium import Page

WHERE = "document.querySelector('.heads .where').textContent"
DETAIL = "document.querySelector('.heads .plot').data[0]"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "heads.html"
    report([samples.attention(), samples.lens(layers=6)]).save(path)
    return path


@pytest.fixture
def page(kept: Page) -> Page:
    return kept


def set_slider(page: Page, name: str, value: int) -> None:
    page.run(
        f"{{ const s = document.getElementById('{name}'); s.value = {value}; s.dispatchEvent(new Event('input')); }}"
    )


def key(page: Page, name: str) -> None:
    page.run(
        f"document.querySelector('.mosaic canvas').dispatchEvent(new KeyboardEvent('keydown', {{ key: '{name}' }}))"
    )


def click_tile(page: Page, x: float, y: float) -> None:
    """A click at a place of the canvas, in its own pixels."""
    page.run("document.querySelector('.mosaic canvas').scrollIntoView({ block: 'start', behavior: 'instant' })")
    area = page.run("(b => [b.left, b.top])(document.querySelector('.mosaic canvas').getBoundingClientRect())")
    page.click(area[0] + x, area[1] + y)


@pytest.mark.long
def test_the_selected_head_is_the_result(page):
    set_slider(page, "select-layer", 1)
    set_slider(page, "select-head", 2)
    page.until(f"{WHERE}.startsWith('L1H2 sees a window of 4 tokens, reads key/value head 1 as do H3')")
    expected = samples.attention().pattern(1, 2)
    page.until(f"Math.abs({DETAIL}.z[5][4] - {float(expected[5, 4])}) < 0.003")
    shown = page.run(f"{DETAIL}.z")
    for query, row in enumerate(shown):
        for pos, value in enumerate(row):
            if pos > query:
                assert value is None
            else:
                assert value == pytest.approx(float(expected[query, pos]), abs=0.0021)
    assert page.problems == []


@pytest.mark.long
def test_no_request_and_no_complaint(page):
    assert page.outside() == []
    assert page.problems == []


def test_a_click_in_the_mosaic_chooses_the_head_everywhere(page):
    tile = page.run("document.querySelector('.mosaic canvas').tile")
    # Layer 5 on top, 18 pixels of labels above it, 30 beside; one pixel before each tile, four before a new group.
    click_tile(page, 30 + 2 * tile + tile / 2 + 6, 18 + 2 * (tile + 1) + tile / 2)
    page.until(f"{WHERE}.startsWith('L3H2 ')")
    assert page.run(
        "[document.getElementById('shown-layer').textContent, document.getElementById('shown-head').textContent]"
    ) == ["3", "2"]
    page.until("document.querySelector('#lens .plot').layout.shapes[0].y0 === 2.5")


def test_arrow_keys_choose_the_head(page):
    key(page, "End")
    page.until(f"{WHERE}.startsWith('L5H3 ')")
    for name, head in (
        ("ArrowDown", "L4H3"),
        ("ArrowLeft", "L4H2"),
        ("ArrowUp", "L5H2"),
        ("ArrowUp", "L5H2"),
        ("Home", "L0H0"),
    ):
        key(page, name)
        page.until(f"{WHERE}.startsWith('{head} ')")
    assert page.run("document.querySelector('.mosaic canvas').tabIndex") == 0


def test_heads_are_sorted_by_what_they_do(page):
    menu = "document.querySelector('.heads .switch select')"
    assert page.run(f"[...{menu}.options].map(o => o.textContent)")[:2] == ["By layer", "By previous token, most first"]
    page.run(f"{{ {menu}.value = 0; {menu}.dispatchEvent(new Event('change')); }}")
    key(page, "Home")
    means = samples.attention().means()["previous"].flatten()
    layer, head = divmod(int(means.argmax()), 4)
    page.until(f"{WHERE}.startsWith('L{layer}H{head} ')")
    key(page, "End")
    layer, head = divmod(int(means.argmin()), 4)
    page.until(f"{WHERE}.startsWith('L{layer}H{head} ')")
    page.run("document.querySelector('.heads details').open = true")
    page.until("!!document.querySelector('.heads details td')")
    names = page.run("[...document.querySelectorAll('.heads details tbody tr')].map(r => r.cells[0].textContent)")
    assert names == [f"L{int(i) // 4}H{int(i) % 4}" for i in means.argsort(descending=True, stable=True)]


def test_the_strip_shows_what_the_selected_token_reads(page):
    set_slider(page, "select-layer", 0)
    set_slider(page, "select-head", 1)
    page.run("document.querySelector('.heads .pick:nth-child(4)').click()")
    page.until("document.getElementById('select-token').value === 'p0:3'")
    expected = samples.attention().pattern(0, 1)[3]
    texts = "[...document.querySelectorAll('.heads .pick small')].map(node => node.textContent)"
    page.until(f"{texts}[4] === '–'")
    shown = page.run(texts)
    assert [float(text) for text in shown[:4]] == pytest.approx(expected[:4].tolist(), abs=0.011)
    assert set(shown[4:]) == {"–"}
    shape = page.run("document.querySelector('.heads .plot').layout.shapes[0]")
    assert (shape["y0"], shape["x1"]) == (2.5, 3.5)


def test_weights_times_what_would_be_written(page):
    page.run(
        "[...document.querySelectorAll('.heads .switch button')].find(b => b.textContent.startsWith('Times')).click()"
    )
    set_slider(page, "select-layer", 2)
    expected = samples.attention().pattern(2, 0, "output")
    page.until(f"Math.abs({DETAIL}.z[6][2] - {float(expected[6, 2])}) < 0.01")
    assert page.run(f"{DETAIL}.zmax") == pytest.approx(float(expected.max()), rel=0.02)


PAINTED = """(() => {
  const canvas = document.querySelector('.mosaic canvas');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) seen.add(data.slice(at, at + 3).join());
  return [...seen];
})()"""


def test_the_tiles_are_painted(page):
    colours = page.run(PAINTED)
    assert "68,1,84" in colours  # no weight
    assert "253,231,37" in colours  # all of it: the first query
    assert len(colours) > 50


@pytest.mark.long
def test_a_head_that_is_not_there_is_named(browser, tmp_path):
    attention = samples.attention(layers=2)
    report([attention, samples.lens(layers=6)]).save(tmp_path / "some.html")
    browser.open_report(tmp_path / "some.html")
    browser.draw_all()
    browser.until(f"{WHERE} === 'L5H0 is not among the heads here: L0 to L1, heads 0, 1, 2, 3.'")
    assert browser.problems == []


def test_a_page_of_heads_alone_opens_on_the_head_that_stands_out(browser, tmp_path):
    report([samples.attention()]).save(tmp_path / "alone.html")
    browser.open_report(tmp_path / "alone.html")
    browser.draw_all()
    browser.until(f"{WHERE}.startsWith('L1H2 ')")
    assert browser.run("document.getElementById('select-layer').value") == "1"
    assert browser.run("document.getElementById('select-head').value") == "2"
    assert browser.problems == []


@pytest.mark.long
def test_no_sideways_scrolling(page):
    for width in (320, 390, 768, 1600):
        page.resize(width, 844)
        page.until(f"document.querySelector('.heads .plot')._fullLayout.width < {width}")
        page.until(f"document.documentElement.scrollWidth <= {width}")


@pytest.mark.long
def test_a_long_prompt_stays_quick(browser, tmp_path):
    pieces = tuple(f" w{index}" for index in range(128))
    report([samples.attention(pieces, layers=30, heads=9)]).save(tmp_path / "long.html")
    browser.open_report(tmp_path / "long.html")
    browser.draw_all()
    took = browser.run(
        "(async () => { const start = performance.now(); const s = document.getElementById('select-head'); s.value = 5;"
        " s.dispatchEvent(new Event('input')); await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));"
        " return performance.now() - start; })()"
    )
    assert took < 3000
    assert browser.problems == []

"""The section of a comparison: its numbers are those of the result, its texts are inert, and its pictures are drawn with their tables."""

import html
import re

import pytest

from interp.analyzers.compare import compare
from interp.report import report
from interp.report.sections.comparison import build
from interp.tokens import visible
from report import samples
from report.samples import HOSTILE, PIECES

BROWSER = [
    compare(samples.lens(layers=6), samples.lens((" Now", *PIECES[2:]), layers=6)),
    compare(samples.attribution(layers=6), samples.attribution(layers=6, target_piece=" Rome")),
    compare(samples.attention(), samples.attention(sharpness=3.0)),
]


def words(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


def test_numbers_are_those_of_the_result() -> None:
    found = compare(samples.lens(layers=6), samples.lens((" Now", *PIECES[2:]), layers=6), names=("old", "new"))
    page = words(report([found]).html())
    cell = found.largest(k=1)[0]
    assert f"{cell.difference:+.3f}".replace("-", "−") in page
    assert "tokens from the end: A has 9, B has 8; the first 1 of A are left out" in page
    assert found.b.text.strip() in page
    for summary in found.summaries:
        assert summary.name in page


def test_a_comparison_alone_has_a_heading_and_both_sides_provenance() -> None:
    other = samples.provenance(model="other", weights_sha256="b" * 64)
    found = compare(samples.lens(layers=6), samples.lens(layers=6, provenance=other))
    page = report([found]).html()
    assert '<h1 class="hero">Logit lens: smollm2-135m and other</h1>' in page
    assert "5a13" * 16 in page
    assert "b" * 64 in page


def test_a_comparison_of_two_prompts_opens_with_both() -> None:
    page = report([compare(samples.lens(layers=3), samples.lens((" Rome", " <is>"), layers=3))]).html()
    first, second = ("The Eiffel Tower is located in the city", "Rome &lt;is&gt;")
    for start, name, text in (('h1 class="hero compared"', "A", first), ('p class="hero"', "B", second)):
        hero = f'<{start}><span class="prompt"><bdi class="text">{text}'
        assert re.search(f'class="overline"><bdi class="text">{name}</bdi></p>\n{re.escape(hero)}', page)


def test_findings_say_what_differs_with_its_interval() -> None:
    found = compare(samples.causal_trace(layers=6), samples.causal_trace(layers=6, total=0.3))
    whole, cell = build(found, "p0").findings
    assert "Answer, clean" in whole.text.text
    assert cell.value == pytest.approx(found.largest(k=1)[0].difference)
    assert cell.interval[0] < cell.value < cell.interval[1]
    same = compare(samples.lens(layers=6), samples.lens(layers=6))
    assert len(build(same, "p0").findings) == 1


def test_what_cannot_be_put_side_by_side_is_said() -> None:
    other = samples.provenance(model="other", weights_sha256="b" * 64)
    found = compare(samples.lens(layers=6), samples.lens(layers=4, provenance=other))
    page = words(report([found]).html())
    assert "Not put side by side: layers: A has 6, B has others (4)" in page


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_and_shown(text: str) -> None:
    changes = {"layers": 2, "provenance": samples.provenance(model=text, command=text)}
    hostile = samples.lens(("The", f" {text}", text), (text, *samples.WORDS[1:]), **changes)
    plain = samples.lens(("The", " a", "b"), layers=2)
    page = report([compare(hostile, hostile, names=(text, text))]).html()
    usual = report([compare(plain, plain, names=("x", "y"))]).html()
    tags = re.compile(r"<[a-z/!][^\s>]*")
    assert tags.findall(page.split('<script type="application', 1)[0]) == tags.findall(
        usual.split('<script type="application', 1)[0]
    )
    assert html.escape(visible(text)) in page


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "page.html"
    report(BROWSER).save(path)
    return path


@pytest.mark.long
def test_pictures_are_drawn_with_all_three_panels_in_their_table(browser, page, path) -> None:
    page.draw_all()
    assert page.problems == []
    assert page.outside() == []
    page.run("document.querySelectorAll('figure.picture details').forEach(node => { node.open = true })")
    page.until("document.querySelectorAll('figure.picture details table').length === 3")
    cells = page.run(
        "[...document.querySelector('figure.picture details table tbody tr').cells].map(c => c.textContent)"
    )
    quantity = BROWSER[0].quantity()
    assert len(cells) == 1 + 3 * len(quantity.columns)
    assert cells[0] == quantity.rows[-1]
    shown = [float(cell.replace("−", "-").replace(",", "")) for cell in (cells[1], cells[-1])]
    assert shown[0] == pytest.approx(float(quantity.a[-1, 0]), rel=0.02, abs=1e-3)
    assert shown[1] == pytest.approx(float(quantity.difference[-1, -1]), rel=0.02, abs=1e-3)


SHAPES = (
    "(number => (document.querySelectorAll('#comparison .plot')[number].layout.shapes || []).map(s => [s.x0, s.y0]))"
)


@pytest.mark.long
def test_a_token_and_layer_chosen_in_one_panel_are_marked_in_all(browser, page, path) -> None:
    """A has one token more than B at its start, so that A's token 3 stands beside B's token 2."""
    page.draw_all()
    quantity = BROWSER[0].quantity()
    width, before = len(quantity.columns) + 1, page.run("selection.now.tokens.p0")
    assert before == len(PIECES) - 1
    click = f"{{ points: [{{ x: {width + 2}, y: 2 }}] }}"
    page.run(f"document.querySelector('#comparison .plot').emit('plotly_click', {click})")
    assert page.run("[selection.now.tokens.p0, selection.now.tokens.p1, selection.now.layer]") == [3, 2, 2]
    expected = [[panel * width + 2 - 0.5, 2 - 0.5] for panel in range(3) for _ in range(2)]
    page.until(f"JSON.stringify({SHAPES}(0)) === '{expected}'.replaceAll(' ', '')")
    page.until("location.hash.includes('token=3&token2=2&layer=2')")
    page.press("ArrowLeft", "]")
    assert page.run("[selection.now.tokens.p0, selection.now.tokens.p1, selection.now.layer]") == [2, 1, 3]
    page.until(f"{SHAPES}(0)[0][0] === 0.5")


@pytest.mark.long
def test_a_token_with_none_beside_it_is_marked_nowhere_and_cited(browser, page, path) -> None:
    page.draw_all()
    page.run("selection.choose('p0', { pos: 0, layer: 4 })")
    assert page.run("[selection.now.tokens.p0, selection.now.tokens.p1]") == [0, len(PIECES) - 2]
    page.until("location.hash.includes('token=0&token2=')")
    page.run("location.hash = '#token=0&token2=3&layer=1'")
    page.until("selection.now.tokens.p1 === 3")
    assert page.run("[selection.now.tokens.p0, selection.now.layer]") == [0, 1]
    page.until(f"{SHAPES}(0).every(([x, y]) => x === 0 && y === 0.5)")


@pytest.mark.long
def test_a_head_chosen_in_one_panel_is_marked_in_all(browser, page, path) -> None:
    page.draw_all()
    heads = BROWSER[2].quantities[1]
    page.run(
        "{ const one = document.querySelector('#comparison-3 select'); one.value = 1; one.dispatchEvent(new Event('change')); }"
    )
    page.run("selection.choose(null, { layer: 1, head: 1 })")
    places = [panel * (len(heads.columns) + 1) + 1 for panel in range(3)]
    plot = "document.querySelector('#comparison-3 .plot').layout.shapes"
    page.until(
        f"({plot} || []).filter(s => s.line.width === 2).map(s => s.x0 + 0.5).join() === '{','.join(map(str, places))}'"
    )


def test_rows_of_the_table_choose_what_differs_most(browser, page, path) -> None:
    cell = BROWSER[0].largest(k=1)[0]
    quantity = BROWSER[0].quantity()
    page.run("document.querySelector('#comparison table .choose').click()")
    place = BROWSER[0].pairs[quantity.columns.index(cell.column)]
    assert page.run("[selection.now.tokens.p0, selection.now.tokens.p1]") == list(place)
    assert page.run("selection.now.layer") == quantity.row_layers[quantity.rows.index(cell.row)]

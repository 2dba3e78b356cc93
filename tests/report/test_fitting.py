"""A page that would be too large: patterns in squares of tokens, and words that say so."""

import gzip
import re

import numpy as np
import pytest

from interp.errors import UsageError
from interp.report import report
from report import samples
from report.test_attention_page import mosaic_of, read_patterns
from report.test_page import Outline, packed

PIECES = tuple(f" w{index}" for index in range(75))


@pytest.fixture(scope="module")
def result():
    return samples.attention(PIECES, layers=4, heads=4)


@pytest.fixture(scope="module")
def whole(result):
    return report([result])


@pytest.fixture(scope="module")
def room(whole):
    return len(whole.html().encode()) - 10_000


@pytest.fixture(scope="module")
def made(result, room):
    return report([result], limit=room)


def test_it_fits_and_says_what_it_leaves_out(whole, made, room):
    assert whole.notes == ()
    assert "squares of" not in whole.html()
    assert len(made.html().encode()) <= room
    (note,) = made.notes
    assert note.startswith("So that this page stays under 0.5")
    assert " MB, attention patterns are shown in squares of " in note
    outline = Outline(made.html())
    assert note in outline.text
    step = mosaic_of(outline)["step"]
    assert f"squares of {step} by {step} tokens" in note
    assert f"the greatest weight in a square of {step} by {step} tokens" in outline.text


def test_each_cell_is_the_greatest_weight_of_its_square(result, made):
    outline = Outline(made.html())
    block = mosaic_of(outline)
    step, rows = block["step"], -(-len(PIECES) // block["step"])
    found = read_patterns(gzip.decompress(packed(outline, "blob0")), 4, 4, rows)
    for layer in range(4):
        for head in range(4):
            expected = np.zeros((rows, rows))
            for query, weights in enumerate(result.pattern(layer, head).tolist()):
                for key, weight in enumerate(weights[: query + 1]):
                    cell = query // step, key // step
                    expected[cell] = max(expected[cell], weight)
            np.testing.assert_allclose(found[layer, head], expected, atol=1 / 255)
    assert "norms" not in block
    assert block["detail"]["layout"]["yaxis"]["ticktext"][0] == f"␣w0…␣w{step - 1}"


def test_the_same_result_gives_the_same_page(result, made, room):
    assert report([result], limit=room) == made


def test_a_page_that_cannot_be_smaller_says_so(result):
    made = report([result], limit=300)
    (note,) = made.notes
    assert re.search(r"It is larger all the same: 0\.5\d* MB\.$", note)
    assert note in Outline(made.html()).text
    (note,) = report([samples.lens(layers=2)], limit=1000).notes
    assert note.startswith("This page has 0.5")
    assert "more than 0.001 MB: a browser may be slow to open it" in note


def test_a_limit_is_positive():
    with pytest.raises(UsageError, match="got 0; the usual one is 25000000"):
        report([samples.lens(layers=2)], limit=0)


@pytest.mark.long
def test_the_squares_are_shown_and_chosen(browser, made, tmp_path):
    made.save(tmp_path / "squares.html")
    browser.resize(1280, 900)
    browser.open_report(tmp_path / "squares.html")
    browser.draw_all()
    step = mosaic_of(Outline(made.html()))["step"]
    browser.run("selection.choose('p0', { pos: 41 })")
    row = 41 // step
    browser.until(f"document.querySelector('.heads .plot').layout.shapes[0].y0 === {row - 0.5}")
    weights = browser.run("[...document.querySelectorAll('.heads .pick small')].map(node => node.textContent)")
    z = browser.run("document.querySelector('.heads .plot').data[0].z")
    assert len(z) == -(-len(PIECES) // step)
    for pos, text in enumerate(weights):
        expected = z[row][pos // step]
        assert text == ("–" if expected is None else f"{expected:.2f}")
    browser.run("document.querySelectorAll('.heads details')[1].open = true")
    browser.until("!!document.querySelectorAll('.heads details')[1].querySelector('td')")
    assert browser.run("document.querySelectorAll('.heads details')[1].querySelector('tbody th').textContent") == (
        f"0 to {step - 1} ␣w0 … ␣w{step - 1}"
    )
    assert browser.problems == []

"""Figures of induction heads draw what they are given, with literal text, whatever the template."""

import numpy as np
import plotly.io as pio
import pytest

from interp.figures.induction import Bar, ablation_bars, induction_map, shift_lines

VALUES = np.array([[0.1, 0.9], [np.nan, 0.3]])
BARS = {
    "<b>without</b>": [
        Bar(entry=0, value=1.5, lower=1.0, upper=2.0),
        Bar(entry=1, value=-0.1, lower=np.nan, upper=np.nan),
    ]
}
FIGURES = {
    "map": lambda: induction_map(VALUES, (VALUES - 0.05, VALUES + 0.05), [(0, 1)], "stripe"),
    "bars": lambda: ablation_bars(["<i>L0H1</i>", "L1H1"], BARS),
    "lines": lambda: shift_lines([[0.0, 0.8, 0.1]], ["<i>L0H1</i>"], (0, 1, 2)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_same_input_same_figure_with_literal_text_whatever_the_template(name: str, monkeypatch) -> None:
    before = FIGURES[name]().to_json()
    monkeypatch.setattr(pio.templates, "default", "plotly_dark")
    assert FIGURES[name]().to_json() == before
    assert "<i>" not in before


def test_the_map_holds_values_intervals_and_frames() -> None:
    figure = FIGURES["map"]()
    np.testing.assert_array_equal(np.array(figure.data[0].z, dtype=float), VALUES)
    texts = figure.data[0].hovertext
    assert "0.900 (0.850 to 0.950)" in texts[0][1]
    assert "not measured" in texts[1][0]
    assert (list(figure.data[1].x), list(figure.data[1].y)) == ([1], [0])


def test_whiskers_are_the_intervals() -> None:
    (bars,) = FIGURES["bars"]().data
    assert list(bars.y) == [1.5, -0.1]
    assert (list(bars.error_y.array), list(bars.error_y.arrayminus)) == ([0.5, 0.0], [0.5, 0.0])

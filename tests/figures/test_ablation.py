"""Figures of ablation draw what they are given, white where nothing changes, with literal text, whatever the template."""

import numpy as np
import plotly.io as pio
import pytest

from interp.figures.ablation import bar_range, change_bars, change_map, scale_of

VALUES = np.array([[0.1, -0.9, 0.0], [np.nan, 0.3, 0.2]])
NOTHING = np.full(2, np.nan)
SERIES = {
    "attention": (np.array([0.5, -0.2]), np.array([0.4, -0.3]), np.array([0.7, 0.1])),
    "layers": (np.array([1.5, np.nan]), NOTHING, NOTHING),
}
FIGURES = {
    "map": lambda: change_map(VALUES, VALUES - 0.05, VALUES + 0.05, (3, 7), "change of <b>loss</b>"),
    "bars": lambda: change_bars(SERIES, (3, 7), "change of <i>loss</i>"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_same_input_same_figure_with_literal_text_whatever_the_template(name: str, monkeypatch) -> None:
    before = FIGURES[name]().to_json()
    monkeypatch.setattr(pio.templates, "default", "plotly_dark")
    assert FIGURES[name]().to_json() == before
    assert "<b>loss" not in before
    assert "<i>loss" not in before


def test_the_map_is_white_at_no_change_and_says_value_and_interval() -> None:
    figure = FIGURES["map"]()
    (trace,) = figure.data
    np.testing.assert_array_equal(np.array(trace.z, dtype=float), VALUES)
    assert trace.zmin == -trace.zmax
    assert trace.zmax == 0.9
    assert trace.hovertext[0][1] == "<b>L3H1</b><br>-0.9 (-0.95 to -0.85)"
    assert trace.hovertext[1][0] == "<b>L7H0</b><br>not measured"
    assert list(figure.layout.yaxis.ticktext) == ["3", "7"]


def test_one_head_in_a_hundred_does_not_bleach_the_others() -> None:
    values = np.linspace(0.001, 0.1, 200).reshape(20, 10)
    values[0, 0] = 8.0
    assert scale_of(values) == pytest.approx(0.0995, abs=1e-3)
    assert scale_of(np.zeros((2, 2))) == 1.0
    assert scale_of(np.full((2, 2), np.nan)) == 1.0


def test_bars_have_whiskers_where_there_are_intervals() -> None:
    attention, block = FIGURES["bars"]().data
    assert (attention.name, block.name) == ("attention", "whole block")
    np.testing.assert_allclose(attention.error_y.array, [0.2, 0.3])
    np.testing.assert_allclose(attention.error_y.arrayminus, [0.1, 0.1])
    assert attention.error_y.visible
    assert not block.error_y.visible
    assert attention.hovertext[1] == "<b>layer 7</b> attention<br>-0.2 (-0.3 to +0.1)"
    assert block.hovertext[1].endswith("not measured")


def test_a_few_long_bars_are_cut_and_told_beside_their_ends() -> None:
    values = np.linspace(-0.4, 0.6, 40)
    nothing = np.full(40, np.nan)
    assert bar_range([(values, nothing, nothing)]) == (-np.inf, np.inf)
    long = values.copy()
    long[0] = 9.0
    figure = change_bars({"mlps": (long, nothing, nothing)}, range(40), "change of loss")
    low, high = figure.layout.yaxis.range
    assert low < -0.4
    assert 0.6 < high < 3
    (note,) = figure.layout.annotations
    assert (note.text, note.x, note.y) == ("MLP +9", 0.5, high)
    assert change_bars(SERIES, (3, 7), "change").layout.yaxis.range is None
    assert bar_range([(nothing, nothing, nothing)]) == (-np.inf, np.inf)
    low, high = bar_range([(long, long - 0.5, long + 0.5)])
    assert low == pytest.approx(-0.9 - 0.1 * (1.1 + 0.9), abs=0.3)
    assert high > 1.05

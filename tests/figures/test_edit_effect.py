"""Figures of an edit's effect draw what they are given, with literal text, whatever the template."""

import numpy as np
import plotly.io as pio
import pytest

from interp.errors import UsageError
from interp.figures.edit_effect import answer_bars, course_lines, lens_map

BEFORE = np.array([[-9.0, -8.0, -7.0], [-6.0, -5.0, np.nan], [-3.0, -2.0, -1.0]])
AFTER = BEFORE + np.array([[0.0, 0.0, 0.0], [0.0, -2.5, 0.0], [0.0, 1.0, 0.5]])
LABELS = ("<b>The", "Tower", "is")


def maps(what):
    return lens_map(BEFORE, AFTER, what=what, labels=LABELS, subject=1, edited=[1, 2])


FIGURES = {
    "bars": lambda: answer_bars(("<b>Rome", "Paris"), (0.1, 0.7), (0.9, 0.05)),
    "difference": lambda: maps("difference"),
    "before": lambda: maps("before"),
    "lines": lambda: course_lines({"<b>p": np.array([0.1, np.nan, 0.9])}, "nats", limit=2.0),
}


@pytest.mark.parametrize("name", FIGURES)
def test_same_input_same_figure_with_literal_text_whatever_the_template(name: str, monkeypatch) -> None:
    before = FIGURES[name]().to_json()
    monkeypatch.setattr(pio.templates, "default", "plotly_dark")
    assert FIGURES[name]().to_json() == before
    assert "<b>The" not in before
    assert "<b>Rome" not in before
    assert "<b>p" not in before.replace("<b>p&", "")


def test_bars_stand_in_pairs_with_the_first_token_on_top() -> None:
    before, after = FIGURES["bars"]().data
    assert (list(before.x), list(after.x)) == ([0.1, 0.7], [0.9, 0.05])
    assert before.orientation == "h"
    low, high = FIGURES["bars"]().layout.yaxis.range
    assert low > high
    assert after.hovertext[0] == "<b>&lt;b&gt;Rome</b> after: 0.9"


def test_the_difference_has_one_scale_on_both_sides_and_the_others_share_theirs() -> None:
    difference = maps("difference").data[0]
    np.testing.assert_array_equal(np.array(difference.z, dtype=float), AFTER - BEFORE)
    assert (difference.zmin, difference.zmax) == (-2.5, 2.5)
    assert difference.meta == {"signed": True}
    before, after = maps("before").data[0], maps("after").data[0]
    assert (before.zmin, before.zmax) == (after.zmin, after.zmax) == (-9.0, 0.0)
    assert difference.hovertext[1][1] == "<b>Tower*</b> (1), layer 1*<br>before -5.00, after -7.50<br>change -2.50 nats"
    assert "not measured" in difference.hovertext[1][2]


def test_the_edited_layers_are_marked_at_the_subject() -> None:
    figure = maps("after")
    assert (list(figure.data[1].x), list(figure.data[1].y)) == ([1, 1], [1, 2])
    assert list(figure.layout.xaxis.ticktext) == ["&lt;b&gt;The", "Tower*", "is"]
    assert list(figure.layout.yaxis.ticktext) == ["0", "1*", "2*"]


def test_nothing_changed_is_still_a_map() -> None:
    heat = lens_map(BEFORE, BEFORE, what="difference", labels=LABELS, subject=0, edited=[0]).data[0]
    assert (heat.zmin, heat.zmax) == (-1.0, 1.0)


def test_a_clamp_is_a_level_line_of_as_many_steps() -> None:
    line, level = FIGURES["lines"]().data
    assert list(level.y) == [2.0, 2.0, 2.0]
    assert list(line.x) == list(level.x) == [0, 1, 2]
    assert len(course_lines({"p": np.array([0.1])}, "nats").data) == 1


def test_another_map_names_the_valid_ones() -> None:
    with pytest.raises(UsageError, match="unknown map 'diff'; valid: difference, before, after"):
        maps("diff")

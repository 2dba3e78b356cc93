"""Figures of circuits draw what they are given, with literal text, whatever the template."""

import numpy as np
import plotly.io as pio
import pytest

from interp.figures.head_circuits import (
    composition_map,
    distance_lines,
    eigenvalue_plane,
    partner_map,
    singular_value_lines,
)

VALUES = np.array([[0.1, 0.2], [np.nan, np.nan]])
FIGURES = {
    "partners": lambda: partner_map(VALUES, VALUES * 10, "L1H0", "k"),
    "readers": lambda: partner_map(VALUES, VALUES * 10, "<b>L1H0</b>", "v", reads=False),
    "pairs": lambda: composition_map(VALUES, VALUES * 10, ["L1H0", "L1H1"], ["L0H0", "L0H1"], "q"),
    "singular": lambda: singular_value_lines({"<i>": np.array([2.0, 1.0]), "zero": np.zeros(2)}),
    "eigenvalues": lambda: eigenvalue_plane(np.array([1.0, -2.0]), np.array([0.5, 0.0])),
    "distance": lambda: distance_lines(np.array([[4.0, -2.0], [1.0, 1.0]]), (0, 3)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_same_input_same_figure_with_literal_text_whatever_the_template(name: str, monkeypatch) -> None:
    before = FIGURES[name]().to_json()
    monkeypatch.setattr(pio.templates, "default", "plotly_dark")
    assert FIGURES[name]().to_json() == before
    assert "<i>" not in before.replace("\\u003c", "<").replace("\\u003e", ">")


def test_what_is_drawn_is_what_was_given() -> None:
    np.testing.assert_array_equal(np.array(FIGURES["partners"]().data[0].z, dtype=float), VALUES)
    np.testing.assert_array_equal(FIGURES["singular"]().data[0].y, [1.0, 0.5])
    np.testing.assert_array_equal(FIGURES["singular"]().data[1].y, [0.0, 0.0])
    plane = FIGURES["eigenvalues"]().data[0]
    assert (list(plane.x), list(plane.y)) == ([1.0, -2.0], [0.5, 0.0])
    lines = FIGURES["distance"]().data
    assert [list(line.y) for line in lines] == [[1.0, 0.25], [-1.0, 0.5]]
    assert list(lines[0].x) == [0, 3]

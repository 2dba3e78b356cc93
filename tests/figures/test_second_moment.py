"""The spectrum draws what it is given, without what a logarithm has no place for, with literal names, whatever the template."""

import numpy as np
import plotly.io as pio

from interp.figures.second_moment import spectrum

LINES = {"<b>as measured</b>": np.array([4.0, 2.0, 0.0]), "shrunk": np.array([3.0, 2.5, 0.5])}


def test_same_input_same_figure_with_literal_text_whatever_the_template(monkeypatch) -> None:
    before = spectrum(LINES).to_json()
    monkeypatch.setattr(pio.templates, "default", "plotly_dark")
    assert spectrum(LINES).to_json() == before
    assert "<b>" not in before


def test_eigenvalues_of_zero_are_left_out() -> None:
    first, second = spectrum(LINES).data
    assert (list(first.x), list(first.y)) == ([0, 1], [4.0, 2.0])
    assert (list(second.x), list(second.y)) == ([0, 1, 2], [3.0, 2.5, 0.5])
    assert spectrum(LINES).layout.yaxis.type == "log"
    assert spectrum(LINES).layout.showlegend
    assert not spectrum({"one": LINES["shrunk"]}).layout.showlegend

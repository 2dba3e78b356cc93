"""Figures of activation patching draw what they are given, with literal text, whatever the template."""

import numpy as np
import plotly.io as pio
import pytest

from interp.figures.activation_patching import Measured, colour_limit, patching_lines, patching_map

EFFECT = np.array([[0.0, 0.9, -0.2], [np.nan, 0.1, 1.0]])
LOWER, UPPER = EFFECT - 0.05, EFFECT + 0.05
NONE = np.full_like(EFFECT, np.nan)
METRIC = np.array([[-2.0, 2.5, -3.0], [1.0, -1.5, 3.25]])
TOKENS = ["<s>", "␣Eiffel → ␣Colos", "a&b"]
HEADS = ["H0", "H1", "H2"]
NOTES = [["at <i>x</i> (1)", "", ""], ["", "", ""]]


def at_tokens(effect=EFFECT, lower=LOWER, upper=UPPER):
    return patching_map(
        effect,
        lower,
        upper,
        ["L4", "L5"],
        TOKENS,
        row_title="layer",
        column_title="token",
        title="share <u>restored</u>",
        measured=Measured(values=METRIC, name="logit difference (<b>logits</b>)"),
    )


def of_heads():
    return patching_map(
        EFFECT, NONE, NONE, ["L4", "L5"], HEADS, row_title="layer", column_title="head", title="share", notes=NOTES
    )


FIGURES = {
    "tokens": at_tokens,
    "heads": of_heads,
    "lines": lambda: patching_lines({"<i>z</i>": (EFFECT[0], LOWER[0], UPPER[0])}, [4, 5, 6], title="<b>share</b>"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_same_input_same_figure_with_literal_text_whatever_the_template(name: str, monkeypatch) -> None:
    before = FIGURES[name]().to_json()
    monkeypatch.setattr(pio.templates, "default", "plotly_dark")
    assert FIGURES[name]().to_json() == before
    text = before.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")
    for markup in ("<s>", "<i>", "<u>", "<b>share", "<b>logits", "a&b"):
        assert markup not in text


def test_a_map_holds_effects_intervals_metric_and_places() -> None:
    trace = at_tokens().data[0]
    np.testing.assert_array_equal(np.array(trace.z, dtype=float), EFFECT)
    assert trace.hovertext[0][1] == (
        "<b>L4</b> at ␣Eiffel → ␣Colos (1)<br>effect +0.900 (+0.850 to +0.950)<br>"
        "logit difference (&lt;b&gt;logits&lt;/b&gt;) 2.5"
    )
    assert "effect not measured" in trace.hovertext[1][0]
    assert list(at_tokens().layout.yaxis.ticktext) == ["L4", "L5"]
    assert list(at_tokens().layout.xaxis.ticktext) == ["&lt;s&gt;", "␣Eiffel → ␣Colos", "a&amp;b"]


def test_heads_are_named_and_one_pair_has_no_interval() -> None:
    trace = of_heads().data[0]
    assert trace.hovertext[0][1] == "<b>L4H1</b><br>effect +0.900"
    assert trace.hovertext[0][0] == "<b>L4H0</b><br>effect +0.000<br>at &lt;i&gt;x&lt;/i&gt; (1)"
    assert of_heads().layout.xaxis.title.text == "head"


@pytest.mark.parametrize(
    ("greatest", "limit", "ticks"),
    [
        (0.0, 0.05, ["-0.05", "-0.025", "0", "0.025", "0.05"]),
        (0.31, 0.31, ["-0.31", "-0.15", "0", "0.15", "0.31"]),
        (0.8, 1.0, ["-1", "-0.5", "0", "0.5", "1 (all)"]),
        (-1.1, 1.1, ["-1", "-0.5", "0", "0.5", "1 (all)"]),
        (2.5, 2.5, ["-2.5", "-1", "0", "1 (all)", "2.5"]),
    ],
)
def test_colours_are_centred_on_zero_and_one_is_marked_where_it_is_reached(greatest, limit, ticks) -> None:
    effect = np.array([[0.0, greatest, np.nan]])
    assert colour_limit(effect) == pytest.approx(limit)
    trace = patching_map(
        effect, effect, effect, ["L0"], TOKENS, row_title="layer", column_title="token", title="share"
    ).data[0]
    assert (trace.zmin, trace.zmax) == pytest.approx((-limit, limit))
    assert list(trace.colorbar.ticktext) == ticks
    assert trace.meta == {"signed": True}


def test_nothing_measured_still_draws() -> None:
    trace = at_tokens(NONE, NONE, NONE).data[0]
    assert np.isnan(np.array(trace.z, dtype=float)).all()
    assert (trace.zmin, trace.zmax) == (-0.05, 0.05)


def test_lines_have_their_intervals_as_whiskers_where_there_are_some() -> None:
    (line,) = FIGURES["lines"]().data
    np.testing.assert_array_equal(np.array(line.y, dtype=float), EFFECT[0])
    np.testing.assert_allclose(line.error_y.array, [0.05] * 3)
    np.testing.assert_allclose(line.error_y.arrayminus, [0.05] * 3)
    assert list(FIGURES["lines"]().layout.xaxis.ticktext) == ["4", "5", "6"]
    (line,) = patching_lines({"z": (EFFECT[0], NONE[0], NONE[0])}, [4, 5, 6], title="share").data
    assert line.error_y.array is None

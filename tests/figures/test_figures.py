"""Figures: what is drawn is what was given, text is literal, and nothing global is read or set."""

import numpy as np
import plotly.io as pio
import pytest

from interp.errors import UsageError
from interp.figures import (
    MEASURES,
    attribution_bars,
    attribution_by_layer,
    lens_heatmap,
    logits_bar,
    story_heatmap,
    story_lines,
    target_trajectory,
    token_bars,
    trajectory_values,
)
from interp.figures.rows import site_rows
from interp.figures.style import index_axis, short

LAYERS, POS, K = 3, 4, 2
ROWS = ["0", "1", "2"]
TOKENS = ["<s>", "a&b", " the", " the"]
TOP = [[["<b>x</b>", "y"]] * POS] * LAYERS
VALUES = np.arange(float(LAYERS * POS)).reshape(LAYERS, POS) / 12
PROBS = np.full((LAYERS, POS, K), 0.25)
CONTRIBUTIONS = np.array([0.5, -1.5, 2.0])

FIGURES = {
    "lens": lambda: lens_heatmap(VALUES, "probability", rows=ROWS, tokens=TOKENS, top_tokens=TOP, top_probs=PROBS),
    "rank": lambda: lens_heatmap(VALUES * 999, "rank", rows=ROWS, tokens=TOKENS, top_tokens=TOP, top_probs=PROBS),
    "trajectory": lambda: target_trajectory({"<i>": VALUES[:, 0]}, rows=ROWS, unit="probability"),
    "bars": lambda: attribution_bars(CONTRIBUTIONS, TOKENS[:3]),
    "by layer": lambda: attribution_by_layer({"<u>": CONTRIBUTIONS, "MLP": CONTRIBUTIONS}, ROWS),
    "story": lambda: story_heatmap(VALUES, rows=ROWS, tokens=TOKENS, title="cosine", signed=True),
    "norms": lambda: story_heatmap(VALUES, rows=ROWS, tokens=TOKENS, title="norm", log=True),
    "lines": lambda: story_lines({"<i>": VALUES[:, 0]}, rows=ROWS, unit="norm", log=True),
    "tokens": lambda: token_bars(VALUES[0], TOKENS, unit="norm"),
    "logits": lambda: logits_bar(PROBS[0, :, 0], VALUES[0], TOKENS, chosen=1),
}


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_literal(name):
    text = FIGURES[name]().to_json()
    for markup in ("<s>", "<i>", "<u>", "<b>x", "a&b"):
        assert markup not in text.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")


@pytest.mark.parametrize("name", FIGURES)
def test_same_input_same_figure_whatever_the_template(name, monkeypatch):
    before = FIGURES[name]().to_json()
    monkeypatch.setattr(pio.templates, "default", "plotly_dark")
    assert FIGURES[name]().to_json() == before
    assert pio.templates.default == "plotly_dark"


def test_equal_tokens_stay_apart():
    figure = FIGURES["lens"]()
    assert list(figure.layout.xaxis.tickvals) == [0, 1, 2, 3]
    assert list(figure.layout.xaxis.ticktext) == ["&lt;s&gt;", "a&amp;b", " the", " the"]
    assert figure.data[0].x is None


def test_lens_cells_are_the_values_and_the_top_tokens():
    trace = FIGURES["lens"]().data[0]
    np.testing.assert_array_equal(trace.z, VALUES)
    assert trace.text[0][0].startswith("&lt;b")
    assert (trace.zmin, trace.zmax) == (0, 1)
    assert "0.250  y" in trace.hovertext[2][3]


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_draws_missing_values_as_gaps(measure):
    values = VALUES.copy()
    values[0, 0], values[1, 1] = np.nan, -np.inf
    trace = lens_heatmap(values, measure, rows=ROWS, tokens=TOKENS, top_tokens=TOP, top_probs=PROBS).data[0]
    assert np.isnan(trace.z[0][0])
    assert np.isnan(trace.z[1][1])
    assert trace.zmin < trace.zmax
    empty = np.full_like(values, np.nan)
    trace = lens_heatmap(empty, measure, rows=ROWS, tokens=TOKENS, top_tokens=TOP, top_probs=PROBS).data[0]
    assert trace.zmin < trace.zmax


def test_ranks_are_coloured_by_decade():
    trace = FIGURES["rank"]().data[0]
    np.testing.assert_allclose(trace.z, np.log10(1 + VALUES * 999))
    np.testing.assert_allclose(trace.customdata, VALUES * 999)
    assert trace.colorbar.ticktext[0] == "0"


def test_unknown_measure_names_the_valid_ones():
    with pytest.raises(UsageError, match=r"did you mean 'rank'.*entropy"):
        lens_heatmap(VALUES, "rnak", rows=ROWS, tokens=TOKENS, top_tokens=TOP, top_probs=PROBS)


def test_no_text_in_cells_that_are_too_many():
    many = 40
    values, probs = np.zeros((LAYERS, many)), np.zeros((LAYERS, many, K))
    figure = lens_heatmap(
        values, "entropy", rows=ROWS, tokens=["t"] * many, top_tokens=[[["x", "y"]] * many] * LAYERS, top_probs=probs
    )
    assert figure.data[0].texttemplate is None


def test_a_trajectory_of_ranks_starts_at_zero_on_its_axis():
    ranks = np.array([0.0, 9.0, np.nan])
    figure = target_trajectory({"target": ranks}, rows=ROWS, unit="rank", log=True)
    np.testing.assert_array_equal(figure.data[0].y, [1, 10, np.nan])
    np.testing.assert_array_equal(figure.data[0].customdata, ranks)
    assert figure.layout.yaxis.ticktext[0] == "0"
    np.testing.assert_array_equal(trajectory_values(ranks)["y"], ranks)


def test_bars_keep_order_and_sign():
    trace = FIGURES["bars"]().data[0]
    np.testing.assert_array_equal(trace.y, CONTRIBUTIONS)
    up, down, again = trace.marker.color
    assert up == again != down


def test_cosines_are_centred_on_zero_and_norms_on_a_log_scale():
    signed, norms = FIGURES["story"]().data[0], FIGURES["norms"]().data[0]
    assert (signed.zmin, signed.zmax) == (-1, 1)
    np.testing.assert_array_equal(signed.z, VALUES)
    assert np.isnan(norms.z[0][0])  # the logarithm of 0 is no colour
    np.testing.assert_allclose(norms.z[1], np.log10(VALUES[1]))


def test_the_chosen_token_stands_out():
    figure = FIGURES["logits"]()
    colors = figure.data[0].marker.color
    assert colors[1] not in (colors[0], colors[2], colors[3])
    assert list(figure.layout.yaxis.range) == [3.5, -0.5]


def test_many_labels_are_thinned_but_never_moved():
    axis = index_axis([f"t{i}" for i in range(1000)])
    assert len(axis["tickvals"]) <= 48
    assert all(text == f"t{value}" for value, text in zip(axis["tickvals"], axis["ticktext"], strict=True))


def test_cutting_keeps_entities_whole():
    assert short("<<<<<<", 4) == "&lt;&lt;&lt;…"
    assert short("abcd", 4) == "abcd"


def test_rows_of_one_kind_show_the_layer_and_of_several_the_kind():
    assert site_rows(["blocks.0.hook_resid_post", "blocks.11.hook_resid_post"]).labels == ("0", "11")
    rows = site_rows(["hook_embed", "blocks.0.hook_attn_out", "blocks.0.hook_mlp_out", "blocks.1.new.hook_thing"])
    assert rows.labels == ("embed", "0 attn_out", "0 mlp_out", "1 new.hook_thing")
    assert rows.layers == (None, 0, 0, 1)
    assert rows.kinds[:3] == ("embed", "attn_out", "mlp_out")

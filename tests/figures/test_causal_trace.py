"""Figures of causal traces draw what they are given, with literal text, whatever the template."""

import numpy as np
import plotly.io as pio
import pytest

from interp.figures import style
from interp.figures.causal_trace import TraceMap, trace_lines, trace_lines_follow, trace_map, trace_maps

LABELS = ("The", "<b>Tower</b>", "is")
EFFECT = np.array([[0.0, 0.5, 0.1], [0.0, -0.2, np.nan]])
STREAM = TraceMap(kind="resid", effect=EFFECT, lower=EFFECT - 0.05, upper=EFFECT + 0.05, restored=EFFECT + 0.1)
MLPS = TraceMap(kind="mlp", effect=EFFECT / 2, lower=EFFECT * np.nan, upper=EFFECT * np.nan, restored=EFFECT / 2 + 0.1)
SETTING = {"labels": LABELS, "subject": (1,), "window": 4, "n_samples": 7, "clean": 0.8, "corrupted": 0.1}
BOUNDS = (STREAM.restored - 0.05, STREAM.restored + 0.05)
FIGURES = {
    "map": lambda: trace_map(STREAM, **SETTING),
    "maps": lambda: trace_maps([STREAM, MLPS], **SETTING),
    "lines": lambda: trace_lines([STREAM, MLPS], 1, bounds=BOUNDS, clean=0.8, corrupted=(0.1, 0.05, 0.15)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_same_input_same_figure_with_literal_text_whatever_the_template(name: str, monkeypatch) -> None:
    before = FIGURES[name]().to_json()
    monkeypatch.setattr(pio.templates, "default", "plotly_dark")
    assert FIGURES[name]().to_json() == before
    assert "<b>Tower" not in before


def test_rows_are_tokens_from_the_top_and_columns_layers() -> None:
    figure = FIGURES["map"]()
    heat = figure.data[0]
    np.testing.assert_array_equal(np.array(heat.z, dtype=float), EFFECT.T)
    assert tuple(figure.layout.yaxis.ticktext) == ("The", "&lt;b&gt;Tower&lt;/b&gt;*", "is")
    assert tuple(figure.layout.yaxis.range) == (2.5, -0.5)
    assert tuple(figure.layout.xaxis.ticktext) == ("0", "1")
    assert list(figure.data[1].y) == [1 - 0.42, 1 + 0.42]


def test_the_scale_is_alike_on_both_sides_up_to_what_was_lost() -> None:
    heat = FIGURES["map"]().data[0]
    assert (heat.zmin, heat.zmax) == (pytest.approx(-0.7), pytest.approx(0.7))
    more = trace_map(STREAM, **(SETTING | {"clean": 0.2})).data[0]
    assert (more.zmin, more.zmax) == (-0.5, 0.5)
    assert heat.meta["signed"]


def test_hovering_tells_value_interval_and_samples() -> None:
    texts = FIGURES["map"]().data[0].hovertext
    assert texts[1][0] == (
        "<b>&lt;b&gt;Tower&lt;/b&gt;*</b> (1), layer 0<br>probability 0.600<br>brought back +0.500 (+0.450 to +0.550)<br>7 samples"
    )
    assert texts[2][1].endswith("layer 1<br>not measured")
    windows = trace_map(MLPS, **(SETTING | {"n_samples": 1}), measure="logit_difference").data[0].hovertext
    assert windows[1][0].endswith(
        "layer 0, 4 layers around<br>logit difference 0.350<br>brought back +0.250<br>1 sample"
    )


def test_maps_share_one_scale_and_stand_apart() -> None:
    figure = FIGURES["maps"]()
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [heat.zmax for heat in heats] == [-heat.zmin for heat in heats] == pytest.approx([0.7, 0.7])
    assert [heat.showscale for heat in heats] == [True, False]
    first, second = figure.layout.yaxis.domain, figure.layout.yaxis2.domain
    assert first[1] == 1
    assert first[0] > second[1] > second[0] >= 0
    assert figure.layout.xaxis.title.text == "layer at which the stream is restored"
    assert figure.layout.xaxis2.title.text == "centre of the 4 layers whose MLPs are restored"
    severed = trace_map(TraceMap(**(vars(STREAM) | {"kind": "resid-mlp-severed"})), **SETTING)
    assert severed.layout.xaxis.title.text == "layer at which the stream is restored, later MLPs severed"


def test_lines_are_the_column_with_its_interval_between_clean_and_corrupted() -> None:
    figure = FIGURES["lines"]()
    by_name = {trace.name: np.array(trace.y, dtype=float) for trace in figure.data if trace.showlegend is not False}
    np.testing.assert_array_equal(by_name["stream"], STREAM.restored[:, 1])
    np.testing.assert_array_equal(by_name["MLPs"], MLPS.restored[:, 1])
    np.testing.assert_array_equal(by_name["clean"], [0.8, 0.8])
    np.testing.assert_array_equal(by_name["corrupted"], [0.1, 0.1])
    band = {trace.name: np.array(trace.y, dtype=float) for trace in figure.data if trace.showlegend is False}
    np.testing.assert_array_equal(band["restored, lower bound"], BOUNDS[0][:, 1])
    np.testing.assert_array_equal(band["corrupted, upper bound"], [0.15, 0.15])
    low, high = figure.layout.yaxis.range
    assert low < np.nanmin(BOUNDS[0])
    assert high > 0.8


def test_what_follows_a_token_are_the_first_traces() -> None:
    figure = FIGURES["lines"]()
    follow = trace_lines_follow([STREAM, MLPS], BOUNDS)
    for trace, properties in zip(figure.data, follow, strict=False):
        np.testing.assert_array_equal(np.array(trace.y, dtype=float), properties["y"][:, 1])


def test_no_band_without_an_interval() -> None:
    nan = float("nan")
    figure = trace_lines([MLPS], 0, bounds=(MLPS.lower, MLPS.upper), clean=0.8, corrupted=(0.1, nan, nan))
    assert [trace.name for trace in figure.data] == [
        "MLPs",
        "restored, lower bound",
        "restored, upper bound",
        "clean",
        "corrupted",
    ]
    assert np.isfinite(figure.layout.yaxis.range).all()
    assert figure.data[0].line.color == style.GREEN

"""Ablation: the change of a metric without each head as a map, and without each layer's attention, MLP or block as bars."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style

SERIES = {"attention": "attention", "mlps": "MLP", "layers": "whole block"}
"""The kinds of unit that have one of each in a layer, in the order of their bars."""
_SHARE_IN_SCALE = 0.99
"""Share of the heads whose change the colours tell apart: without this a head or two would leave all others white."""


def change_map(
    values: Float[np.ndarray, "layer head"],
    lower: Float[np.ndarray, "layer head"],
    upper: Float[np.ndarray, "layer head"],
    layers: Sequence[int],
    what: str,
) -> go.Figure:
    """The change without each head, layers upwards: white is none. The hover text tells the value and its interval.

    The colours run to the change that one head in a hundred exceeds; that head and the others above it have the darkest.
    """
    n_layers, n_heads = values.shape
    reach = scale_of(values)
    texts = [
        [f"<b>L{layer}H{head}</b><br>{_told(values, lower, upper, (row, head))}" for head in range(n_heads)]
        for row, layer in enumerate(layers)
    ]
    trace = go.Heatmap(
        z=values,
        zmin=-reach,
        zmax=reach,
        colorscale=style.DIVERGING,
        meta={"signed": True},
        colorbar={"title": {"text": style.safe(what), "side": "right"}, "thickness": 10, "outlinewidth": 0},
        xgap=1,
        ygap=1,
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
    )
    return style.figure(
        [trace],
        height=110 + 15 * max(n_layers, 8),
        xaxis=style.index_axis([str(head) for head in range(n_heads)], title="head", automargin=True),
        yaxis=style.index_axis([str(layer) for layer in layers], title="layer", automargin=True),
    )


def scale_of(values: Float[np.ndarray, "layer head"]) -> float:
    """The change at which the colours of a map end."""
    sizes = np.abs(values[np.isfinite(values)])
    return float(np.quantile(sizes, _SHARE_IN_SCALE, method="higher")) or 1.0 if sizes.size else 1.0


def change_bars(
    series: Mapping[str, tuple[Float[np.ndarray, " layer"], Float[np.ndarray, " layer"], Float[np.ndarray, " layer"]]],
    layers: Sequence[int],
    what: str,
) -> go.Figure:
    """For each kind of unit the change (value, lower, upper) without that of each layer; whiskers are the intervals.

    Where a few bars would flatten all others the axis ends before them, and their values stand beside their ends.
    """
    colours = {"attention": style.BLUE, "mlps": style.ORANGE, "layers": style.GREY}
    low, high = bar_range(series.values())
    return style.figure(
        [_bars(unit, *parts, layers, colours[unit]) for unit, parts in series.items()],
        annotations=_beyond({unit: values for unit, (values, _, _) in series.items()}, low, high),
        height=360,
        barmode="group",
        bargap=0.25,
        showlegend=True,
        legend=style.legend_above(),
        xaxis=style.index_axis([str(layer) for layer in layers], title="layer", automargin=True),
        yaxis=style.value_axis(
            what,
            zeroline=True,
            zerolinecolor="rgba(128,128,128,0.6)",
            **({} if np.isinf([low, high]).any() else {"range": [low, high]}),
        ),
    )


def bar_range(series: Iterable[Sequence[Float[np.ndarray, " layer"]]]) -> tuple[float, float]:
    """Where the axis of bars (value, lower, upper) ends on either side; infinite where all of them can be shown whole.

    A bar is cut if it is more than three times as long as nineteen in twenty are; the whiskers of the others reach twice as far.
    """
    values, lower, upper = np.concatenate([np.stack([np.asarray(part) for part in parts]) for parts in series], axis=1)
    sizes = np.abs(values[np.isfinite(values)])
    usual = float(np.quantile(sizes, 0.95)) if sizes.size else 0.0
    if not usual or sizes.max() <= 3 * usual:
        return -np.inf, np.inf
    kept = np.abs(values) <= 3 * usual
    ends = np.concatenate([values[kept], np.stack([lower, upper])[:, kept].clip(-2 * usual, 2 * usual).ravel(), [0.0]])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    if np.nanmin(values) < low:
        low = min(low, -2 * usual)
    if np.nanmax(values) > high:
        high = max(high, 2 * usual)
    room = 0.1 * (high - low)
    return low - room, high + room


def _beyond(series: Mapping[str, Any], low: float, high: float) -> list[dict[str, Any]]:
    """The values of the bars that reach past the axis, one text for each layer and side."""
    found: dict[tuple[int, bool], list[str]] = {}
    for unit, values in series.items():
        for row, value in enumerate(values):
            if value < low or value > high:
                found.setdefault((row, bool(value > high)), []).append(f"{SERIES[unit]} {value:+.3g}")
    return [
        {
            "x": row + 0.5,
            "y": high if above else low,
            "text": "<br>".join(texts),
            "showarrow": False,
            "xanchor": "left",
            "yanchor": "top" if above else "bottom",
            "align": "left",
            "font": {"size": 10},
        }
        for (row, above), texts in found.items()
    ]


def _bars(unit: str, values: Any, lower: Any, upper: Any, layers: Sequence[int], colour: str) -> go.Bar:
    above, below = upper - values, values - lower
    return go.Bar(
        x=list(range(len(layers))),
        y=values,
        name=SERIES[unit],
        marker={"color": colour, "line": {"width": 0}},
        hovertext=[
            f"<b>layer {layer}</b> {SERIES[unit]}<br>{_told(values, lower, upper, (row,))}"
            for row, layer in enumerate(layers)
        ],
        textposition="none",
        hovertemplate="%{hovertext}<extra></extra>",
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.where(np.isfinite(above), above, np.nan),
            "arrayminus": np.where(np.isfinite(below), below, np.nan),
            "thickness": 1,
            "width": 2,
            "visible": bool(np.isfinite(above).any()),
        },
    )


def _told(values: Any, lower: Any, upper: Any, at: tuple[int, ...]) -> str:
    if not np.isfinite(values[at]):
        return "not measured"
    interval = f" ({lower[at]:+.3g} to {upper[at]:+.3g})" if np.isfinite(lower[at]) else ""
    return f"{values[at]:+.3g}{interval}"

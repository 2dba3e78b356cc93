"""Induction heads: a map of every head's score, what ablation changes, and how attention lies around the last occurrence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style

TITLES = {"stripe": "stripe score", "prefix_matching": "prefix matching", "on_first": "attention on the first token"}


def induction_map(
    values: Float[np.ndarray, "layer head"],
    bounds: tuple[Float[np.ndarray, "layer head"], Float[np.ndarray, "layer head"]],
    called: Sequence[tuple[int, int]],
    what: str,
) -> go.Figure:
    """A score of every head from 0 to 1, layers upwards; the heads that are called are framed, their intervals stand in the hover text."""
    layers, heads = values.shape
    lower, upper = bounds
    texts = [
        [f"<b>L{layer}H{head}</b><br>{_interval(values, lower, upper, layer, head)}" for head in range(heads)]
        for layer in range(layers)
    ]
    traces: list[Any] = [
        go.Heatmap(
            z=values,
            zmin=0,
            zmax=1,
            colorscale=style.SEQUENTIAL,
            colorbar={"title": {"text": TITLES.get(what, what), "side": "right"}, "thickness": 10, "outlinewidth": 0},
            xgap=1,
            ygap=1,
            hovertext=texts,
            hovertemplate="%{hovertext}<extra></extra>",
        )
    ]
    if called:
        traces.append(
            go.Scatter(
                x=[head for _, head in called],
                y=[layer for layer, _ in called],
                mode="markers",
                marker={"symbol": "square-open", "size": 13, "color": style.ORANGE, "line": {"width": 2.5}},
                hoverinfo="skip",
            )
        )
    return style.figure(
        traces,
        height=110 + 15 * max(layers, 8),
        xaxis=style.index_axis([str(head) for head in range(heads)], title="head", automargin=True),
        yaxis=style.index_axis([str(layer) for layer in range(layers)], title="layer", automargin=True),
    )


def _interval(values: Any, lower: Any, upper: Any, layer: int, head: int) -> str:
    value = values[layer, head]
    if not np.isfinite(value):
        return "not measured"
    if not np.isfinite(lower[layer, head]):
        return f"{value:.3f}"
    return f"{value:.3f} ({lower[layer, head]:.3f} to {upper[layer, head]:.3f})"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The change of a loss in nats with its interval, at an entry of the axis."""

    entry: int
    value: float
    lower: float
    upper: float


def ablation_bars(labels: Sequence[str], series: Mapping[str, Sequence[Bar]]) -> go.Figure:
    """The change of the loss on repeats without heads: for each label the bars of one or more named series, with their intervals."""
    colours = (style.BLUE, style.GREY, style.ORANGE)
    traces = [
        _bars(name, bars, labels, colours[index % len(colours)]) for index, (name, bars) in enumerate(series.items())
    ]
    return style.figure(
        traces,
        height=360,
        barmode="group",
        bargap=0.2,
        showlegend=True,
        legend=style.legend_above(),
        xaxis=style.index_axis(labels, tickangle=-60, automargin=True),
        yaxis=style.value_axis(
            "change of the loss on repeats (nats)", zeroline=True, zerolinecolor="rgba(128,128,128,0.6)"
        ),
    )


def _bars(name: str, bars: Sequence[Bar], labels: Sequence[str], colour: str) -> go.Bar:
    return go.Bar(
        x=[bar.entry for bar in bars],
        y=[bar.value for bar in bars],
        name=style.safe(name),
        text=[style.safe(labels[bar.entry]) for bar in bars],
        textposition="none",
        marker={"color": colour, "line": {"width": 0}},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [_finite(bar.upper - bar.value) for bar in bars],
            "arrayminus": [_finite(bar.value - bar.lower) for bar in bars],
            "thickness": 1,
            "width": 2,
        },
        hovertemplate="%{text}: %{y:+.3f} nats<extra></extra>",
    )


def _finite(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def shift_lines(rows: Sequence[Sequence[float]], labels: Sequence[str], offsets: Sequence[int]) -> go.Figure:
    """For each head the mean attention at distances from the last occurrence of the token: an induction head peaks at +1."""
    traces = [
        go.Scatter(
            x=list(offsets),
            y=list(row),
            name=style.safe(label),
            mode="lines+markers",
            line={"width": 1.5, "color": style.PALETTE[index % len(style.PALETTE)]},
            hovertemplate="%{y:.3f}",
        )
        for index, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]
    return style.figure(
        traces,
        height=320,
        showlegend=True,
        hovermode="x unified",
        xaxis={
            "title": {
                "text": "distance from the last occurrence (0 the same token, 1 the one after it)",
                "standoff": 8,
            },
            "tickmode": "array",
            "tickvals": list(offsets),
            "ticktext": [f"{offset:+d}" for offset in offsets],
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
        },
        yaxis=style.value_axis("mean attention", range=[0, 1]),
    )

"""The figure: how far each way drifts in each dtype, and every position's gap against its drift."""

from typing import Any

import plotly.graph_objects as go
import torch

from experiments.nondeterminism.drift import Drift
from experiments.nondeterminism.measure import Found
from interp.figures import style

_DOMAINS = ([0, 0.46], [0.56, 1])
_LEAST = 1e-3
"""The least gap that is drawn, in logits; ties lie on it."""


def drift_figure(found: Found) -> go.Figure:
    """Left the median and the greatest drift of each way, by dtype; right a point for each position and way, flips in front."""
    dtypes = list(found.exact)
    names = [*dict.fromkeys(one.way for one in found.ways), "alone, against float64"]
    traces: list[Any] = []
    for number, dtype in enumerate(dtypes):
        colour = style.PALETTE[number % len(style.PALETTE)]
        drifts = [*(one for one in found.ways if one.dtype == dtype), found.exact[dtype]]
        traces += [_bars(dtype, drifts, colour, 0.2 * (number - (len(dtypes) - 1) / 2)), *_points(found, dtype, colour)]
    span = [_LEAST, 10.0]
    traces.append(
        go.Scatter(
            x=[2 * value for value in (1e-6, 10)], y=[1e-6, 10], mode="lines", name="gap = 2 x drift", xaxis="x2", yaxis="y2",
            line={"color": style.GREY, "dash": "dot", "width": 1.5}, hoverinfo="skip", showlegend=False,
        )
    )  # fmt: skip
    layout = {
        "xaxis": style.index_axis(names, domain=_DOMAINS[0]) | {"ticktext": names, "tickangle": -40},
        "yaxis": style.value_axis("drift (logits): median to greatest", type="log", exponentformat="power"),
        "xaxis2": style.value_axis(
            "gap between the two best tokens (logits)", domain=_DOMAINS[1], anchor="y2", type="log",
            range=[float(torch.tensor(edge).log10()) for edge in span], exponentformat="power",
        ),
        "yaxis2": style.value_axis("drift (logits)", anchor="x2", type="log", exponentformat="power"),
    }  # fmt: skip
    return style.figure(
        traces,
        height=470,
        showlegend=True,
        legend=style.legend_above(),
        margin={"l": 60, "r": 16, "t": 50, "b": 130},
        **layout,
    )


def _bars(dtype: str, drifts: list[Drift], colour: str, shift: float) -> go.Scatter:
    """An upright line for each way that drifts, from the median to the greatest drift."""
    x: list[float | None] = []
    y: list[float | None] = []
    for place, one in enumerate(drifts):
        middle, most = float(one.drift.median()), float(one.drift.max())
        x += [place + shift, place + shift, None]
        y += [middle or None, most or None, None]
    return go.Scatter(
        x=x, y=y, name=style.safe(dtype), legendgroup=dtype, mode="lines+markers", line={"color": colour, "width": 3},
        marker={"size": 6}, hovertemplate=f"{style.safe(dtype)}: %{{y:.2g}} logits<extra></extra>",
    )  # fmt: skip


def _points(found: Found, dtype: str, colour: str) -> list[go.Scatter]:
    """Positions of all ways: those that kept their first token pale, flips with a dark rim."""
    gap = torch.cat([one.gap for one in found.moved(dtype)]).clamp(min=_LEAST)
    drift = torch.cat([one.drift for one in found.moved(dtype)])
    flipped = torch.cat([one.flipped for one in found.moved(dtype)])
    where = {"xaxis": "x2", "yaxis": "y2", "mode": "markers", "legendgroup": dtype}
    quiet = (~flipped & (drift > 0)).nonzero()[::4, 0]  # a quarter of them shows where they lie
    return [
        go.Scatter(
            x=gap[quiet].tolist(), y=drift[quiet].tolist(), marker={"color": colour, "size": 3, "opacity": 0.25}, hoverinfo="skip",
            showlegend=False, **where,
        ),
        go.Scatter(
            x=gap[flipped].tolist(), y=drift[flipped].tolist(), name=f"{style.safe(dtype)}, other first token",
            marker={"color": colour, "size": 8, "symbol": "x", "line": {"color": "#222", "width": 1}},
            showlegend=bool(flipped.any()), hovertemplate="gap %{x:.2g}, drift %{y:.2g}<extra></extra>", **where,
        ),
    ]  # fmt: skip

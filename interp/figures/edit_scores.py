"""The scores of an edit, before and after, one line a score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from interp.figures import style

Bounds = tuple[float, float, float]
"""A value with its interval."""


def score_dots(rows: Sequence[tuple[str, Bounds | None, Bounds | None]]) -> go.Figure:
    """Scores in per cent (name, before, after), the first at the top: a hollow dot before, a full one after, whiskers for the intervals.

    A score that was not measured in a state has no dot there.
    """
    names = [name.replace("_", " ") for name, _, _ in rows]
    before, after = [row[1] for row in rows], [row[2] for row in rows]
    traces = []
    if any(before):
        traces.append(_dots(names, before, "before", style.GREY, "circle-open", 0.14))
    if any(after):
        traces.append(_dots(names, after, "after", style.BLUE, "circle", -0.14))
    axis = style.index_axis(names, automargin=True)
    labels = {"ticktext": [style.safe(name) for name in names], "tickvals": list(range(len(names)))}
    return style.figure(
        traces,
        height=110 + 26 * len(rows),
        showlegend=True,
        legend=style.legend_above(),
        xaxis=style.value_axis("per cent", zeroline=True, zerolinecolor="rgba(128,128,128,0.6)"),
        yaxis=axis | labels | {"range": [len(names) - 0.5, -0.5]},
    )


def _dots(
    names: Sequence[str], bounds: Sequence[Bounds | None], state: str, colour: str, symbol: str, shift: float
) -> go.Scatter:
    places = [place for place, found in enumerate(bounds) if found is not None]
    values, lower, upper = np.array([found for found in bounds if found is not None], dtype=float).T
    reach: dict[str, Any] = {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(upper - values),
        "arrayminus": np.nan_to_num(values - lower),
        "thickness": 1,
        "width": 3,
    }
    return go.Scatter(
        x=values,
        y=[place - shift for place in places],
        mode="markers",
        name=state,
        marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 2, "color": colour}},
        error_x=reach,
        hovertext=[
            f"<b>{style.safe(names[place])}</b> {state}<br>{_told(value, low, high)}"
            for place, value, low, high in zip(places, values, lower, upper, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _told(value: float, lower: float, upper: float) -> str:
    return f"{value:.1f} %" + (f" ({lower:.1f} to {upper:.1f})" if np.isfinite([lower, upper]).all() else "")

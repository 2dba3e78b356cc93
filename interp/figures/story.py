"""Figures of the residual story: norms and cosines of what is written to the stream, over layers and positions."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style


def story_heatmap(
    values: Float[np.ndarray, "layer pos"],
    *,
    rows: Sequence[str],
    tokens: Sequence[str],
    title: str,
    signed: bool = False,
    log: bool = False,
) -> go.Figure:
    """A quantity over layers (the last one on top) and tokens.

    ``signed`` values run from -1 to 1 in a diverging scale centred on zero (cosines). ``log`` colours log10 of the value: the norm of
    the first token's stream is often a hundred times that of the others.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log10(values) if log else values
    shown = np.where(np.isfinite(shown), shown, np.nan)
    finite = shown[np.isfinite(shown)]
    low, high = (-1.0, 1.0) if signed else _padded(finite)
    places = [
        [f"<b>{style.safe(row)}</b> at {style.short(token, 24)} ({pos})" for pos, token in enumerate(tokens)]
        for row in rows
    ]
    bar = {"title": {"text": style.safe(title), "side": "right"}, "thickness": 10, "outlinewidth": 0}
    if log:
        marks = _log_marks(low, high)
        bar |= {"tickvals": [float(np.log10(mark)) for mark in marks], "ticktext": [f"{mark:g}" for mark in marks]}
    trace = go.Heatmap(
        z=shown,
        zmin=low,
        zmax=high,
        colorscale=style.DIVERGING if signed else style.SEQUENTIAL,
        colorbar=bar,
        xgap=1,
        ygap=1,
        meta={"signed": True} if signed else {"log": "log10(value)"} if log else None,
        hovertext=places,
        customdata=values if log else None,
        hovertemplate=f"%{{hovertext}}<br>{style.safe(title)}: %{{{'customdata' if log else 'z'}:.4~g}}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=110 + 15 * max(len(rows), 8),
        xaxis=style.index_axis(tokens, tickangle=-40, automargin=True),
        yaxis=style.index_axis(rows, automargin=True),
    )


def story_lines(
    series: Mapping[str, Float[np.ndarray, "layer"]],
    *,
    rows: Sequence[str],
    unit: str,
    log: bool = False,
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    """Lines over the layers at one position, one for each entry of ``series`` (norms, or cosines with ``limits`` -1 and 1)."""
    traces = [
        go.Scatter(
            x=list(range(len(rows))),
            y=np.where(np.isfinite(values), values, np.nan),
            name=style.safe(name),
            mode="lines+markers",
            line={"width": 2, "color": style.PALETTE[index % len(style.PALETTE)]},
            marker={"size": 5},
            hovertemplate="%{y:.4~g}",
        )
        for index, (name, values) in enumerate(series.items())
    ]
    axis = style.value_axis(unit)
    if log:
        axis |= {"type": "log", "dtick": 1}
    elif limits is not None:
        axis |= {"range": list(limits), "zeroline": limits[0] < 0, "zerolinecolor": "rgba(128,128,128,0.6)"}
    return style.figure(
        traces,
        height=300,
        xaxis=style.index_axis(rows, title="layer", automargin=True),
        yaxis=axis,
        showlegend=True,
        legend=style.legend_above(),
        hovermode="x unified",
    )


def token_bars(values: Float[np.ndarray, "pos"], tokens: Sequence[str], *, unit: str) -> go.Figure:
    """One bar for each token of the prompt, such as the norm of its embedding."""
    trace = go.Bar(
        x=list(range(len(tokens))),
        y=values,
        text=[f"{style.safe(token)} ({pos})" for pos, token in enumerate(tokens)],
        textposition="none",
        marker={"color": style.BLUE, "line": {"width": 0}},
        hovertemplate="%{text}: %{y:.4~g}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=240,
        bargap=0.25,
        xaxis=style.index_axis(tokens, tickangle=-40, automargin=True),
        yaxis=style.value_axis(unit, rangemode="tozero"),
    )


def _padded(finite: Float[np.ndarray, "row"]) -> tuple[float, float]:
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return low, high if high > low else low + 1.0


def _log_marks(low: float, high: float) -> list[float]:
    """Round values between 10**low and 10**high: 1, 2, 5, 10, ... as fits."""
    marks = [m * 10.0**e for e in range(int(np.floor(low)), int(np.ceil(high)) + 1) for m in (1, 2, 5)]
    inside = [mark for mark in marks if low <= np.log10(mark) <= high]
    return inside if len(inside) <= 8 else [mark for mark in inside if f"{mark:e}".startswith("1")]

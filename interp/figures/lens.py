"""Figures of a lens: what each layer would predict at each position, and how the target rises through the layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.errors import unknown
from interp.figures import style

_TEXT_COLUMNS = 28
_ROW_HEIGHT = 21
_HOVERED = 3


@dataclass(frozen=True)
class Measure:
    """How one quantity of a lens is coloured: ``log`` colours log10(1 + value), for ranks that span five decades."""

    title: str
    scale: str
    low: float | None = None
    high: float | None = None
    log: bool = False


MEASURES = {
    "probability": Measure("probability of the top token", style.SEQUENTIAL, 0.0, 1.0),
    "log_prob": Measure("log-probability of the target (nats)", style.SEQUENTIAL, high=0.0),
    "rank": Measure("rank of the target (0 = top)", style.SEQUENTIAL_REVERSED, 0.0, log=True),
    "entropy": Measure("entropy (nats)", style.SEQUENTIAL_REVERSED, 0.0),
    "kl": Measure("KL to the final layer (nats)", style.SEQUENTIAL_REVERSED, 0.0),
}


def lens_heatmap(
    values: Float[np.ndarray, "layer pos"],
    measure: str,
    *,
    rows: Sequence[str],
    tokens: Sequence[str],
    top_tokens: Sequence[Sequence[Sequence[str]]],
    top_probs: Float[np.ndarray, "layer pos k"],
    positions: Sequence[int] | None = None,
) -> go.Figure:
    """The logit lens as a heatmap: rows are layers (the last one on top), columns are tokens (nostalgebraist 2020).

    ``measure`` is a key of ``MEASURES`` and says what ``values`` are. A cell shows its top token where there is room; hovering lists
    the best three with their probabilities. ``tokens`` and ``top_tokens`` are readable labels; they are escaped here.
    ``positions`` are the places of ``tokens`` in the prompt, where they are not all of it.
    Raises UsageError for an unknown measure.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    look = MEASURES[measure]
    finite = np.where(np.isfinite(values), values, np.nan)
    shown = np.log10(1 + finite) if look.log else finite
    low, high = _limits(shown, look)
    bar: dict[str, Any] = {"title": {"text": look.title, "side": "right"}, "thickness": 10, "outlinewidth": 0}
    if look.log:
        decades = range(int(np.ceil(high)) + 1)
        bar |= {"tickvals": [float(np.log10(1 + 10**d)) if d else 0.0 for d in decades]}
        bar |= {"ticktext": [f"{10**d:,}" if d else "0" for d in decades]}
    trace = go.Heatmap(
        z=shown,
        zmin=low,
        zmax=high,
        colorscale=look.scale,
        colorbar=bar,
        xgap=1,
        ygap=1,
        text=[[style.short(best[0], 9) if best else "" for best in row] for row in top_tokens],
        texttemplate="%{text}" if len(tokens) <= _TEXT_COLUMNS else None,
        textfont={"size": 10.5},
        meta={"log": "log10(1 + value)"} if look.log else None,
        hovertext=_hover(rows, tokens, positions or range(len(tokens)), top_tokens, top_probs),
        customdata=finite if look.log else None,
        hovertemplate=f"%{{hovertext}}<br>{look.title}: %{{{'customdata' if look.log else 'z'}:.4~g}}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=110 + _ROW_HEIGHT * max(len(rows), 6),
        xaxis=style.index_axis(tokens, tickangle=-40, automargin=True),
        yaxis=style.index_axis(rows, automargin=True),
    )


def target_trajectory(
    series: dict[str, Float[np.ndarray, "layer"]],
    *,
    rows: Sequence[str],
    unit: str,
    log: bool = False,
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    """Lines over the layers, one for each entry of ``series``: probability, log-probability or rank of tokens at one position.

    ``unit`` titles the value axis. With ``log`` the axis is logarithmic in 1 + value, which suits ranks.
    """
    traces = [
        go.Scatter(
            x=list(range(len(rows))),
            name=style.short(name, 40),
            mode="lines+markers",
            line={"width": 2, "color": style.PALETTE[index % len(style.PALETTE)]},
            marker={"size": 5},
            hovertemplate="%{customdata:.4~g}" if log else "%{y:.4~g}",
            **trajectory_values(values, log=log),
        )
        for index, (name, values) in enumerate(series.items())
    ]
    axis = style.value_axis(unit)
    if log:
        axis |= {"type": "log", "tickvals": [1, 2, 11, 101, 1001, 10001, 100001]}
        axis |= {"ticktext": ["0", "1", "10", "100", "1,000", "10,000", "100,000"], "autorange": "reversed"}
    elif limits is not None:
        axis |= {"range": list(limits)}
    return style.figure(
        traces,
        height=300,
        xaxis=style.index_axis(rows, title="layer", automargin=True),
        yaxis=axis,
        showlegend=True,
        legend=style.legend_above(),
        hovermode="x unified",
    )


def trajectory_values(values: Float[np.ndarray, "layer ..."], *, log: bool = False) -> dict[str, Any]:
    """The properties of one line of ``target_trajectory`` that depend on its values, here for one position or for all."""
    finite = np.where(np.isfinite(values), values, np.nan)
    return {"y": finite + 1, "customdata": finite} if log else {"y": finite}


def _limits(shown: Float[np.ndarray, "layer pos"], look: Measure) -> tuple[float, float]:
    finite = shown[np.isfinite(shown)]
    low = look.low if look.low is not None else (float(finite.min()) if finite.size else 0.0)
    high = look.high if look.high is not None else (float(finite.max()) if finite.size else 1.0)
    return low, high if high > low else low + 1.0


def _hover(
    rows: Sequence[str],
    tokens: Sequence[str],
    positions: Sequence[int],
    top_tokens: Sequence[Sequence[Sequence[str]]],
    top_probs: Float[np.ndarray, "layer pos k"],
) -> list[list[str]]:
    """Row, token and the best few of each cell: the same for every measure, so that a page holds it once."""
    texts = []
    for layer, row in enumerate(rows):
        line = []
        for pos, token in enumerate(tokens):
            best = list(zip(top_tokens[layer][pos], top_probs[layer, pos], strict=True))[:_HOVERED]
            ranked = [f"{prob:.3f}  {style.short(name, 24)}" for name, prob in best]
            line.append(
                "<br>".join([f"<b>{style.safe(row)}</b> after {style.short(token, 24)} ({positions[pos]})", *ranked])
            )
        texts.append(line)
    return texts

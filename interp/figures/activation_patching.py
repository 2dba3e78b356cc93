"""Activation patching: maps of normalised effects over layers and positions or heads, and lines over layers.

An effect of 0 leaves a run as it was, 1 turns it all the way into the other run; below 0 it moves away. Colours diverge from 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style

_LEAST_LIMIT = 0.05
"""Colours stretch no further than this, so that noise stays pale."""
_NEAR_ALL = 0.7
"""Where some effect is at least this, colours go from -1 to 1, so that all the difference has its place on the scale."""
_TALL = 60
_LABEL = 24

Bounded = tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."], Float[np.ndarray, "..."]]
"""Values with their lower and upper bounds; bounds are NaN where there are none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The metric of the patched runs themselves, in the mean over pairs, cell by cell; ``name`` says what it is and in which unit."""

    values: Float[np.ndarray, "row ..."]
    name: str


def patching_map(
    effect: Float[np.ndarray, "row pos"],
    lower: Float[np.ndarray, "row pos"],
    upper: Float[np.ndarray, "row pos"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    row_title: str,
    column_title: str,
    title: str,
    measured: Measured | None = None,
    notes: Sequence[Sequence[str]] | None = None,
) -> go.Figure:
    """A map of effects with their intervals; rows (layers, or heads) upwards, ``columns`` (tokens, or heads) to the right.

    Hovering says what a cell is, its effect and interval, and what was ``measured`` of the patched run; ``notes`` are said of each
    cell as well. Labels are readable text and are escaped here.
    """
    limit = colour_limit(effect)
    ticks = _ticks(limit)
    trace = go.Heatmap(
        z=np.where(np.isfinite(effect), effect, np.nan),
        zmin=-limit,
        zmax=limit,
        colorscale=style.DIVERGING,
        colorbar={
            "title": {"text": style.safe(title), "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
            "tickvals": ticks,
            "ticktext": ["1 (all)" if value == 1 else f"{value:.2g}" for value in ticks],
        },
        xgap=1,
        ygap=1 if len(rows) <= _TALL else 0,
        meta={"signed": True},
        hovertext=_hover((effect, lower, upper), _names(rows, columns, column_title), measured, notes),
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
    )
    xaxis = style.index_axis(columns, automargin=True)
    if column_title == "head":
        xaxis["title"] = {"text": "head", "standoff": 8}
    else:
        shown: list[int] = xaxis["tickvals"]
        xaxis |= {"tickangle": -40, "ticktext": [style.short(columns[index], _LABEL) for index in shown]}
    return style.figure(
        [trace],
        height=110 + (16 if len(rows) <= _TALL else 7) * max(len(rows), 8),
        xaxis=xaxis,
        yaxis=style.index_axis(rows, title=row_title, automargin=True),
    )


def patching_lines(series: Mapping[str, Bounded], layers: Sequence[int], *, title: str) -> go.Figure:
    """The effect of patching whole layers, a line for each site, with whiskers for the intervals; ``title`` names what is shared out."""
    traces = [
        go.Scatter(
            x=list(range(len(layers))),
            y=np.where(np.isfinite(values), values, np.nan),
            name=style.safe(name),
            mode="lines+markers",
            line={"width": 2, "color": style.PALETTE[index % len(style.PALETTE)]},
            marker={"size": 5},
            error_y=_whiskers(values, lower, upper),
            hovertemplate="%{y:+.3f}",
        )
        for index, (name, (values, lower, upper)) in enumerate(series.items())
    ]
    return style.figure(
        traces,
        height=340,
        xaxis=style.index_axis([str(layer) for layer in layers], title="layer", automargin=True),
        yaxis=style.value_axis(title, zeroline=True, zerolinecolor="rgba(128,128,128,0.6)"),
        showlegend=len(traces) > 1,
        legend=style.legend_above(),
        hovermode="x unified",
    )


def colour_limit(effect: Float[np.ndarray, "..."]) -> float:
    """The effect at both ends of the colours: 1 where a cell comes near it, more where one exceeds it, else the greatest there is."""
    known = np.abs(effect[np.isfinite(effect)])
    greatest = float(known.max(initial=0.0))
    return max(1.0 if greatest >= _NEAR_ALL else _LEAST_LIMIT, greatest)


def _names(rows: Sequence[str], columns: Sequence[str], column_title: str) -> list[list[str]]:
    """What each cell is called: L5H3, or L5 at a token with its position."""
    if column_title == "head":
        return [[f"<b>{style.safe(row + column)}</b>" for column in columns] for row in rows]
    places = [f"{style.short(column, 2 * _LABEL)} ({position})" for position, column in enumerate(columns)]
    return [[f"<b>{style.safe(row)}</b> at {place}" for place in places] for row in rows]


def _hover(
    effects: Bounded, names: list[list[str]], measured: Measured | None, notes: Sequence[Sequence[str]] | None
) -> list[list[str]]:
    effect, lower, upper = effects
    texts = []
    for row, line in enumerate(names):
        texts.append([])
        for column, name in enumerate(line):
            cell = row, column
            parts = [name, f"effect {_interval(float(effect[cell]), float(lower[cell]), float(upper[cell]))}"]
            if measured is not None and np.isfinite(measured.values[cell]):
                parts.append(f"{style.safe(measured.name)} {measured.values[cell]:.4g}")
            if notes is not None and notes[row][column]:
                parts.append(style.safe(notes[row][column]))
            texts[-1].append("<br>".join(parts))
    return texts


def _interval(value: float, lower: float, upper: float) -> str:
    if not np.isfinite(value):
        return "not measured"
    return f"{value:+.3f}" + (f" ({lower:+.3f} to {upper:+.3f})" if np.isfinite(lower) else "")


def _ticks(limit: float) -> list[float]:
    """Zero, both ends and what lies between them; 1 wherever the scale reaches it."""
    if limit > 1.25:
        return [-limit, -1.0, 0.0, 1.0, limit]
    end = 1.0 if limit >= 1 else limit
    return [-end, -end / 2, 0.0, end / 2, end]


def _whiskers(
    values: Float[np.ndarray, "..."], lower: Float[np.ndarray, "..."], upper: Float[np.ndarray, "..."]
) -> dict[str, Any] | None:
    """Error bars for the bounds; None where there are none."""
    if not np.isfinite(lower).any():
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(upper - values).tolist(),
        "arrayminus": np.nan_to_num(values - lower).tolist(),
        "thickness": 1,
        "width": 2,
    }

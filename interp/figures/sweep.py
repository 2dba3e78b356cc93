"""Means over the items of a sweep: lines with their intervals, or maps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from interp.figures import style
from interp.figures.rows import site_rows

_FADED = 0.16


class Mean(NamedTuple):
    """A mean over ``n`` items with its interval."""

    value: float
    lower: float
    upper: float
    n: int


def sweep_lines(
    lines: Mapping[str, Mapping[str, Mean]],
    labels: Sequence[str],
    *,
    axis: str,
    words: str,
) -> go.Figure:
    """One line for each series over ``labels``, with its interval as a band; ``words`` says what is averaged, with its unit."""
    traces: list[Any] = []
    for index, (name, cells) in enumerate(lines.items()):
        colour = style.PALETTE[index % len(style.PALETTE)]
        x = [place for place, label in enumerate(labels) if label in cells]
        found = [cells[labels[place]] for place in x]
        dash = "solid" if index < len(style.PALETTE) else "dot"
        band = [*(one.upper for one in found), *(one.lower for one in reversed(found))]
        if np.isfinite(band).all():
            traces.append(
                go.Scatter(
                    x=[*x, *reversed(x)],
                    y=band,
                    fill="toself",
                    fillcolor=_faded(colour),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                )
            )
        traces.append(
            go.Scatter(
                x=x,
                y=[one.value for one in found],
                name=style.short(name or words, 60),
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"size": 5},
                hovertext=[_told(one) for one in found],
                hovertemplate="%{hovertext}",
            )
        )
    return style.figure(
        traces,
        height=400,
        showlegend=len(lines) > 1,
        legend=style.legend_above(),
        hovermode="x unified",
        xaxis=style.index_axis(_shown(labels, axis), title=axis, automargin=True),
        yaxis=style.value_axis(words),
    )


def sweep_map(cells: Mapping[tuple[Any, ...], Mean], *, x: str, y: str, words: str) -> go.Figure:
    """A map of means: ``x`` from left to right, ``y`` upwards (words from the top down), the interval when the pointer is on a cell."""
    columns, rows = (list(dict.fromkeys(key[place] for key in cells)) for place in (0, 1))
    downwards = any(isinstance(row, str) for row in rows)
    if not downwards:
        rows = sorted(rows)
    values = np.full((len(rows), len(columns)), np.nan)
    told = [[""] * len(columns) for _ in rows]
    for (column, row), mean in cells.items():
        at = rows.index(row), columns.index(column)
        values[at] = mean.value
        told[at[0]][at[1]] = f"{style.safe(f'{x} {column}, {y} {row}')}<br>{_told(mean)}"
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    signed = low < 0 < high
    reach = max(-low, high)
    trace = go.Heatmap(
        z=values,
        zmin=-reach if signed else low,
        zmax=reach if signed else high,
        colorscale=style.DIVERGING if signed else style.SEQUENTIAL,
        meta={"signed": True} if signed else None,
        colorbar={"thickness": 10, "outlinewidth": 0},
        hovertext=told,
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )
    across = style.index_axis([str(row) for row in rows], title=None if downwards else y, automargin=True)
    if downwards:
        across |= {"range": [len(rows) - 0.5, -0.5]}
        across["ticktext"] = [style.short(str(rows[place]), 40) for place in across["tickvals"]]
    return style.figure(
        [trace],
        height=130 + 16 * max(len(rows), 9),
        title={"text": style.safe(words), "font": {"size": 12}, "x": 0},
        xaxis=style.index_axis([str(column) for column in columns], title=x, automargin=True),
        yaxis=across,
    )


def _told(mean: Mean) -> str:
    bounds = f" ({mean.lower:.3g} to {mean.upper:.3g})" if np.isfinite(mean.lower) else ""
    return f"{mean.value:.3g}{bounds}, {mean.n} items"


def _shown(labels: Sequence[str], axis: str) -> list[str]:
    return list(site_rows(labels).labels) if axis == "component" else list(labels)


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{_FADED})"

"""Two results side by side: the first, the second, and what the second has more."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from interp.figures import style

_ROW_HEIGHT, _BAR_HEIGHT = 19, 26
_MOST_BARS = 24
_GAP = 1
"""Empty columns between two panels."""


def side_by_side(
    a: Float[np.ndarray, "row column"] | None,
    b: Float[np.ndarray, "row column"] | None,
    difference: Float[np.ndarray, "row column"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    names: tuple[str, str],
    title: str,
    unit: str,
    texts: tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]] | None = None,
) -> go.Figure:
    """Maps of ``a``, ``b`` and ``difference`` on one axis of rows; bars where there is one column.

    The first two share their colours; those of the difference are symmetric about 0. Without ``a`` and ``b`` there is only the last map.
    ``texts`` say what the cells of a and b are about. A cell without a number is left empty.
    """
    if len(columns) == 1 and a is not None and b is not None:
        return _bars(a[:, 0], b[:, 0], difference[:, 0], rows=rows, names=names, unit=unit)
    panels = [(names[0], a), (names[1], b), (f"{names[1]} − {names[0]}", difference)]  # noqa: RUF001
    shown = [(name, values) for name, values in panels if values is not None]
    if len(shown) == 1:
        shown = [(title, difference)]
    width = len(columns) + _GAP
    whole = np.full((len(rows), len(shown) * width - _GAP), np.nan)
    for place, (_, values) in enumerate(shown):
        whole[:, place * width : place * width + len(columns)] = values
    start = (len(shown) - 1) * width
    hover = _hover(rows, columns, shown, texts, width)
    labels = panel_labels(columns, len(shown))
    traces = [
        *([_map(whole, slice(0, start), hover, unit, signed=False, bar=1.0)] if start else []),
        _map(
            whole,
            slice(start, None),
            hover,
            unit,
            signed=bool(start) or bool((difference < 0).any()),
            bar=1.0 + 0.11 * bool(start),
        ),
    ]
    if start:
        traces[
            0
        ].customdata = whole  # what the picture's table reads: the differences stand in a trace of their own colours
        traces[0].meta = {"whole": True}
    return style.figure(
        traces,
        height=130 + _ROW_HEIGHT * max(len(rows), 6),
        xaxis=style.index_axis(labels, tickangle=-40, automargin=True),
        yaxis=style.index_axis(rows, automargin=True),
        annotations=[_heading(name, place * width + (len(columns) - 1) / 2) for place, (name, _) in enumerate(shown)],
    )


def panel_labels(columns: Sequence[str], panels: int = 3) -> list[str]:
    """The labels of all columns of ``side_by_side``, an empty one between two panels."""
    return [label for panel in range(panels) for label in ([""] * _GAP * bool(panel) + list(columns))]


def bar_rows(difference: Float[np.ndarray, " row"]) -> Int[np.ndarray, " _"]:
    """The rows that ``side_by_side`` shows as bars: those that differ most, the greatest first; those without a difference come last."""
    return np.argsort(-np.nan_to_num(np.abs(difference), nan=-1.0), kind="stable")[:_MOST_BARS]


def _map(
    whole: Float[np.ndarray, "row column"], panel: slice, hover: list[list[str]], unit: str, *, signed: bool, bar: float
) -> go.Heatmap:
    """One colour scale's panels; the others' columns are empty in it."""
    values = np.full_like(whole, np.nan)
    values[:, panel] = whole[:, panel]
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if signed or low < 0 < high:
        high = max(abs(low), abs(high)) or 1.0
        low, signed = -high, True
    elif low == high:
        low, high = min(low, 0.0), max(high, low + 1.0)
    return go.Heatmap(
        z=values,
        zmin=low,
        zmax=high,
        colorscale=style.DIVERGING if signed else style.SEQUENTIAL,
        meta={"signed": True} if signed else None,
        colorbar={
            "title": {"text": style.safe(unit), "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
            "x": bar,
            "xpad": 6,
        },
        xgap=1,
        ygap=1,
        hovertext=hover,
        hovertemplate="%{hovertext}: %{z:.4~g}<extra></extra>",
        hoverongaps=False,
    )


def _hover(
    rows: Sequence[str],
    columns: Sequence[str],
    shown: Sequence[tuple[str, Any]],
    texts: tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]] | None,
    width: int,
) -> list[list[str]]:
    hover = [[""] * (len(shown) * width - _GAP) for _ in rows]
    for place, (name, _) in enumerate(shown):
        for row, label in enumerate(rows):
            for column, at in enumerate(columns):
                about = ""
                if texts is not None:
                    told = [style.short(one[row][column], 24) for one in texts]
                    about = f"<br>{' | '.join(dict.fromkeys(told)) if place == 2 else told[place]}"
                head = f"<b>{style.short(name, 40)}</b><br>{style.short(label, 24)}, {style.short(at, 40)}"
                hover[row][place * width + column] = head + about
    return hover


def _heading(text: str, x: float) -> dict[str, Any]:
    return {
        "text": style.short(text, 44),
        "x": x,
        "y": 1.0,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12.5},
    }


def _bars(
    a: Float[np.ndarray, " row"],
    b: Float[np.ndarray, " row"],
    difference: Float[np.ndarray, " row"],
    *,
    rows: Sequence[str],
    names: tuple[str, str],
    unit: str,
) -> go.Figure:
    """A bar of each for the rows that differ most, the greatest difference on top; those without one come last."""
    order = bar_rows(difference)
    series = (
        (names[0], a, style.GREY),
        (names[1], b, style.BLUE),
        (f"{names[1]} − {names[0]}", difference, style.ORANGE),  # noqa: RUF001
    )
    traces = [
        go.Bar(
            x=np.where(np.isfinite(values[order]), values[order], np.nan),
            y=list(range(len(order))),
            orientation="h",
            name=style.short(name, 40),
            marker={"color": color},
            hovertext=[style.short(rows[int(index)], 40) for index in order],
            hovertemplate=f"%{{hovertext}}: %{{x:.4~g}}<extra>{style.short(name, 40)}</extra>",
        )
        for name, values, color in series
    ]
    return style.figure(
        traces,
        height=110 + _BAR_HEIGHT * max(len(order), 4),
        barmode="group",
        showlegend=True,
        legend=style.legend_above() | {"traceorder": "normal"},
        xaxis=style.value_axis(unit, zeroline=True),
        yaxis=style.index_axis([rows[int(index)] for index in order], automargin=True, autorange="reversed"),
    )

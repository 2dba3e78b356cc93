"""What an edit changes: answers before and after, the target in the logit lens before and after, and how the value was found."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.errors import unknown
from interp.figures import style

LENS = ("difference", "before", "after")
"""What a map of the lens can show."""
MARK = "*"
"""Stands behind the labels of the subject's last token and of the edited layers."""
Bounds = tuple[float, float, float]
"""A value with its interval."""
_ROW_HEIGHT = 17


def answer_bars(tokens: Sequence[str], before: Sequence[float], after: Sequence[float]) -> go.Figure:
    """The probability of each token before and after, as pairs of bars, the first token on top. ``tokens`` are readable labels."""
    rows = list(range(len(tokens)))
    traces = [
        go.Bar(
            x=list(values),
            y=rows,
            name=name,
            orientation="h",
            marker={"color": colour, "line": {"width": 0}},
            hovertext=[
                f"<b>{style.short(token, 24)}</b> {name}: {value:.3g}"
                for token, value in zip(tokens, values, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
        for name, values, colour in (("before", before, style.GREY), ("after", after, style.BLUE))
    ]
    return style.figure(
        traces,
        height=90 + 34 * max(len(tokens), 3),
        barmode="group",
        bargap=0.3,
        showlegend=True,
        legend=style.legend_above() | {"traceorder": "normal"},
        xaxis=style.value_axis("probability", range=[0, 1]),
        yaxis=style.index_axis(list(tokens), automargin=True) | {"range": [len(tokens) - 0.5, -0.5]},
    )


def lens_map(
    before: Float[np.ndarray, "layer pos"],
    after: Float[np.ndarray, "layer pos"],
    *,
    what: str,
    labels: Sequence[str],
    subject: int,
    edited: Sequence[int],
) -> go.Figure:
    """The target's log-probability in the logit lens, layers upwards, tokens from left to right (nats).

    ``what`` is "before", "after" (in one scale of colour) or "difference", after less before. A square marks the subject's last token at
    each edited layer; their labels have a star. Raises UsageError for another ``what``.
    """
    if what not in LENS:
        raise unknown("map", what, LENS)
    change = after - before
    values = {"difference": change, "before": before, "after": after}[what]
    heat = go.Heatmap(
        z=np.where(np.isfinite(values), values, np.nan),
        colorbar={"title": {"text": _title(what), "side": "right"}, "thickness": 10, "outlinewidth": 0},
        xgap=1,
        ygap=1,
        hovertext=_texts(before, after, labels, subject, edited),
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        **_colours(what, before, after),
    )
    n_layers = len(values)
    return style.figure(
        [heat, _squares(subject, edited)],
        height=120 + _ROW_HEIGHT * max(n_layers, 8),
        xaxis=_starred(style.index_axis(labels, tickangle=-40, automargin=True), [subject]),
        yaxis=_starred(
            style.index_axis([str(layer) for layer in range(n_layers)], title="layer", automargin=True), edited
        ),
    )


def score_bars(rows: Sequence[tuple[str, Bounds | None, Bounds | None]], unit: str) -> go.Figure:
    """Scores (name, before, after) as pairs of bars with their intervals, the first on top; None and NaN bounds are not drawn."""
    traces = [
        _score_bars(one, name, colour)
        for one, name, colour in (
            ([(label, before) for label, before, _ in rows], "before", style.GREY),
            ([(label, after) for label, _, after in rows], "after", style.BLUE),
        )
        if any(found is not None for _, found in one)
    ]
    names = [name for name, _, _ in rows]
    axis = style.index_axis(names, automargin=True)
    return style.figure(
        traces,
        height=90 + 34 * max(len(rows), 3),
        barmode="group",
        bargap=0.3,
        showlegend=True,
        legend=style.legend_above() | {"traceorder": "normal"},
        xaxis=style.value_axis(unit, zeroline=True, zerolinecolor="rgba(128,128,128,0.6)"),
        yaxis=axis | {"ticktext": [style.safe(name) for name in names], "range": [len(rows) - 0.5, -0.5]},
    )


def course_lines(
    series: Mapping[str, Float[np.ndarray, " step"]],
    unit: str,
    *,
    limit: float | None = None,
    top: float | None = None,
    labels: Sequence[str] | None = None,
    title: str = "step",
) -> go.Figure:
    """Quantities over the steps of something, called ``labels`` if not 0, 1, ....

    ``limit`` is a level that they are held under, ``top`` the end of the axis.
    """
    traces: list[Any] = [
        go.Scatter(
            x=list(range(len(values))),
            y=np.where(np.isfinite(values), values, np.nan),
            name=style.short(name, 60),
            mode="lines+markers",
            line={"width": 2, "color": style.PALETTE[index % len(style.PALETTE)]},
            marker={"size": 4},
            hovertemplate="%{y:.3~g}",
        )
        for index, (name, values) in enumerate(series.items())
    ]
    steps = max(len(values) for values in series.values())
    if limit is not None:
        level = go.Scatter(
            x=list(range(steps)),
            y=[limit] * steps,
            name="clamp",
            mode="lines",
            line={"width": 1.5, "color": style.GREY, "dash": "dash"},
            hovertemplate="%{y:.3~g}",
        )
        traces.append(level)
    vertical = {"rangemode": "tozero"} if top is None else {"range": [0, top]}
    return style.figure(
        traces,
        height=320,
        showlegend=True,
        legend=style.legend_above() | {"traceorder": "normal"},
        hovermode="x unified",
        xaxis=style.index_axis(labels or [str(step) for step in range(steps)], title=title, automargin=True),
        yaxis=style.value_axis(unit, **vertical),
    )


def _score_bars(rows: Sequence[tuple[str, Bounds | None]], name: str, colour: str) -> go.Bar:
    """The bars of one state."""
    nothing = (np.nan,) * 3
    values, lower, upper = np.array([found or nothing for _, found in rows], dtype=float).T
    return go.Bar(
        x=list(values),
        y=list(range(len(rows))),
        name=name,
        orientation="h",
        marker={"color": colour, "line": {"width": 0}},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(upper - values),
            "arrayminus": np.nan_to_num(values - lower),
            "thickness": 1,
            "width": 2,
            "visible": bool(np.isfinite(lower).any()),
        },
        hovertext=[f"<b>{style.safe(label)}</b> {name}<br>{_interval(*(found or nothing))}" for label, found in rows],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _interval(value: float, lower: float, upper: float) -> str:
    if not np.isfinite(value):
        return "not measured"
    return f"{value:.3g}" + (f" ({lower:.3g} to {upper:.3g})" if np.isfinite([lower, upper]).all() else "")


def _title(what: str) -> str:
    return "change of the log-probability (nats)" if what == "difference" else f"log-probability {what} (nats)"


def _colours(what: str, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    if what == "difference":
        known = np.abs((after - before)[np.isfinite(after - before)])
        reach = float(known.max(initial=0.0)) or 1.0
        return {"zmin": -reach, "zmax": reach, "colorscale": style.DIVERGING, "meta": {"signed": True}}
    known = np.concatenate([before[np.isfinite(before)], after[np.isfinite(after)]])
    low = float(known.min(initial=0.0))
    return {"zmin": low if low < 0 else -1.0, "zmax": 0.0, "colorscale": style.SEQUENTIAL}


def _texts(
    before: np.ndarray, after: np.ndarray, labels: Sequence[str], subject: int, edited: Sequence[int]
) -> list[list[str]]:
    """Place, both values and their difference, the same for every map so that a page holds them once."""
    texts = []
    for layer in range(len(before)):
        row = []
        for position, label in enumerate(labels):
            stars = MARK * (layer in edited), MARK * (position == subject)
            one, two = float(before[layer, position]), float(after[layer, position])
            head = f"<b>{style.short(label, 24)}{stars[1]}</b> ({position}), layer {layer}{stars[0]}"
            if not np.isfinite(two - one):
                row.append(f"{head}<br>not measured")
                continue
            row.append(f"{head}<br>before {one:.2f}, after {two:.2f}<br>change {two - one:+.2f} nats")
        texts.append(row)
    return texts


def _squares(subject: int, edited: Sequence[int]) -> go.Scatter:
    return go.Scatter(
        x=[subject] * len(edited),
        y=list(edited),
        name="edited",
        mode="markers",
        marker={
            "symbol": "square-open",
            "size": 13,
            "color": style.ORANGE,
            "line": {"width": 3, "color": style.ORANGE},
        },
        cliponaxis=False,
        hoverinfo="skip",
    )


def _starred(axis: dict[str, Any], starred: Sequence[int]) -> dict[str, Any]:
    """The axis with a star behind some of its labels."""
    ticks = zip(axis["tickvals"], axis["ticktext"], strict=True)
    return axis | {"ticktext": [text + MARK * (place in starred) for place, text in ticks]}

"""Causal traces: what restoring one state brings back, as a map over tokens and layers, and along the layers at one token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style

KINDS = {
    "resid": "stream",
    "mlp": "MLPs",
    "attn": "attention",
    "resid-mlp-severed": "stream, MLPs severed",
    "resid-attn-severed": "stream, attention severed",
}
"""What is restored, in words."""

UNITS = {"probability": "probability of the answer", "logit_difference": "logit difference (logits)"}
EFFECTS = {"probability": "brought back (probability)", "logit_difference": "brought back (logits)"}
MARK = "*"
"""Stands behind the labels of the subject's tokens."""

_WINDOWED = ("mlp", "attn")
_ROW = 22
_LABEL = 24
_COLOURS = {
    "resid": style.BLUE,
    "mlp": style.GREEN,
    "attn": style.PURPLE,
    "resid-mlp-severed": style.GREEN,
    "resid-attn-severed": style.PURPLE,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceMap:
    """One kind of restored state: the mean measure after restoring, and the mean effect of it with the bounds of its interval."""

    kind: str
    effect: Float[np.ndarray, "layer pos"]
    lower: Float[np.ndarray, "layer pos"]
    upper: Float[np.ndarray, "layer pos"]
    restored: Float[np.ndarray, "layer pos"]


def trace_map(
    one: TraceMap,
    *,
    labels: Sequence[str],
    subject: Sequence[int],
    window: int,
    n_samples: int,
    clean: float,
    corrupted: float,
    measure: str = "probability",
) -> go.Figure:
    """One kind as a map: rows are tokens from the first on, the subject's with a star and a bar before them; columns are layers.

    The colour is the effect, alike on both sides of 0 up to what the corruption cost (``clean`` less ``corrupted``), or to the
    greatest effect where that is more.
    """
    traces = _map_traces(one, labels, subject, window, n_samples, _limit([one], clean - corrupted), measure)
    return style.figure(
        traces,
        height=110 + _ROW * max(len(labels), 4),
        xaxis=_layer_axis(one, window),
        yaxis=_token_axis(labels, subject),
    )


def trace_maps(
    maps: Sequence[TraceMap],
    *,
    labels: Sequence[str],
    subject: Sequence[int],
    window: int,
    n_samples: int,
    clean: float,
    corrupted: float,
    measure: str = "probability",
) -> go.Figure:
    """All kinds as maps one below the other, in one scale of colour."""
    limit = _limit(maps, clean - corrupted)
    height, gap, edges = _ROW * max(len(labels), 4), 64, 40
    whole = len(maps) * (height + gap) - gap
    traces: list[Any] = []
    layout: dict[str, Any] = {}
    for row, one in enumerate(maps):
        suffix = "" if row == 0 else str(row + 1)
        top = 1 - row * (height + gap) / whole
        drawn = _map_traces(one, labels, subject, window, n_samples, limit, measure, bar=row == 0)
        traces += [trace.update(xaxis=f"x{suffix}", yaxis=f"y{suffix}") for trace in drawn]
        layout[f"xaxis{suffix}"] = _layer_axis(one, window) | {"anchor": f"y{suffix}"}
        domain = [max(0.0, top - height / whole), top]
        layout[f"yaxis{suffix}"] = _token_axis(labels, subject) | {"anchor": f"x{suffix}", "domain": domain}
    return style.figure(traces, height=whole + gap + edges, **layout)


def trace_lines(
    maps: Sequence[TraceMap],
    position: int,
    *,
    bounds: tuple[Float[np.ndarray, "layer pos"], Float[np.ndarray, "layer pos"]],
    clean: float,
    corrupted: tuple[float, float, float],
    measure: str = "probability",
) -> go.Figure:
    """The measure along the layers after restoring at ``position``: the first of ``maps`` with its interval, further ones dotted.

    ``bounds`` are those of the first map's ``restored``. The clean value and the corrupted one (value, lower, upper) are level lines.
    ``trace_lines_follow`` gives what changes with the position.
    """
    n_layers = maps[0].restored.shape[0]
    layers = list(range(n_layers))
    value, low, high = corrupted
    first = _COLOURS[maps[0].kind]
    traces = [
        _line(layers, one.restored[:, position], KINDS[one.kind], _COLOURS[one.kind], dash="dot" if index else "solid")
        for index, one in enumerate(maps)
    ]
    traces += _band(layers, bounds[0][:, position], bounds[1][:, position], "restored", first)
    traces.append(_line(layers, np.full(n_layers, clean), "clean", style.GREY, dash="dash"))
    traces.append(_line(layers, np.full(n_layers, value), "corrupted", style.ORANGE, dash="dash"))
    if np.isfinite([low, high]).all():
        traces += _band(layers, np.full(n_layers, low), np.full(n_layers, high), "corrupted", style.ORANGE)
    least, most = _range([one.restored for one in maps] + list(bounds), clean, *corrupted)
    margin = 0.04 * (most - least)
    return style.figure(
        traces,
        height=320,
        showlegend=True,
        legend=style.legend_above() | {"traceorder": "normal"},
        hovermode="x unified",
        xaxis=style.index_axis([str(layer) for layer in layers], title="layer", automargin=True),
        yaxis=style.value_axis(UNITS[measure], range=[least - margin, most + margin]),
    )


def trace_lines_follow(
    maps: Sequence[TraceMap], bounds: tuple[Float[np.ndarray, "layer pos"], Float[np.ndarray, "layer pos"]]
) -> list[dict[str, Any]]:
    """For each of the first traces of ``trace_lines`` the matrix whose column at a position is its line."""
    return [{"y": one.restored} for one in maps] + [{"y": bound} for bound in bounds]


def _map_traces(
    one: TraceMap,
    labels: Sequence[str],
    subject: Sequence[int],
    window: int,
    n_samples: int,
    limit: float,
    measure: str,
    *,
    bar: bool = True,
) -> list[Any]:
    heat = go.Heatmap(
        z=one.effect.T,
        zmin=-limit,
        zmax=limit,
        colorscale=style.DIVERGING,
        meta={"signed": True},
        showscale=bar,
        colorbar={"title": {"text": EFFECTS[measure], "side": "right"}, "thickness": 10, "outlinewidth": 0},
        xgap=1,
        ygap=1,
        hovertext=_texts(one, labels, subject, window, n_samples, measure),
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
    )
    bars = go.Scatter(
        x=[-0.5, -0.5],
        y=[min(subject) - 0.42, max(subject) + 0.42],
        mode="lines",
        line={"color": style.ORANGE, "width": 5},
        cliponaxis=False,
        hoverinfo="skip",
    )
    return [heat, bars]


def _texts(
    one: TraceMap, labels: Sequence[str], subject: Sequence[int], window: int, n_samples: int, measure: str
) -> list[list[str]]:
    """For each token and layer the measure, the effect with its interval, and the number of samples."""
    what = "logit difference" if measure == "logit_difference" else "probability"
    around = f", {window} layers around" if one.kind in _WINDOWED and window > 1 else ""
    samples = f"{n_samples} sample{'s'[: n_samples != 1]}"
    texts = []
    for position, label in enumerate(labels):
        star = MARK if position in subject else ""
        row = []
        for layer in range(one.effect.shape[0]):
            head = f"<b>{style.short(label, _LABEL)}{star}</b> ({position}), layer {layer}{around}"
            cell = (layer, position)
            if not np.isfinite(one.restored[cell]):
                row.append(f"{head}<br>not measured")
                continue
            effect = _interval(one.effect[cell], one.lower[cell], one.upper[cell])
            row.append(f"{head}<br>{what} {one.restored[cell]:.3f}<br>brought back {effect}<br>{samples}")
        texts.append(row)
    return texts


def _interval(value: float, lower: float, upper: float) -> str:
    if not np.isfinite(lower):
        return f"{value:+.3f}"
    return f"{value:+.3f} ({lower:+.3f} to {upper:+.3f})"


def _limit(maps: Sequence[TraceMap], total: float) -> float:
    """The end of the scale of effects."""
    low, high = _range([one.effect for one in maps], total)
    return max(abs(low), abs(high)) or 1.0


def _range(matrices: Sequence[np.ndarray], *values: float) -> tuple[float, float]:
    """The least and the greatest of everything that was measured."""
    known = np.concatenate([np.ravel(matrix) for matrix in matrices] + [np.array(values)])
    known = known[np.isfinite(known)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _layer_axis(one: TraceMap, window: int) -> dict[str, Any]:
    state, _, severed = KINDS[one.kind].partition(", ")
    verb = "are" if one.kind == "mlp" else "is"
    words = f"layer at which the {state} {verb} restored{', later ' * bool(severed)}{severed}"
    if one.kind in _WINDOWED and window > 1:
        words = f"centre of the {window} layers whose {state} {verb} restored"
    labels = [str(layer) for layer in range(one.effect.shape[0])]
    return style.index_axis(labels, title=words, automargin=True)


def _token_axis(labels: Sequence[str], subject: Sequence[int]) -> dict[str, Any]:
    """The first token on top, as one reads."""
    axis = style.index_axis(labels, automargin=True)
    axis["ticktext"] = [
        text + (MARK if position in subject else "")
        for position, text in zip(axis["tickvals"], axis["ticktext"], strict=True)
    ]
    return axis | {"range": [len(labels) - 0.5, -0.5]}


def _line(layers: Sequence[int], values: Any, name: str, colour: str, *, dash: str) -> go.Scatter:
    return go.Scatter(
        x=list(layers),
        y=values,
        name=name,
        mode="lines",
        line={"width": 2, "color": colour, "dash": dash},
        hovertemplate="%{y:.3f}",
    )


def _band(layers: Sequence[int], lower: Any, upper: Any, name: str, colour: str) -> list[go.Scatter]:
    """Both bounds of an interval, with the space between them filled."""
    shared: dict[str, Any] = {"x": list(layers), "mode": "lines", "showlegend": False, "hovertemplate": "%{y:.3f}"}
    edge = {"width": 0, "color": colour}
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    fill = f"rgba({red},{green},{blue},0.16)"
    return [
        go.Scatter(y=lower, name=f"{name}, lower bound", line=edge, **shared),
        go.Scatter(y=upper, name=f"{name}, upper bound", line=edge, fill="tonexty", fillcolor=fill, **shared),
    ]

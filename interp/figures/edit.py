"""Edits: how the value of each fact was optimised, and how large the changes of the matrices are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style

_NAMED = 6
"""Facts up to this number have a colour and a name of their own."""
_LABEL = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """The optimisation of one fact's value, step by step; probabilities of the target per token, losses in nats."""

    label: str
    probability: Float[np.ndarray, " step"]
    bare_probability: Float[np.ndarray, " step"]
    loss: Float[np.ndarray, " step"]
    target: Float[np.ndarray, " step"]
    essence: Float[np.ndarray, " step"]
    decay: Float[np.ndarray, " step"]


def value_curves(found: Sequence[Curve]) -> go.Figure:
    """Above the target's probability, below the loss, over the steps (Meng et al. 2022, equation 4).

    For one fact the probability with and without contexts and the parts of the loss, for several a line each.
    """
    traces = _one(found[0]) if len(found) == 1 else _several(found)
    steps = max(len(curve.loss) for curve in found)
    return style.figure(
        traces,
        height=440,
        showlegend=len(found) <= _NAMED,
        legend=style.legend_above(),
        hovermode="x unified" if len(found) <= _NAMED else "closest",
        xaxis=style.value_axis("step", anchor="y2", range=[-0.3, max(steps, 2) - 0.7], tickformat="d"),
        yaxis=style.value_axis("probability of the target", domain=[0.54, 1.0], range=[0, 1.02]),
        yaxis2=style.value_axis("loss (nats)", domain=[0.0, 0.46], anchor="x", rangemode="tozero"),
    )


def relative_norms(layers: Sequence[int], norms: Sequence[float]) -> go.Figure:
    """The size of each layer's change relative to its matrix, as bars."""
    trace = go.Bar(
        x=list(range(len(layers))),
        y=list(norms),
        marker={"color": style.BLUE, "line": {"width": 0}},
        hovertext=[f"layer {layer}" for layer in layers],
        hovertemplate="%{hovertext}: %{y:.3~g}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=280,
        xaxis=style.index_axis([str(layer) for layer in layers], title="layer", automargin=True),
        yaxis=style.value_axis("norm of the change / norm of the matrix", rangemode="tozero"),
    )


def _one(curve: Curve) -> list[go.Scatter]:
    above = (
        ("probability over the contexts", curve.probability, style.BLUE, "solid"),
        ("probability of the bare prompt", curve.bare_probability, style.SKY, "dot"),
    )
    below = (
        ("loss", curve.loss, style.ORANGE, "solid"),
        ("of the target", curve.target, style.GREEN, "dash"),
        ("of what stays", curve.essence, style.PURPLE, "dash"),
        ("of the decay", curve.decay, style.GREY, "dash"),
    )
    return [
        *(_line(values, name, colour, dash, "y") for name, values, colour, dash in above),
        *(_line(values, name, colour, dash, "y2") for name, values, colour, dash in below),
    ]


def _several(found: Sequence[Curve]) -> list[go.Scatter]:
    traces = []
    for index, curve in enumerate(found):
        colour = style.PALETTE[index % len(style.PALETTE)] if len(found) <= _NAMED else style.BLUE
        group: dict[str, Any] = {"legendgroup": str(index), "opacity": 1.0 if len(found) <= _NAMED else 0.5}
        traces.append(_line(curve.probability, curve.label, colour, "solid", "y", **group))
        traces.append(_line(curve.loss, curve.label, colour, "solid", "y2", showlegend=False, **group))
    return traces


def _line(values: Any, name: str, colour: str, dash: str, axis: str, **options: Any) -> go.Scatter:
    label = style.short(name, _LABEL)
    return go.Scatter(
        x=list(range(len(values))),
        y=np.where(np.isfinite(values), values, np.nan),
        name=label,
        xaxis="x",
        yaxis=axis,
        mode="lines+markers" if len(values) < 3 else "lines",
        line={"width": 2, "color": colour, "dash": dash},
        hovertemplate=f"{label}: %{{y:.3~g}}<extra></extra>",
        **options,
    )

"""Many edits: what still holds, the perplexity of held-out texts and the drift of the weights, against the facts edited."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from jaxtyping import Float, Int
from numpy import ndarray

from interp.figures import style

_NAMES = {"argmax": "ranks first", "preferred": "likelier than the true object"}
_GAP = 0.08


def sequence_lines(
    checked: Int[ndarray, " step"],
    held: Mapping[str, Sequence[float]],
    perplexity: Float[ndarray, " step"] | None,
    edited: Int[ndarray, " edit"],
    drift: Mapping[int, Float[ndarray, " edit"]],
) -> go.Figure:
    """Panels above each other with one axis of facts edited.

    ``held`` are shares in per cent at each check, by measure, NaN where there is none; ``perplexity`` is left out where it was not
    measured; ``drift`` is |dW| / |W| after each edit, by layer, against ``edited``.
    """
    panels: list[tuple[str, list[go.Scatter]]] = []
    if held:
        colours = dict(zip(_NAMES, (style.BLUE, style.GREEN), strict=True))
        panels.append(
            ("earlier facts that hold (%)", [_line(_NAMES[name], checked, held[name], colours[name]) for name in held])
        )
    if perplexity is not None:
        panels.append(("perplexity", [_line("perplexity", checked, perplexity, style.ORANGE)]))
    if drift:
        lines = [
            _line(f"|dW|/|W| of layer {layer}", edited, values, style.PALETTE[(3 + index) % len(style.PALETTE)])
            for index, (layer, values) in enumerate(drift.items())
        ]
        panels.append(("|dW| / |W|", lines))
    height = (1 - _GAP * (len(panels) - 1)) / max(len(panels), 1)
    axes: dict[str, Any] = {}
    traces: list[go.Scatter] = []
    for place, (title, lines) in enumerate(panels):
        end = "" if place == 0 else str(place + 1)
        top = 1 - place * (height + _GAP)
        axes[f"yaxis{end}"] = style.value_axis(title, domain=[max(0.0, top - height), top], rangemode="tozero")
        traces += [line.update(yaxis=f"y{end}") for line in lines]
    return style.figure(
        traces,
        height=120 + 190 * len(panels),
        showlegend=True,
        legend=style.legend_above(),
        xaxis=style.value_axis("facts edited", anchor=f"y{len(panels)}" if len(panels) > 1 else "y"),
        **axes,
    )


def _line(name: str, x: Any, y: Any, colour: str) -> go.Scatter:
    return go.Scatter(
        x=list(x),
        y=list(y),
        mode="lines+markers",
        name=style.safe(name),
        line={"color": colour, "width": 2},
        marker={"size": 6},
        hovertemplate="%{x} facts: %{y:.4g}<extra>" + style.safe(name) + "</extra>",
    )

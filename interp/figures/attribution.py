"""Bars of direct logit attribution: what each component of the model adds to one logit."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style


def attribution_bars(
    contributions: Float[np.ndarray, "component"],
    components: Sequence[str],
    *,
    unit: str = "contribution to the logit",
) -> go.Figure:
    """One bar for each component in the order given, blue where it raises the logit and orange where it lowers it."""
    labels = [style.safe(name) for name in components]
    trace = go.Bar(
        x=list(range(len(components))),
        y=contributions,
        text=labels,
        textposition="none",
        marker={"color": [style.BLUE if value >= 0 else style.ORANGE for value in contributions], "line": {"width": 0}},
        hovertemplate="%{text}: %{y:+.4f}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=340,
        bargap=0.15,
        xaxis=style.index_axis(components, tickangle=-60, automargin=True),
        yaxis=style.value_axis(unit, zeroline=True, zerolinecolor="rgba(128,128,128,0.6)"),
    )


def attribution_heads(values: Float[np.ndarray, "layer head"]) -> go.Figure:
    """What each head adds to the logit: layers upwards, heads from left to right, in a diverging scale centred on zero."""
    layers, heads = values.shape
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    trace = go.Heatmap(
        z=values,
        zmin=-limit,
        zmax=limit,
        colorscale=style.DIVERGING,
        colorbar={"title": {"text": "logit", "side": "right"}, "thickness": 10, "outlinewidth": 0},
        xgap=1,
        ygap=1,
        meta={"signed": True},
        hovertext=[[f"<b>L{layer}H{head}</b>" for head in range(heads)] for layer in range(layers)],
        hovertemplate="%{hovertext}: %{z:+.4f}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=110 + 15 * max(layers, 8),
        xaxis=style.index_axis([str(head) for head in range(heads)], title="head", automargin=True),
        yaxis=style.index_axis([str(layer) for layer in range(layers)], title="layer", automargin=True),
    )


def attribution_by_layer(
    series: Mapping[str, Float[np.ndarray, "layer"]],
    rows: Sequence[str],
    *,
    unit: str = "contribution to the logit",
) -> go.Figure:
    """Bars side by side for each layer, one colour for each entry of ``series`` (what attention and what the MLP adds)."""
    traces = [
        go.Bar(
            x=list(range(len(rows))),
            y=values,
            name=style.safe(name),
            marker={"color": style.PALETTE[index % len(style.PALETTE)], "line": {"width": 0}},
            hovertemplate="%{y:+.4f}",
        )
        for index, (name, values) in enumerate(series.items())
    ]
    return style.figure(
        traces,
        height=320,
        barmode="group",
        bargap=0.2,
        bargroupgap=0,
        showlegend=True,
        legend=style.legend_above(),
        hovermode="x unified",
        xaxis=style.index_axis(rows, title="layer", automargin=True),
        yaxis=style.value_axis(unit, zeroline=True, zerolinecolor="rgba(128,128,128,0.6)"),
    )

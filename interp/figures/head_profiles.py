"""Maps of heads: one cell a head, layers upwards, heads from left to right."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style

_TOP = {"share of attention": 1.0, "share of the greatest": 1.0}


def profile_map(
    values: Float[np.ndarray, "layer head"],
    nulls: Float[np.ndarray, "layer head"],
    layers: Sequence[int],
    *,
    title: str,
    unit: str,
    names: Sequence[Sequence[str]] | None = None,
) -> go.Figure:
    """One measure of every head; ``nulls`` and the class ``names`` of each head are told when the pointer is on it.

    Shares are coloured from 0 to 1, other units from the smallest value to the largest; a head without a value has no cell.
    """
    n_layers, n_heads = values.shape
    finite = values[np.isfinite(values)]
    low = min(0.0, float(finite.min())) if finite.size else 0.0
    high = _TOP.get(unit, float(finite.max()) if finite.size and finite.max() > low else low + 1.0)
    hover = [
        [f"<b>L{layer}H{head}</b>{_null(nulls[row, head])}{_names(names, row, head)}" for head in range(n_heads)]
        for row, layer in enumerate(layers)
    ]
    trace = go.Heatmap(
        z=values,
        zmin=low,
        zmax=high,
        colorscale=style.SEQUENTIAL,
        colorbar={"title": {"text": style.safe(unit), "side": "right"}, "thickness": 10, "outlinewidth": 0},
        xgap=1,
        ygap=1,
        hovertext=hover,
        hovertemplate="%{hovertext}<br>" + style.safe(title) + " %{z:.3f}<extra></extra>",
        hoverongaps=False,
    )
    return style.figure(
        [trace],
        height=110 + 15 * max(n_layers, 8),
        xaxis=style.index_axis([str(head) for head in range(n_heads)], title="head", automargin=True),
        yaxis=style.index_axis([str(layer) for layer in layers], title="layer", automargin=True),
    )


def _null(value: float) -> str:
    return f"<br>null {value:.3f}" if np.isfinite(value) else ""


def _names(names: Sequence[Sequence[str]] | None, row: int, head: int) -> str:
    return f"<br>{style.safe(names[row][head])}" if names is not None and names[row][head] else ""

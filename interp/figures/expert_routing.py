"""A figure of how the tokens of a prompt spread over experts."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style


def share_heatmap(share: Float[np.ndarray, "layer expert"], layers: Sequence[int]) -> go.Figure:
    """The part of all routing weights that each expert gets; layers upwards, experts from left to right."""
    rows, experts = [str(layer) for layer in layers], [str(expert) for expert in range(share.shape[1])]
    trace = go.Heatmap(
        z=share,
        zmin=0.0,
        zmax=float(share.max()) or 1.0,
        colorscale=style.SEQUENTIAL,
        colorbar={"title": {"text": "share of the weights", "side": "right"}, "thickness": 10, "outlinewidth": 0},
        xgap=1,
        ygap=1,
        hovertemplate="expert %{x}: %{z:.3~g}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=110 + 15 * max(len(rows), 8),
        xaxis=style.index_axis(experts, title="expert", automargin=True),
        yaxis=style.index_axis(rows, title="layer", automargin=True),
    )

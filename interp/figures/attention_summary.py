"""A figure of what attention does in every layer, as means over the heads."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style
from interp.figures.attention import SCALE

TITLES = {
    "received": "weight from each later token",
    "first": "weight on the first token",
    "own": "weight on the token itself",
}


def weights_heatmap(values: Float[np.ndarray, "layer pos"], tokens: Sequence[str], measure: str) -> go.Figure:
    """A mean weight of attention over layers (the last one on top) and tokens; ``measure`` is a key of ``TITLES``."""
    shown = np.where(np.isfinite(values), values, np.nan)
    rows = [str(layer) for layer in range(len(values))]
    greatest = float(np.nanmax(shown, initial=0.0))
    trace = go.Heatmap(
        z=shown,
        zmin=0.0,
        zmax=greatest or 1.0,
        colorscale=SCALE,
        colorbar={"title": {"text": TITLES[measure], "side": "right"}, "thickness": 10, "outlinewidth": 0},
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertext=[
            [f"<b>{row}</b> at {style.short(token, 24)} ({pos})" for pos, token in enumerate(tokens)] for row in rows
        ],
        hovertemplate=f"%{{hovertext}}<br>{TITLES[measure]}: %{{z:.3~g}}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=110 + 15 * max(len(rows), 8),
        xaxis=style.index_axis(tokens, tickangle=-40, automargin=True),
        yaxis=style.index_axis(rows, automargin=True),
    )

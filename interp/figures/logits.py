"""Bars of the most likely next tokens."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style


def logits_bar(
    probs: Float[np.ndarray, "k"],
    logits: Float[np.ndarray, "k"],
    tokens: Sequence[str],
    *,
    chosen: int | None = None,
) -> go.Figure:
    """Probabilities of the best ``k`` tokens, best on top, their logits in the hover; the bar at index ``chosen`` stands out."""
    count = len(tokens)
    trace = go.Bar(
        x=probs,
        y=list(range(count)),
        orientation="h",
        marker={
            "color": [style.BLUE if index == chosen else style.GREY for index in range(count)],
            "line": {"width": 0},
        },
        text=[f"{prob:.1%}" if prob >= 0.001 else f"{100 * prob:.2g}%" for prob in probs],
        textposition="outside",
        cliponaxis=False,
        customdata=logits,
        hovertext=[style.safe(token) for token in tokens],
        hovertemplate="%{hovertext}: p = %{x:.4~g}, logit = %{customdata:.4~g}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=70 + 28 * max(count, 3),
        bargap=0.25,
        xaxis=style.value_axis("probability", rangemode="tozero"),
        yaxis=style.index_axis(tokens, range=[count - 0.5, -0.5], automargin=True),
    )

"""The loss of each token of a prompt."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style


def loss_bars(
    losses: Float[np.ndarray, "predicted"], entropies: Float[np.ndarray, "predicted"], tokens: Sequence[str]
) -> go.Figure:
    """A bar for each token but the first, which has no loss, and the entropy of what was expected there as a mark.

    ``tokens`` are all tokens of the prompt, so that places on the axis are positions.
    """
    texts = [f"{style.short(token, 24)} ({pos})" for pos, token in enumerate(tokens)]
    bars = go.Bar(
        x=list(range(len(tokens))),
        y=[None, *losses.tolist()],
        name="loss",
        marker={"color": style.BLUE, "line": {"width": 0}},
        hovertext=texts,
        hovertemplate="%{hovertext}: %{y:.4~g} nats<extra>loss</extra>",
    )
    marks = go.Scatter(
        x=list(range(len(tokens))),
        y=[None, *entropies.tolist()],
        name="expected (entropy)",
        mode="markers",
        marker={
            "color": style.ORANGE,
            "symbol": "line-ew-open",
            "size": 10,
            "line": {"width": 2, "color": style.ORANGE},
        },
        hovertemplate="%{y:.4~g} nats<extra>expected</extra>",
    )
    return style.figure(
        [bars, marks],
        height=300,
        bargap=0.25,
        xaxis=style.index_axis(tokens, tickangle=-40, automargin=True),
        yaxis=style.value_axis("nats", rangemode="tozero"),
        legend=style.legend_above(),
        showlegend=True,
    )

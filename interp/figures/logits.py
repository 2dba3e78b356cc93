"""The logits of a vocabulary as a histogram, and bars of the most likely next tokens."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

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


def logit_histogram(
    counts: Int[np.ndarray, "bin"],
    start: float,
    width: float,
    *,
    best: Float[np.ndarray, "k"],
    tokens: Sequence[str],
    probs: Float[np.ndarray, "k"],
) -> go.Figure:
    """How many tokens have which logit (log scale), the ``best`` tokens marked above with their names.

    Interval i goes from ``start + i * width`` on. Hovering a mark tells its logit and probability.
    """
    edges = [start + index * width for index in range(len(counts) + 1)]
    bars = go.Bar(
        x=list(range(len(counts))),
        y=np.where(counts > 0, counts, np.nan),
        name="tokens of the vocabulary",
        marker={"color": style.GREY, "line": {"width": 0}},
        hovertext=[f"{low:.1f} to {high:.1f}" for low, high in pairwise(edges)],
        hovertemplate="%{y:,} tokens with a logit of %{hovertext}<extra></extra>",
    )
    # Names only where they do not run into each other.
    named, last = [], np.inf
    for value in best:
        named.append(last - value > 3 * width)
        last = float(value) if named[-1] else last
    marks = go.Scatter(
        x=(best - start) / width - 0.5,
        y=[1.0] * len(tokens),
        name="likeliest tokens",
        mode="markers+text",
        marker={"color": style.BLUE, "size": 9, "symbol": "diamond"},
        text=[style.short(token) if shown else "" for token, shown in zip(tokens, named, strict=True)],
        textposition="top center",
        cliponaxis=False,
        hovertext=[
            f"{style.safe(token)}: logit = {value:.4g}, p = {prob:.4g}"
            for token, value, prob in zip(tokens, best, probs, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    return style.figure(
        [bars, marks],
        height=300,
        bargap=0.08,
        xaxis=style.index_axis(
            [f"{low:.1f}" for low in edges[:-1]], title="logit, from", tickangle=-40, automargin=True
        ),
        yaxis=style.value_axis(
            "tokens (log scale)", type="log", dtick=1, range=[-0.3, float(np.log10(counts.max())) + 0.3]
        ),
        legend=style.legend_above(),
        showlegend=True,
    )

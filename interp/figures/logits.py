"""The logits of a vocabulary as a histogram, and bars of the most likely next tokens."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from interp.figures import style
from interp.figures.numerals import percent


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
        text=[percent(prob) for prob in probs],
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
    best: float,
    token: str,
    prob: float,
) -> go.Figure:
    """How many tokens have which logit (log scale), and with an arrow the likeliest ``token``, of logit ``best`` and probability ``prob``.

    Interval i goes from ``start + i * width`` on.
    """
    edges = [start + index * width for index in range(len(counts) + 1)]
    bars = go.Bar(
        x=list(range(len(counts))),
        y=np.where(counts > 0, counts, np.nan),
        marker={"color": style.GREY, "line": {"width": 0}},
        hovertext=[f"{low:.1f} to {high:.1f}" for low, high in pairwise(edges)],
        hovertemplate="%{y:,} tokens with a logit of %{hovertext}<extra></extra>",
    )
    place = (best - start) / width
    height = float(np.log10(max(counts[min(int(place), len(counts) - 1)], 1)))
    note = {"x": place - 0.5, "y": height, "text": f"{style.short(token)} {percent(prob)}", "xanchor": "right"}
    arrow = {"ax": 0, "ay": -64, "arrowhead": 2, "arrowcolor": style.BLUE, "arrowwidth": 1.5}
    shown = range(0, len(counts), 4)
    return style.figure(
        [bars],
        height=300,
        bargap=0.08,
        annotations=[note | arrow],
        xaxis=style.index_axis(
            [""] * len(counts),
            title="logit",
            tickvals=[index - 0.5 for index in shown],
            ticktext=[f"{edges[index]:.1f}".replace("-", "−") for index in shown],  # noqa: RUF001
            automargin=True,
        ),
        yaxis=style.value_axis(
            "tokens (log scale)", type="log", dtick=1, range=[-0.3, float(np.log10(counts.max())) + 0.3]
        ),
    )

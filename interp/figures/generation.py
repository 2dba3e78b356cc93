"""Figures of the generation loop: how sure each choice was, how long each forward took, how the key/value cache grew."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style


def generated_log_probs(
    log_probs: Float[np.ndarray, "step"], entropies: Float[np.ndarray, "step"], tokens: Sequence[str]
) -> go.Figure:
    """Log-probability of each generated token, and the entropy of the distribution that it was chosen from."""
    traces = [
        go.Scatter(x=list(range(len(tokens))), y=values, name=name, mode="lines+markers")
        for name, values in (("log-probability", log_probs), ("entropy", entropies))
    ]
    return style.figure(
        traces,
        height=320,
        xaxis=style.index_axis(tokens, tickangle=-40, automargin=True),
        yaxis=style.value_axis("nats"),
        legend=style.legend_above(),
        showlegend=True,
    )


def forward_times(seconds: Sequence[float], tokens: Sequence[str], *, n_prompt: int) -> go.Figure:
    """How long the forward took that chose each token: the first reads the ``n_prompt`` tokens of the prompt, the others one token."""
    reads = [f"prefill of {n_prompt}", *("1" for _ in seconds[1:])]
    trace = go.Bar(
        x=list(range(len(tokens))),
        y=[1000 * value for value in seconds],
        marker={"color": [style.ORANGE, *(style.BLUE for _ in seconds[1:])], "line": {"width": 0}},
        text=[f"{style.safe(token)}, tokens read: {read}" for token, read in zip(tokens, reads, strict=True)],
        textposition="none",
        hovertemplate="%{text}<br>%{y:.4~g} ms<extra></extra>",
    )
    return style.figure(
        [trace],
        height=260,
        bargap=0.25,
        xaxis=style.index_axis(tokens, tickangle=-40, automargin=True),
        yaxis=style.value_axis("milliseconds", rangemode="tozero"),
    )


def cache_growth(n_bytes: Sequence[int], multi_head: float, tokens: Sequence[str]) -> go.Figure:
    """The size of the cache after the forward that chose each token, and what it would be with keys and values for every query head.

    The latter is ``multi_head`` times as much; where that is 1, there is one line.
    """
    series = {"kept": 1.0} | ({"with a key and a value for each query head": multi_head} if multi_head != 1 else {})
    traces = [
        go.Scatter(
            x=list(range(len(tokens))),
            y=[factor * size / 1e6 for size in n_bytes],
            name=name,
            mode="lines+markers",
            line={"width": 2, "color": color},
            marker={"size": 5},
            hovertemplate="%{y:.4~g} MB",
        )
        for (name, factor), color in zip(series.items(), style.PALETTE, strict=False)
    ]
    return style.figure(
        traces,
        height=260,
        xaxis=style.index_axis(tokens, tickangle=-40, automargin=True),
        yaxis=style.value_axis("MB (a million bytes)", rangemode="tozero"),
        legend=style.legend_above(),
        showlegend=True,
        hovermode="x unified",
    )

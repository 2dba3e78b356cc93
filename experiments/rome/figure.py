"""The figure: the scores of each method beside those before, and the perplexity after every single edit."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from experiments.rome.singles import Singles
from interp.figures import style

_SCORES = {
    "ES": "efficacy_score",
    "PS": "paraphrase_score",
    "NS": "neighbourhood_score",
    "argmax": "prompt_argmax",
    "para. argmax": "paraphrase_argmax",
    "neighb. kept": "neighbours_kept",
}
_DOMAINS = ([0, 0.56], [0.68, 1])


def methods_figure(singles: Mapping[str, Singles]) -> go.Figure:
    """Left a point for each score and method, with the value before the edit; right the perplexity after each edit, worst last."""
    first = next(iter(singles.values()))
    places = list(range(len(_SCORES)))
    traces: list[Any] = [
        go.Scatter(
            x=places,
            y=[first.mean(name, "before") if name in first.before else None for name in _SCORES.values()],
            name="before",
            mode="markers",
            marker={"color": style.GREY, "symbol": "line-ew-open", "size": 26, "line": {"width": 2}},
            hovertemplate="before: %{y:.1f} %<extra></extra>",
        )
    ]
    spread = 0.18
    for number, (method, scores) in enumerate(singles.items()):
        colour = style.PALETTE[number % len(style.PALETTE)]
        shift = spread * (number - (len(singles) - 1) / 2)
        traces += [
            go.Scatter(
                x=[place + shift for place in places],
                y=[scores.mean(name) for name in _SCORES.values()],
                name=style.safe(method),
                legendgroup=method,
                mode="markers",
                marker={"color": colour, "size": 9},
                hovertemplate=f"{style.safe(method)}: %{{y:.1f}} %<extra></extra>",
            ),
            go.Scatter(
                y=sorted(scores.after["perplexity_ratio"].tolist()),
                name=style.safe(method),
                legendgroup=method,
                showlegend=False,
                mode="lines+markers",
                line={"color": colour},
                marker={"size": 4},
                xaxis="x2",
                yaxis="y2",
                hovertemplate=f"{style.safe(method)}: %{{y:.3f}}x<extra></extra>",
            ),
        ]
    layout = {
        "xaxis": style.index_axis(list(_SCORES), domain=_DOMAINS[0]),
        "yaxis": style.value_axis("%", range=[-3, 103]),
        "xaxis2": style.value_axis("edits, from the mildest", domain=_DOMAINS[1], anchor="y2"),
        "yaxis2": style.value_axis("perplexity over that before", anchor="x2", type="log"),
    }
    return style.figure(
        traces,
        height=430,
        showlegend=True,
        legend=style.legend_above(),
        margin={"l": 60, "r": 16, "t": 50, "b": 60},
        **layout,
    )

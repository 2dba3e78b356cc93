"""Figures of the embedding matrix: the nearest rows of each token, and the cosines of random pairs of rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style

_TEXT_COLUMNS = 28


def neighbours_heatmap(
    cosines: Float[np.ndarray, "k pos"], neighbours: Sequence[Sequence[str]], tokens: Sequence[str]
) -> go.Figure:
    """The nearest rows of each token, the nearest on top, coloured by their cosine; named in the cells where there is room."""
    ranks = [str(rank) for rank in range(len(neighbours))]
    hover = [
        [
            f"<b>{style.short(name, 24)}</b> near {style.short(token, 24)} ({pos})"
            for pos, (name, token) in enumerate(zip(row, tokens, strict=True))
        ]
        for row in neighbours
    ]
    trace = go.Heatmap(
        z=cosines,
        zmin=0.0,
        zmax=1.0,
        colorscale=style.SEQUENTIAL,
        colorbar={"title": {"text": "cosine", "side": "right"}, "thickness": 10, "outlinewidth": 0},
        xgap=1,
        ygap=1,
        text=[[style.short(name, 9) for name in row] for row in neighbours],
        texttemplate="%{text}" if len(tokens) <= _TEXT_COLUMNS else None,
        textfont={"size": 10.5},
        hovertext=hover,
        hovertemplate="%{hovertext}<br>cosine: %{z:.4~g}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=110 + 24 * max(len(ranks), 4),
        xaxis=style.index_axis(tokens, tickangle=-40, automargin=True),
        yaxis=style.index_axis(ranks, title="neighbour", automargin=True, range=[len(ranks) - 0.5, -0.5]),
    )


def pairs_histogram(shares: Mapping[str, Float[np.ndarray, " bin"]]) -> go.Figure:
    """The share of random pairs in each of even bins of their cosine from -1 to 1, a line for each entry."""
    n_bins = len(next(iter(shares.values())))
    edges = np.linspace(-1, 1, n_bins + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    traces = [
        go.Scatter(
            x=list(range(n_bins)),
            y=np.round(values, 4),
            name=style.safe(name),
            mode="lines",
            line={"width": 2, "color": style.PALETTE[index], "shape": "hvh"},
            hovertemplate="%{y:.3~g}",
        )
        for index, (name, values) in enumerate(shares.items())
    ]
    ticks = {
        "tickvals": np.linspace(-0.5, n_bins - 0.5, 9).tolist(),
        "ticktext": [f"{x:g}" for x in np.linspace(-1, 1, 9)],
    }
    return style.figure(
        traces,
        height=280,
        xaxis=style.index_axis(
            [f"{middle:.3g}" for middle in middles], title="cosine of a random pair", automargin=True
        )
        | ticks,
        yaxis=style.value_axis("share of pairs", rangemode="tozero"),
        showlegend=True,
        legend=style.legend_above(),
        hovermode="x unified",
    )

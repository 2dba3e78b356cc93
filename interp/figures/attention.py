"""Figures of attention: one head's pattern, and all heads as one mosaic."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.colors import sequential

from interp.errors import unknown
from interp.figures import style

TILE = 24
"""Cells on a side of a head in the mosaic, at most."""

SCALE = tuple(((index / (len(sequential.Viridis) - 1)) ** 2, colour) for index, colour in enumerate(sequential.Viridis))
"""Viridis over the square root of the weight: with many keys most weights are small, and still differ."""

TITLES = {
    "probability": "attention",
    "value": "attention times norm of the value",
    "output": "norm of what is written",
}


def attention_heatmap(
    pattern: Float[np.ndarray, "query_pos key_pos"],
    weighting: str = "probability",
    *,
    tokens: Sequence[str],
    title: str = "",
) -> go.Figure:
    """One head: queries from top to bottom, the keys they attend to from left to right; keys after the query are empty.

    ``weighting`` is a key of ``TITLES`` and says what the numbers are. ``tokens`` are readable labels; they are escaped here.
    Raises UsageError for an unknown weighting.
    """
    name = _title(weighting)
    n_pos = len(tokens)
    shown = np.where(np.tril(np.ones((n_pos, n_pos), dtype=bool)), pattern, np.nan)
    trace = go.Heatmap(
        z=shown,
        zmin=0.0,
        zmax=1.0 if weighting == "probability" else float(np.nanmax(shown)) or 1.0,
        colorscale=SCALE,
        colorbar={"title": {"text": name, "side": "right"}, "thickness": 10, "outlinewidth": 0},
        hoverongaps=False,
        hovertext=[
            [
                f"{style.short(tokens[query], 24)} ({query}) to {style.short(key, 24)} ({pos})"
                for pos, key in enumerate(tokens)
            ]
            for query in range(n_pos)
        ]
        if n_pos <= _HOVERED
        else None,
        hovertemplate=f"{'%{hovertext}' if n_pos <= _HOVERED else 'query %{y}, key %{x}'}<br>{name}: %{{z:.4~g}}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=int(np.clip(160 + 22 * n_pos, 320, 720)),
        xaxis=style.index_axis(tokens, title=f"{title} key".strip(), tickangle=-40, automargin=True),
        yaxis=style.index_axis(tokens, title="query", automargin=True) | {"range": [n_pos - 0.5, -0.5]},
    )


def attention_tile(pattern: Float[np.ndarray, "query_pos key_pos"], size: int = TILE) -> Float[np.ndarray, "row row"]:
    """A pattern made small: the greatest weight in each of at most ``size`` times ``size`` areas."""
    step = -(-len(pattern) // size)
    padded = np.pad(pattern, (0, -len(pattern) % step))
    side = len(padded) // step
    return padded.reshape(side, step, side, step).max(axis=(1, 3))


def attention_mosaic(
    tiles: Float[np.ndarray, "layer head row row"],
    weighting: str = "probability",
    *,
    layers: Sequence[int],
    heads: Sequence[int],
    kv_heads: Sequence[int],
) -> go.Figure:
    """All heads in one heatmap, which draws a thousand of them at once: layers upwards, heads from left to right.

    ``tiles`` are patterns made small by ``attention_tile``. Each is coloured up to its own greatest weight when they are
    value-weighted, else from 0 to 1. Heads that share a key/value head stand together, with a wider gap to the next group.
    Raises UsageError for an unknown weighting.
    """
    name = _title(weighting)
    side = tiles.shape[2]
    shown = np.where(np.tril(np.ones((side, side), dtype=bool)), tiles, np.nan)
    if weighting != "probability":
        greatest = np.nanmax(shown, axis=(2, 3), keepdims=True)
        shown = shown / np.where(greatest > 0, greatest, 1.0)
    columns = np.cumsum([0, *(side + (3 if one != two else 1) for one, two in pairwise(kv_heads))])
    rows = np.arange(len(layers)) * (side + 1)
    canvas = np.full((int(rows[-1]) + side, int(columns[-1]) + side), np.nan)
    for row, top in enumerate(rows):
        for column, left in enumerate(columns):
            # Rows of a heatmap go upwards, queries downwards.
            canvas[top : top + side, left : left + side] = shown[row, column][::-1]
    trace = go.Heatmap(
        z=canvas,
        zmin=0.0,
        zmax=1.0,
        colorscale=SCALE,
        colorbar={"title": {"text": name, "side": "right"}, "thickness": 10, "outlinewidth": 0},
        hoverinfo="skip",
    )
    middle = (side - 1) / 2
    return style.figure(
        [trace],
        height=int(np.clip(26 * len(layers) + 110, 220, 1000)),
        xaxis=_at(columns + middle, [f"{head}" for head in heads], "head", canvas.shape[1]),
        yaxis=_at(rows + middle, [f"{layer}" for layer in layers], "layer", canvas.shape[0]),
    )


_HOVERED = 128
"""Up to this many tokens each cell names its two when hovered; beyond, texts would be most of the figure."""


def _at(places: np.ndarray, labels: Sequence[str], title: str, length: int) -> dict[str, Any]:
    axis = style.index_axis(labels, title=title, automargin=True)
    return axis | {"tickvals": [float(places[index]) for index in axis["tickvals"]], "range": [-0.5, length - 0.5]}


def _title(weighting: str) -> str:
    if weighting not in TITLES:
        raise unknown("weighting", weighting, TITLES)
    return TITLES[weighting]

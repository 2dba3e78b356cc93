"""Path patching: a map of the sending heads, with the receiving ones outlined."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style
from interp.figures.activation_patching import patching_map


def path_map(
    effect: Float[np.ndarray, "layer head"],
    lower: Float[np.ndarray, "layer head"],
    upper: Float[np.ndarray, "layer head"],
    receivers: Sequence[tuple[int, int, str]],
    *,
    title: str,
) -> go.Figure:
    """The effect of each sender's path with its interval; heads that do not send have no cell.

    ``receivers`` are the layer, head and name of what the paths lead to, none for the logits.
    """
    figure = patching_map(
        effect,
        lower,
        upper,
        [f"L{layer}" for layer in range(effect.shape[0])],
        [f"H{head}" for head in range(effect.shape[1])],
        row_title="layer of the sender",
        column_title="head",
        title=title,
    )
    if receivers:
        figure.add_trace(_outlines(receivers))
    return figure


def _outlines(receivers: Sequence[tuple[int, int, str]]) -> go.Scatter:
    return go.Scatter(
        x=[head for _, head, _ in receivers],
        y=[layer for layer, _, _ in receivers],
        mode="markers",
        marker={"symbol": "square-open", "size": 12, "color": style.GREEN, "line": {"width": 2}},
        hovertext=[f"<b>{style.safe(name)}</b><br>receiver" for _, _, name in receivers],
        hovertemplate="%{hovertext}<extra></extra>",
    )

"""The next-token distribution under several ways of choosing from it."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style

_OTHERS = "all others"


def choice_map(
    probs: Float[np.ndarray, "choice k"],
    others: Float[np.ndarray, "choice"],
    *,
    tokens: Sequence[str],
    choices: Sequence[str],
) -> go.Figure:
    """A column for each choice, a row for each of the likeliest tokens (best on top), and one for all other tokens together.

    A cell says the probability with which the token is drawn; it is blank where the token cannot be drawn.
    """
    rows = [*tokens, _OTHERS]
    values = np.concatenate([probs, others[:, None]], axis=1).T
    values = np.where(values > 0, values, np.nan)
    places = [[f"<b>{style.short(row, 24)}</b> under {style.safe(choice)}" for choice in choices] for row in rows]
    trace = go.Heatmap(
        z=values,
        zmin=0.0,
        zmax=1.0,
        colorscale=style.SEQUENTIAL,
        colorbar={"title": {"text": "probability", "side": "right"}, "thickness": 10, "outlinewidth": 0},
        xgap=1,
        ygap=1,
        texttemplate="%{z:.2~p}",
        textfont={"size": 10.5},
        hoverongaps=False,
        hovertext=places,
        hovertemplate="%{hovertext}: %{z:.4~g}<extra></extra>",
    )
    return style.figure(
        [trace],
        height=130 + 26 * len(rows),
        xaxis=style.index_axis(
            choices, ticktext=[style.short(choice, 40) for choice in choices], tickangle=-30, automargin=True
        ),
        yaxis=style.index_axis(rows, range=[len(rows) - 0.5, -0.5], automargin=True),
    )

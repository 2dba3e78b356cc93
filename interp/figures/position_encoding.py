"""Figures of position encodings: what they do by distance, and how fast each pair of coordinates turns."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from interp.figures import style

_FULL_TURN = 2 * np.pi


def distance_curves(
    curves: Mapping[str, Float[np.ndarray, " distance"]], distances: Int[np.ndarray, " distance"], *, unit: str
) -> go.Figure:
    """Lines over the distance between query and key, one for each entry.

    Distances stand at even steps, however far apart they are: of those that rise like powers, the axis is close to a logarithmic one.
    """
    traces = [
        go.Scatter(
            x=list(range(len(distances))),
            y=np.round(values, 4),
            name=style.safe(name),
            mode="lines",
            line={"width": 2, "color": style.PALETTE[index % len(style.PALETTE)]},
            hovertemplate="%{y:.3~g}",
        )
        for index, (name, values) in enumerate(curves.items())
    ]
    marks = [place for place, distance in enumerate(distances.tolist()) if _is_round(distance)]
    axis = style.index_axis(
        [str(distance) for distance in distances.tolist()], title="distance (tokens)", automargin=True
    )
    axis |= {"tickvals": marks, "ticktext": [f"{int(distances[place]):,}" for place in marks]}
    return style.figure(
        traces,
        height=280,
        xaxis=axis,
        yaxis=style.value_axis(unit, zeroline=True, zerolinecolor="rgba(128,128,128,0.6)"),
        showlegend=len(curves) > 1,
        legend=style.legend_above(),
        hovermode="x unified",
    )


def wavelength_bars(angles: Float[np.ndarray, " turn"]) -> go.Figure:
    """For each pair of coordinates the tokens that it takes for a full turn (log scale), fastest first."""
    labels = [str(pair) for pair in range(len(angles))]
    trace = go.Bar(
        x=list(range(len(angles))),
        y=_FULL_TURN / angles,
        marker={"color": style.BLUE, "line": {"width": 0}},
        hovertemplate="pair %{x}: a turn in %{y:.4~g} tokens<extra></extra>",
    )
    return style.figure(
        [trace],
        height=280,
        bargap=0.25,
        xaxis=style.index_axis(labels, title="pair of coordinates", automargin=True),
        yaxis=style.value_axis("tokens for a full turn (log scale)", type="log", dtick=1),
    )


def _is_round(distance: int) -> bool:
    """1, 10, 100, and so on."""
    return set(str(distance)) <= {"0", "1"} and str(distance).count("1") == 1

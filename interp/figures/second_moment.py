"""The spectrum of second moments: eigenvalues, greatest first, on a logarithmic scale."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style


def spectrum(lines: Mapping[str, Float[np.ndarray, " d_mlp"]]) -> go.Figure:
    """One line for each named spectrum. Eigenvalues of zero, which a logarithmic axis has no place for, are left out."""
    traces = [
        go.Scatter(
            x=np.flatnonzero(values > 0).tolist(),
            y=values[values > 0].tolist(),
            name=style.safe(name),
            mode="lines",
            line={"width": 1.8, "color": style.PALETTE[index % len(style.PALETTE)]},
            hovertemplate="direction %{x}: %{y:.3g}",
        )
        for index, (name, values) in enumerate(lines.items())
    ]
    return style.figure(
        traces,
        height=340,
        showlegend=len(traces) > 1,
        legend=style.legend_above(),
        hovermode="x unified",
        xaxis={
            "title": {"text": "direction, from the greatest eigenvalue on", "standoff": 8},
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
            "rangemode": "tozero",
        },
        yaxis=style.value_axis("eigenvalue of C", type="log", exponentformat="power"),
    )

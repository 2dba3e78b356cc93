"""Figures of a head's circuits: composition with other heads, singular values, eigenvalues, and W_QK by distance."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style

_WORDS = {"q": "queries", "k": "keys", "v": "values"}


def partner_map(
    values: Float[np.ndarray, "layer head"],
    z: Float[np.ndarray, "layer head"],
    head: str,
    through: str,
    *,
    reads: bool = True,
) -> go.Figure:
    """How much a head composes with every other: layers upwards, heads from left to right; blank where it cannot.

    ``z`` stands in the hover: standard deviations above the rotation null.
    """
    layers, heads = values.shape
    which = (
        f"what {head} reads through its {_WORDS[through]}" if reads else f"{head} read through later {_WORDS[through]}"
    )
    trace = go.Heatmap(
        z=values,
        zmin=0.0,
        colorscale=style.SEQUENTIAL,
        colorbar={
            "title": {"text": f"{through.upper()}-composition", "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
        },
        xgap=1,
        ygap=1,
        customdata=z,
        hovertext=[[f"<b>L{layer}H{number}</b>" for number in range(heads)] for layer in range(layers)],
        hovertemplate=f"%{{hovertext}}, {style.safe(which)}: %{{z:.3f}} (%{{customdata:+.1f}} sd)<extra></extra>",
        hoverongaps=False,
    )
    return style.figure(
        [trace],
        height=110 + 15 * max(layers, 8),
        xaxis=style.index_axis([str(number) for number in range(heads)], title="head", automargin=True),
        yaxis=style.index_axis([str(layer) for layer in range(layers)], title="layer", automargin=True),
    )


def composition_map(
    values: Float[np.ndarray, "reader writer"],
    z: Float[np.ndarray, "reader writer"],
    readers: Sequence[str],
    writers: Sequence[str],
    through: str,
) -> go.Figure:
    """Every reader (upwards) with every writer (to the right)."""
    trace = go.Heatmap(
        z=values,
        zmin=0.0,
        colorscale=style.SEQUENTIAL,
        colorbar={
            "title": {"text": f"{through.upper()}-composition", "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
        },
        customdata=z,
        hovertext=[[f"<b>{reader}</b> reads <b>{writer}</b>" for writer in writers] for reader in readers],
        hovertemplate="%{hovertext}: %{z:.3f} (%{customdata:+.1f} sd)<extra></extra>",
        hoverongaps=False,
    )
    return style.figure(
        [trace],
        height=160 + 8 * min(max(len(readers), 12), 80),
        xaxis=style.index_axis(writers, title="writing head", tickangle=-60, automargin=True),
        yaxis=style.index_axis(readers, title="reading head", automargin=True),
    )


def singular_value_lines(series: Mapping[str, Float[np.ndarray, "direction"]]) -> go.Figure:
    """The singular values of each circuit, strongest first, as shares of the strongest."""
    traces = [
        go.Scatter(
            x=list(range(len(values))),
            y=values / values[0] if values[0] > 0 else values,
            name=style.safe(name),
            customdata=values,
            mode="lines+markers",
            line={"width": 2, "color": style.PALETTE[index % len(style.PALETTE)]},
            marker={"size": 4},
            hovertemplate="%{customdata:.4~g}",
        )
        for index, (name, values) in enumerate(series.items())
    ]
    return style.figure(
        traces,
        height=300,
        xaxis=style.value_axis("direction, strongest first"),
        yaxis=style.value_axis("singular value / greatest", rangemode="tozero"),
        showlegend=True,
        legend=style.legend_above(),
        hovermode="x unified",
    )


def eigenvalue_plane(real: Float[np.ndarray, "d_head"], imag: Float[np.ndarray, "d_head"]) -> go.Figure:
    """Eigenvalues in the complex plane: to the right of zero copying, to the left suppressing."""
    largest = float(np.hypot(real, imag).max(initial=0.0))
    limit = 1.08 * largest if largest > 0 else 1.0
    trace = go.Scatter(
        x=real,
        y=imag,
        mode="markers",
        marker={"size": 7, "color": np.where(real >= 0, style.BLUE, style.ORANGE).tolist(), "line": {"width": 0}},
        hovertemplate="%{x:.4~g} %{y:+.4~g}i<extra></extra>",
    )
    zero = {"zeroline": True, "zerolinecolor": "rgba(128,128,128,0.6)", "range": [-limit, limit]}
    return style.figure(
        [trace],
        height=340,
        xaxis=style.value_axis("real part", **zero),
        yaxis=style.value_axis("imaginary part", **zero),
    )


def distance_lines(directions: Float[np.ndarray, "distance direction"], distances: Sequence[int]) -> go.Figure:
    """How each leading direction of W_QK scores as the key moves away from the query, as a share of its score at distance 0."""
    start = np.abs(directions[:1]) if distances and distances[0] == 0 else np.abs(directions).max(0, keepdims=True)
    shares = directions / np.where(start > 0, start, 1.0)
    traces = [
        go.Scatter(
            x=list(distances),
            y=shares[:, index],
            name=f"direction {index}",
            customdata=directions[:, index],
            mode="lines+markers",
            line={"width": 2, "color": style.PALETTE[index % len(style.PALETTE)]},
            marker={"size": 5},
            hovertemplate="%{y:.3f} (%{customdata:.4~g})",
        )
        for index in range(directions.shape[1])
    ]
    return style.figure(
        traces,
        height=300,
        xaxis=style.value_axis("positions from query back to key"),
        yaxis=style.value_axis("score / score at distance 0", zeroline=True, zerolinecolor="rgba(128,128,128,0.6)"),
        showlegend=True,
        legend=style.legend_above(),
        hovermode="x unified",
    )

"""Attribution patching: estimated against exact changes in the cells that were checked."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from interp.figures import style


def agreement_plot(
    estimated: Float[np.ndarray, " row"],
    exact: Float[np.ndarray, " row"],
    names: Sequence[str],
    sites: Sequence[str],
    *,
    unit: str,
) -> go.Figure:
    """A dot for each cell, a colour for each site; on the line the estimate is exact. ``names`` say what each cell is."""
    kinds = list(dict.fromkeys(sites))
    known = np.concatenate([estimated, exact])
    known = known[np.isfinite(known)]
    ends = [float(known.min()), float(known.max())] if known.size else [0.0, 1.0]
    line = go.Scatter(
        x=ends,
        y=ends,
        mode="lines",
        line={"width": 1, "color": style.GREY, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    dots = [_dots(estimated, exact, names, [site == kind for site in sites], kind, i) for i, kind in enumerate(kinds)]
    suffix = f", {unit}" if unit else ""
    return style.figure(
        [line, *dots],
        height=380,
        xaxis=style.value_axis(f"exact change{suffix}"),
        yaxis=style.value_axis(f"estimated change{suffix}"),
        showlegend=len(kinds) > 1,
        legend=style.legend_above(),
    )


def _dots(
    estimated: Float[np.ndarray, " row"],
    exact: Float[np.ndarray, " row"],
    names: Sequence[str],
    own: Sequence[bool],
    kind: str,
    index: int,
) -> go.Scatter:
    chosen = np.array(own, dtype=bool)
    return go.Scatter(
        x=exact[chosen],
        y=estimated[chosen],
        mode="markers",
        name=style.safe(kind),
        marker={"size": 6, "color": style.PALETTE[index % len(style.PALETTE)], "opacity": 0.75},
        hovertext=[f"<b>{style.safe(name)}</b>" for name, one in zip(names, own, strict=True) if one],
        hovertemplate="%{hovertext}<br>exact %{x:+.4g}<br>estimated %{y:+.4g}<extra></extra>",
    )

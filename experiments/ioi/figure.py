"""The figure: the exact effects as a map of heads, and each estimate against them."""

from typing import Any

import plotly.graph_objects as go

from experiments.ioi.heads import Heads, Swept
from interp.figures import style

_LABELLED = 4
_DOMAINS = ([0, 0.27], [0.41, 0.67], [0.74, 1])


def heads_figure(found: Heads) -> go.Figure:
    """Left the exact sweep, [layer head]; then the estimate by the gradient and by integrated gradients against it, a point a head."""
    exact = found.exact.values
    limit = float(exact.abs().max())
    names = [[f"L{layer}H{head}" for head in range(exact.shape[1])] for layer in range(exact.shape[0])]
    traces: list[Any] = [
        go.Heatmap(
            z=exact.numpy(),
            zmin=-limit,
            zmax=limit,
            colorscale=style.DIVERGING,
            reversescale=True,
            text=names,
            hovertemplate="%{text}: %{z:.3f}<extra></extra>",
            colorbar={"thickness": 12, "x": 0.28, "tickformat": ".2f"},
        )
    ]
    layout: dict[str, Any] = {
        "xaxis": style.index_axis([str(head) for head in range(exact.shape[1])], title="head", domain=_DOMAINS[0]),
        "yaxis": style.value_axis("layer", range=[-0.5, exact.shape[0] - 0.5]),
    }
    both = [swept.values.abs().max() for swept in (found.exact, found.gradient, found.integrated)]
    span = 1.25 * float(max(both))
    notes = [_title("exact effect of each head", _DOMAINS[0])]
    for number, swept in enumerate((found.gradient, found.integrated), 2):
        traces += _points(found.exact, swept, str(number))
        axis = {"range": [-span, span]}
        domain = _DOMAINS[number - 1]
        layout[f"xaxis{number}"] = style.value_axis("exact effect", domain=domain, anchor=f"y{number}", **axis)
        layout[f"yaxis{number}"] = style.value_axis("estimate" if number == 2 else "", anchor=f"x{number}", **axis)
        notes.append(_title(f"{swept.name}: rank correlation {found.correlation(swept):.2f}", domain))
    return style.figure(traces, height=470, annotations=notes, margin={"l": 60, "r": 16, "t": 40, "b": 60}, **layout)


def _points(exact: Swept, swept: Swept, axis: str) -> list[go.Scatter]:
    """A point for each head, the strongest with their names, and the line on which an exact estimate would lie."""
    strongest = {(head.layer, head.head) for head in exact.top(_LABELLED)}
    n_layers, n_heads = exact.values.shape
    cells = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    names = [f"L{layer}H{head}" for layer, head in cells]
    span = float(exact.values.abs().max())
    place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    return [
        go.Scatter(
            x=[-span, span],
            y=[-span, span],
            mode="lines",
            line={"color": style.GREY, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            **place,
        ),
        go.Scatter(
            x=[float(exact.values[cell]) for cell in cells],
            y=[float(swept.values[cell]) for cell in cells],
            mode="markers+text",
            marker={"color": style.BLUE, "size": 6, "opacity": 0.7},
            text=[name if cell in strongest else "" for name, cell in zip(names, cells, strict=True)],
            textposition="top center",
            textfont={"size": 10},
            hovertext=names,
            hovertemplate="%{hovertext}: exact %{x:.3f}, estimate %{y:.3f}<extra></extra>",
            **place,
        ),
    ]


def _title(text: str, domain: list[float]) -> dict[str, Any]:
    place = {
        "x": sum(domain) / 2,
        "y": 1.02,
        "xref": "paper",
        "yref": "paper",
        "yanchor": "bottom",
        "xanchor": "center",
    }
    return {"text": f"<b>{text}</b>", "showarrow": False} | place

"""A figure of what a model is made of."""

from collections.abc import Mapping

import plotly.graph_objects as go

from interp.figures import style


def part_bars(parameters: Mapping[str, int]) -> go.Figure:
    """One bar for each part of a model, as long as it has parameters; the first on top."""
    labels = list(parameters)
    total = sum(parameters.values()) or 1
    trace = go.Bar(
        x=list(parameters.values()),
        y=list(range(len(labels))),
        orientation="h",
        text=[_share(count / total) for count in parameters.values()],
        textposition="auto",
        marker={"color": style.BLUE, "line": {"width": 0}},
        hovertemplate="%{x:,} parameters<extra></extra>",
    )
    return style.figure(
        [trace],
        height=100 + 28 * max(len(labels), 3),
        bargap=0.25,
        xaxis=style.value_axis("parameters", rangemode="tozero"),
        yaxis=style.index_axis(labels, automargin=True, range=[len(labels) - 0.5, -0.5]),
    )


def _share(part: float) -> str:
    return f"{part:.1%}" if part >= 0.001 else f"{100 * part:.2g}%"

"""The figure: agreement along the depth with what chance gives, KL, and how many tokens of each group are settled."""

from typing import Any

import plotly.graph_objects as go

from experiments.lens_depth.statistics import Depths
from interp.figures import style
from interp.maths.estimates import Estimates

_DOMAINS = ([0, 0.28], [0.37, 0.62], [0.71, 1])
_CHANNELS = {
    style.BLUE: "11,120,181",
    style.ORANGE: "217,115,13",
    style.GREEN: "10,147,112",
    style.PURPLE: "176,96,154",
    style.GREY: "138,143,152",
}
_GROUPS = (("sure", style.BLUE), ("unsure", style.ORANGE), ("frequent", style.GREEN), ("rare", style.PURPLE))


def depth_figure(found: Depths) -> go.Figure:
    """Three panels over the blocks read, each line on a band of its 95 % interval over texts."""
    traces: list[Any] = [
        *_line(found.agrees, "the final token first", style.BLUE, "", 100),
        *_line(found.agrees_elsewhere, "that of another position", style.GREY, "", 100),
        *_line(found.kl_nats, "KL to the final", style.ORANGE, "2"),
        *_line(found.entropy_nats, "entropy", style.GREEN, "2"),
    ]
    for name, colour in _GROUPS:
        traces += _line(found.settled[name], name, colour, "3", 100)
    titles = ("the lens's first token is ... (%)", "nats", "settled for good (%)")
    layout: dict[str, Any] = {}
    notes = []
    for number, (domain, title) in enumerate(zip(_DOMAINS, titles, strict=True), 1):
        axis = "" if number == 1 else str(number)
        layout[f"legend{axis}"] = style.legend_above() | {"x": domain[0], "xanchor": "left"}
        layout[f"xaxis{axis}"] = style.value_axis("blocks read", domain=domain, anchor=f"y{axis}")
        layout[f"yaxis{axis}"] = style.value_axis("", anchor=f"x{axis}", rangemode="tozero")
        notes.append(
            {
                "text": f"<b>{title}</b>", "x": sum(domain) / 2, "y": 1.12, "xref": "paper", "yref": "paper", "xanchor": "center",
                "yanchor": "bottom", "showarrow": False,
            }
        )  # fmt: skip
    return style.figure(
        traces, height=420, showlegend=True, annotations=notes,
        margin={"l": 50, "r": 16, "t": 80, "b": 60}, **layout,
    )  # fmt: skip


def _line(one: Estimates, name: str, colour: str, axis: str, scale: float = 1.0) -> list[go.Scatter]:
    where = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "mode": "lines", "legendgroup": name}
    depth = list(range(len(one.value)))
    value, lower, upper = ((scale * part).tolist() for part in (one.value, one.lower, one.upper))
    return [
        go.Scatter(
            x=[*depth, *reversed(depth)], y=[*upper, *reversed(lower)], fill="toself", fillcolor=f"rgba({_CHANNELS[colour]},0.2)",
            line={"width": 0}, hoverinfo="skip", showlegend=False, **where,
        ),
        go.Scatter(
            x=depth, y=value, name=name, line={"color": colour, "width": 2.5},
            legend=f"legend{axis}", hovertemplate=f"{name}: %{{y:.2f}} after %{{x}} blocks<extra></extra>", **where,
        ),
    ]  # fmt: skip

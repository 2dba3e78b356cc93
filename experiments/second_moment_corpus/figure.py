"""The figure: for each second moment how its scores differ from the default's, with their intervals."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from experiments.second_moment_corpus.moments import DEFAULT
from experiments.second_moment_corpus.scores import Scored
from interp.figures import style

_PANELS = (
    ("paraphrase_score", "PS, points"),
    ("neighbourhood_score", "NS, points"),
    ("neighbours_kept", "neighbours kept, points"),
    ("neighbour_kl", "KL on neighbours, nats"),
)
_GAP = 0.05


def corpus_figure(scored: Mapping[str, Scored]) -> go.Figure:
    """A panel a score: the mean difference over facts with its 95 % interval; the line is the default."""
    others = [one for one in scored.values() if one.name != DEFAULT]
    panels = [panel for panel in _PANELS if panel[0] in scored[DEFAULT].samples]
    width = (1 - _GAP * (len(panels) - 1)) / len(panels)
    traces: list[Any] = []
    layout: dict[str, Any] = {}
    rows = list(range(len(others)))
    for number, (name, title) in enumerate(panels):
        axis = "" if number == 0 else str(number + 1)
        domain = [number * (width + _GAP), number * (width + _GAP) + width]
        found = [one.less(scored[DEFAULT], name) for one in others]
        traces.append(
            go.Scatter(
                x=[one.value for one in found], y=rows, mode="markers", xaxis=f"x{axis}", yaxis=f"y{axis}",
                marker={"color": style.PALETTE[number], "size": 9},
                error_x={
                    "type": "data", "symmetric": False, "array": [one.upper - one.value for one in found],
                    "arrayminus": [one.value - one.lower for one in found], "color": style.PALETTE[number],
                },
                hovertemplate=f"{title}: %{{x:+.3g}}<extra></extra>",
            )
        )  # fmt: skip
        layout[f"xaxis{axis}"] = style.value_axis(title, domain=domain, anchor=f"y{axis}") | {
            "zeroline": True, "zerolinecolor": style.GREY,
        }  # fmt: skip
        names = [one.name if number == 0 else "" for one in others]
        layout[f"yaxis{axis}"] = style.index_axis(names, anchor=f"x{axis}", range=[len(others) - 0.5, -0.5]) | {
            "ticktext": [style.safe(name) for name in names]
        }
    return style.figure(traces, height=380, margin={"l": 190, "r": 16, "t": 20, "b": 60}, **layout)

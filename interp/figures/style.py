"""What all figures share: palette, colour scales, safe labels, axes of tokens and layers, a layout without global state.

Plotly reads the text it shows as pseudo-HTML and merges equal entries of a categorical axis. So every label passes through ``safe``
and sits at an integer position.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito's colours, a little darker where they vanish on white: told apart by colour-blind readers, on white and on black.
BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0b78b5", "#d9730d", "#0a9370", "#b0609a", "#4aa3df", "#8a8f98"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, GREY)

SEQUENTIAL = "Viridis"
SEQUENTIAL_REVERSED = "Viridis_r"
DIVERGING = "RdBu"

_MAX_TICKS = 48
_LABEL_LENGTH = 14


def safe(text: str) -> str:
    """``text`` as Plotly shows it literally."""
    return escape(text, quote=False)


def short(text: str, length: int = _LABEL_LENGTH) -> str:
    """``text`` cut to ``length`` characters, with an ellipsis in place of the rest, as Plotly shows it literally."""
    return safe(text if len(text) <= length else text[: length - 1] + "…")


def index_axis(labels: Sequence[str], *, title: str | None = None, **options: Any) -> dict[str, Any]:
    """An axis with one integer position for each label; labels are thinned out where they would overlap."""
    step = -(-len(labels) // _MAX_TICKS) if labels else 1
    shown = list(range(0, len(labels), step))
    axis: dict[str, Any] = {
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": [short(labels[index]) for index in shown],
        "range": [-0.5, len(labels) - 0.5],
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
    }
    if title is not None:
        axis["title"] = {"text": safe(title), "standoff": 8}
    return axis | options


def figure(traces: Sequence[Any], *, height: int, **layout: Any) -> go.Figure:
    """A figure on a transparent ground that ignores whatever default template is set."""
    shared: dict[str, Any] = {
        "template": {},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12},
        "margin": {"l": 8, "r": 8, "t": 32, "b": 8},
        "height": height,
        "hoverlabel": {"align": "left", "font": {"size": 12}},
        "colorway": list(PALETTE),
        "showlegend": False,
    }
    return go.Figure(data=list(traces), layout=shared | layout)


def value_axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis of numbers with light grid lines; its title names the unit."""
    axis = {
        "title": {"text": safe(title), "standoff": 10},
        "gridcolor": "rgba(128,128,128,0.22)",
        "zeroline": False,
        "automargin": True,
    }
    return axis | options


def legend_above() -> dict[str, Any]:
    """A legend in one line above the plot."""
    return {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}

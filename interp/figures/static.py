"""A plotly figure as inert SVG: no script, no request, nothing that text could turn into markup.

It draws what this package's figures are made of (heatmaps, bars, lines) on their axes, for places where no script runs: a notebook that is
not trusted, a mail, a printed page. What it cannot draw it leaves to the figure itself.
"""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from interp.figures.static_axes import WIDTH, Panel, axes, panel_of, svg_text
from interp.figures.static_traces import DRAWERS, legend

_MOST_HEIGHT = 560.0


def static(figure: go.Figure) -> str:
    """The figure as one ``<svg>`` element; "" where it holds a kind of trace that cannot be drawn so."""
    traces: list[Any] = list(figure.data)
    if not traces or any(trace.type not in DRAWERS for trace in traces):
        return ""
    layout = figure.layout.to_plotly_json()
    height = min(float(layout.get("height", 400)), _MOST_HEIGHT)
    parts, panels = [], {}
    for trace in traces:
        key = (trace.xaxis or "x", trace.yaxis or "y")
        if key not in panels:
            same = [one for one in traces if (one.xaxis or "x", one.yaxis or "y") == key]
            x, y = _axis_layouts(layout, key)
            panels[key] = panel_of(x, y, same, height)
            parts.append(axes(panels[key], x, y))
    bars = [trace for trace in traces if trace.type == "bar"]
    for trace in traces:
        panel = panels[(trace.xaxis or "x", trace.yaxis or "y")]
        parts.append(DRAWERS[trace.type](trace, panel, bars))
    parts += [_annotation(one, next(iter(panels.values()))) for one in layout.get("annotations", [])]
    caption, extra = legend(traces, height)
    style = "max-width:100%;height:auto;font:11px system-ui,sans-serif"
    size = f'width="{WIDTH}" height="{height + extra:.0f}" viewBox="0 0 {WIDTH} {height + extra:.0f}"'
    return f'<svg {size} style="{style}" fill="currentColor" role="img">{"".join(parts)}{caption}</svg>'


def _axis_layouts(layout: Mapping[str, Any], key: tuple[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    x, y = (layout.get(f"{name[0]}axis{name[1:]}", {}) for name in key)
    return x, y


def _annotation(one: Mapping[str, Any], panel: Panel) -> str:
    """A heading over a column; other notes are left out."""
    if one.get("yref") != "paper" or one.get("xref") == "paper" or one.get("x") is None:
        return ""
    at, _ = panel.at(float(one["x"]), panel.y[0])
    place = f'x="{at:.1f}" y="{panel.box[1] - 6:.1f}" text-anchor="middle"'
    return f'<text {place} font-weight="600">{svg_text(one.get("text", ""), 44)}</text>'

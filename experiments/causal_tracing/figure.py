"""The figure: average indirect effects over places and layers as maps, and along the layers at two places."""

from typing import Any

import plotly.graph_objects as go

from experiments.causal_tracing.averages import Averages
from interp.figures import style
from interp.maths.estimates import Estimates
from interp.maths.tracing import LAST, LAST_SUBJECT, PLACES

_GAP = 0.05
_TITLES = {"resid": "residual stream", "mlp": "MLPs", "attn": "attention"}
_LINES = ((LAST_SUBJECT, style.ORANGE, "217,115,13"), (LAST, style.BLUE, "11,120,181"))


def averages_figure(found: Averages, window: int) -> go.Figure:
    """One column for each kind: the map of Meng et al.'s figure 2 above, and below it two places with their 95 % intervals."""
    traces: list[Any] = []
    layout: dict[str, Any] = {"margin": {"l": 170, "r": 70, "t": 40, "b": 90}}
    layout["legend"] = {"orientation": "h", "x": 0, "y": -0.14}
    notes = []
    width = (1 - _GAP * (len(found.effects) - 1)) / len(found.effects)
    most = max(float(effects.value.nan_to_num().abs().max()) for effects in found.effects.values())
    highest = max(float(effects.upper.nan_to_num().max()) for effects in found.effects.values())
    lowest = min(float(effects.lower.nan_to_num().min()) for effects in found.effects.values())
    for column, (kind, effects) in enumerate(found.effects.items()):
        upper, lower = ("" if column == 0 else f"{2 * column + 1}"), f"{2 * column + 2}"
        domain = [column * (width + _GAP), column * (width + _GAP) + width]
        traces.append(_map(effects, upper, most, shown=column == 0))
        traces += [line for place in _LINES for line in _line(effects, place, lower, named=column == 0)]
        layout[f"xaxis{upper}"] = style.value_axis(
            "", domain=domain, anchor=f"y{upper}", showticklabels=False, ticks="", showgrid=False
        )
        layout[f"yaxis{upper}"] = style.index_axis(
            [place if column == 0 else "" for place in PLACES],
            domain=[0.5, 1],
            anchor=f"x{upper}",
            range=[len(PLACES) - 0.5, -0.5],
        ) | {"ticktext": list(PLACES) if column == 0 else [""] * len(PLACES)}
        windowed = "" if kind == "resid" else f", window of {window}"
        layout[f"xaxis{lower}"] = style.value_axis(f"layer{windowed}", domain=domain, anchor=f"y{lower}")
        layout[f"yaxis{lower}"] = style.value_axis(
            "average indirect effect" if column == 0 else "",
            domain=[0, 0.45],
            anchor=f"x{lower}",
            range=[lowest - 0.02, highest + 0.02],
        )
        notes.append(
            {
                "text": f"<b>{_TITLES.get(kind, style.safe(kind))}</b>",
                "x": sum(domain) / 2,
                "y": 1.02,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "center",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    return style.figure(traces, height=560, showlegend=True, annotations=notes, **layout)


def _map(effects: Estimates, axis: str, most: float, *, shown: bool) -> go.Heatmap:
    return go.Heatmap(
        z=effects.value.numpy(),
        zmin=-most,
        zmax=most,
        colorscale=style.DIVERGING,
        reversescale=True,
        showscale=shown,
        colorbar={"len": 0.5, "y": 0.75, "thickness": 12, "x": 1.01},
        customdata=[
            [
                [place, *bounds]
                for bounds in zip(
                    *(part[row].tolist() for part in (effects.lower, effects.upper, effects.n)), strict=True
                )
            ]
            for row, place in enumerate(PLACES)
        ],
        hovertemplate="%{customdata[0]}, layer %{x}<br>%{z:.3f} (%{customdata[1]:.3f} to %{customdata[2]:.3f}), "
        "%{customdata[3]} facts<extra></extra>",
        xaxis=f"x{axis}",
        yaxis=f"y{axis}",
    )


def _line(effects: Estimates, place: tuple[str, str, str], axis: str, *, named: bool) -> list[go.Scatter]:
    """The mean over facts at one place, on a band of its interval."""
    name, colour, channels = place
    row = PLACES.index(name)
    layers = list(range(effects.value.shape[1]))
    where = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "mode": "lines", "legendgroup": name}
    lower, upper = effects.lower[row].tolist(), effects.upper[row].tolist()
    band = go.Scatter(
        x=[*layers, *reversed(layers)],
        y=[*upper, *reversed(lower)],
        fill="toself",
        fillcolor=f"rgba({channels},0.2)",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        **where,
    )
    line = go.Scatter(
        x=layers,
        y=effects.value[row].tolist(),
        name=name,
        line={"color": colour, "width": 2.5},
        showlegend=named,
        **where,
    )
    return [band, line]

"""The figure: losses on first and second copies, stripe and previous-token scores, over the steps of training."""

from collections.abc import Callable, Iterable, Sequence
from statistics import mean
from typing import Any

import plotly.graph_objects as go

from experiments.induction_emergence.measure import Measures
from experiments.induction_emergence.store import Trained
from interp.figures import style

_GAP = 0.08
_TITLES = {1: "one layer", 2: "two layers"}


def emergence_figure(models: Sequence[Trained], changes: Sequence[int], chance: float) -> go.Figure:
    """One column for each number of layers: losses above, scores of the heads below.

    A thin line is a model (or a head of one), a thick one the mean over the models. ``changes`` are the steps of the phase change,
    ``chance`` is the loss in nats of an even guess.
    """
    columns = sorted({trained.layers for trained in models})
    traces: list[Any] = []
    for column, n_layers in enumerate(columns):
        chosen = [trained for trained in models if trained.layers == n_layers]
        losses, scores = _axes(column)
        named = column == 0
        for label, colour, read in _LOSSES:
            traces += _lines([(trained, read) for trained in chosen], losses, label, colour, named, average=True)
        stripes = [(trained, _score("stripe", *cell)) for trained in chosen for cell in _cells(trained)]
        previous = [(trained, _score("previous", 0, head)) for trained in chosen for head in _heads(trained)]
        traces += _lines(previous, scores, "attention to the previous token, heads of layer 0", style.GREEN, named)
        traces += _lines(stripes, scores, "stripe score, all heads", style.PURPLE, named)
    return style.figure(traces, height=560, showlegend=True, **_layout(columns, changes, chance))


def _score(name: str, layer: int, head: int) -> Callable[[Measures], float]:
    return lambda measures: getattr(measures, name)[layer][head]


_LOSSES: tuple[tuple[str, str, Callable[[Measures], float]], ...] = (
    ("loss, first copy", style.GREY, lambda measures: measures.first_loss),
    ("loss, second copy", style.BLUE, lambda measures: measures.second_loss),
)


def _cells(trained: Trained) -> Iterable[tuple[int, int]]:
    return ((layer, head) for layer in range(trained.layers) for head in _heads(trained))


def _heads(trained: Trained) -> range:
    return range(len(trained.curve[0].stripe[0]))


def _lines(
    chosen: Sequence[tuple[Trained, Callable[[Measures], float]]],
    axis: str,
    label: str,
    colour: str,
    named: bool,
    average: bool = False,
) -> list[go.Scatter]:
    """A thin line for each, and the mean of them if asked; one entry in the legend."""
    steps = [measures.step for measures in chosen[0][0].curve]
    rows = [[read(measures) for measures in trained.curve] for trained, read in chosen]
    place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "mode": "lines", "x": steps, "legendgroup": label}
    thin = {"line": {"color": colour, "width": 1.2}, "opacity": 0.6}
    found = [
        go.Scatter(y=row, name=label, showlegend=named and not average and not index, hoverinfo="skip", **place, **thin)
        for index, row in enumerate(rows)
    ]
    if average:
        means = [mean(column) for column in zip(*rows, strict=True)]
        found.append(go.Scatter(y=means, name=label, showlegend=named, line={"color": colour, "width": 2.5}, **place))
    return found


def _layout(columns: Sequence[int], changes: Sequence[int], chance: float) -> dict[str, Any]:
    width = (1 - _GAP * (len(columns) - 1)) / len(columns)
    layout: dict[str, Any] = {
        "legend": {"orientation": "h", "y": -0.12, "x": 0},
        "margin": {"l": 60, "r": 16, "t": 36, "b": 60},
    }
    notes, shapes = [], []
    for column, n_layers in enumerate(columns):
        start = column * (width + _GAP)
        domain = [start, start + width]
        upper, lower = _axes(column)
        layout[f"xaxis{upper}"] = style.value_axis("", domain=domain, anchor=f"y{upper}", showticklabels=False)
        layout[f"xaxis{lower}"] = style.value_axis("training step", domain=domain, anchor=f"y{lower}")
        layout[f"yaxis{upper}"] = style.value_axis(
            "loss (nats a token)" if not column else "", domain=[0.54, 1], anchor=f"x{upper}", range=[0, 4.8]
        )
        layout[f"yaxis{lower}"] = style.value_axis(
            "mean attention" if not column else "", domain=[0, 0.46], anchor=f"x{lower}", range=[0, 1]
        )
        notes.append(_note(f"<b>{_TITLES[n_layers]}</b>", (start + domain[1]) / 2, 1.0, "paper", "paper", "center"))
        notes.append(_note("an even guess", 0.99, chance - 0.4, f"x{upper} domain", f"y{upper}", "right"))
        shapes.append(_rule(f"x{upper} domain", f"y{upper}", x=(0, 1), y=(chance, chance)))
        if n_layers > 1:
            for axis in (upper, lower):
                shapes += [_rule(f"x{axis}", f"y{axis} domain", x=(step, step), y=(0, 1)) for step in changes]
            last = max(changes, default=0)
            notes.append(_note(" phase change", last, 2.2, f"x{upper}", f"y{upper}", "left"))
    return layout | {"annotations": notes, "shapes": shapes}


def _axes(column: int) -> tuple[str, str]:
    """The names of a column's upper and lower axes; plotly calls the first pair of a figure x and y."""
    return "" if column == 0 else f"{2 * column + 1}", f"{2 * column + 2}"


def _note(text: str, x: float, y: float, xref: str, yref: str, xanchor: str) -> dict[str, Any]:
    place = {"x": x, "y": y, "xref": xref, "yref": yref, "xanchor": xanchor, "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "font": {"size": 12}} | place


def _rule(xref: str, yref: str, x: tuple[float, float], y: tuple[float, float]) -> dict[str, Any]:
    line = {"color": style.ORANGE, "width": 1, "dash": "dot"}
    return {"type": "line", "xref": xref, "yref": yref, "x0": x[0], "x1": x[1], "y0": y[0], "y1": y[1], "line": line}

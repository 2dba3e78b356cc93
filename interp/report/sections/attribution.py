"""Direct logit attribution: which parts of the model wrote the answer."""

from typing import Any

import numpy as np

from interp.figures import attribution_bars, attribution_by_layer
from interp.figures.rows import Rows, site_rows
from interp.report.blocks import Axis, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, join, token
from interp.tokens import visible

_LARGEST = 24
_OUTSIDE = {"embed": "embedding", "pos_embed": "position embedding"}
_IN_SENTENCES = {"attn_out": "the attention of layer", "mlp_out": "the MLP of layer"}
_IN_LABELS = {"attn_out": "attention", "mlp_out": "MLP"}


def build(result: Any, prompt: str) -> Section | None:
    """What each component adds to the target's logit at the attributed position: by layer, largest first, and heads if there."""
    rows = site_rows(result.components)
    names = tuple(_label(rows, index) for index in range(len(rows.labels)))
    values = result.contributions.double().numpy()
    piece = visible(result.target_piece)
    lead = (
        "The logit of a token is a sum: everything that was written to the [[residual stream]] at this position adds its own "
        "part. [[Direct logit attribution]] splits the logit into these parts. Bars above zero speak for the token, bars "
        "below speak against it; all of them add up to the logit."
    )
    blocks = [_picture(rows, names, values, prompt), _sums(result, rows, values, piece)]
    return Section(
        name="attribution",
        title="Direct logit attribution",
        label="Attribution",
        lead=lead,
        place=50,
        blocks=blocks,
        findings=_findings(result, rows, values),
    )


def _label(rows: Rows, index: int) -> str:
    layer, kind = rows.layers[index], rows.kinds[index]
    return _OUTSIDE.get(kind, rows.labels[index]) if layer is None else f"{_IN_LABELS.get(kind, kind)} {layer}"


def _picture(rows: Rows, names: tuple[str, ...], values: np.ndarray, prompt: str) -> Picture:
    order = np.argsort(-np.abs(values), kind="stable")[:_LARGEST]
    largest = attribution_bars(values[order], [names[index] for index in order])
    versions = {"Largest first": Version(figure=largest)}
    layers = sorted({layer for layer in rows.layers if layer is not None})
    if layers:
        series = {}
        for kind in dict.fromkeys(
            kind for kind, layer in zip(rows.kinds, rows.layers, strict=True) if layer is not None
        ):
            line = np.zeros(len(layers))
            for value, other, layer in zip(values, rows.kinds, rows.layers, strict=True):
                if other == kind and layer is not None:
                    line[layers.index(layer)] += value
            series[_IN_LABELS.get(kind, kind)] = line
        labels = tuple(str(layer) for layer in layers)
        axis = Axis(of="layer", layers=tuple(layers), labels=labels)
        versions = {"By layer": Version(figure=attribution_by_layer(series, labels), x=axis)} | versions
    return Picture(
        versions=versions,
        caption=f"Parts of the logit. “Largest first” shows up to {_LARGEST} of {len(values)} components.",
        prompt=prompt,
    )


def _sums(result: Any, rows: Rows, values: np.ndarray, piece: str) -> Table:
    """The sums by kind of component, ending in the logit."""
    groups: dict[str, float] = {}
    for index, value in enumerate(values):
        kind = rows.kinds[index]
        name = _label(rows, index) if rows.layers[index] is None else f"{_IN_LABELS.get(kind, kind)}, all layers"
        groups[name] = groups.get(name, 0.0) + float(value)
    lines: list[list[Child]] = [[name, _signed(value)] for name, value in groups.items()]
    lines.append(["sum of all components", _signed(float(result.total))])
    lines.append(["logit of the model", _signed(float(result.logit))])
    return Table(
        columns=("part", "logit"), rows=lines, numeric=frozenset({1}), caption=f"The parts of the logit of {piece}"
    )


def _signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")  # noqa: RUF001 - a minus sign is as wide as a plus


def _findings(result: Any, rows: Rows, values: np.ndarray) -> tuple[Finding, ...]:
    best = int(np.argmax(values))
    layer, kind = rows.layers[best], rows.kinds[best]
    who = f"the {_label(rows, best)}" if layer is None else f"{_IN_SENTENCES.get(kind, kind)} {layer}"
    text = join(
        [
            f"Of all components {who} adds most to the logit of ",
            token(result.target_piece),
            f": {_signed(float(values[best]), 2)} of {float(result.logit):.2f}.",
        ]
    )
    return (Finding(text=text, rank=30),)

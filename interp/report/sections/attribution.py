"""Direct logit attribution: which parts of the model wrote the answer."""

from typing import Any

import numpy as np

from interp.figures import attribution_bars, attribution_by_layer, attribution_heads
from interp.figures.rows import Rows, site_rows
from interp.report.blocks import Axis, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, Html, join, token
from interp.report.sections.numbers import signed

_LARGEST = 24
_OUTSIDE = {
    "embed": "embedding",
    "ln_final.bias": "final norm's bias",
    "unembed.bias": "unembedding's bias",
}
_IN_SENTENCES = {"attn_out": "the attention of layer", "mlp_out": "the MLP of layer"}
_IN_LABELS = {"attn_out": "attention", "mlp_out": "MLP"}


def build(result: Any, prompt: str) -> Section | None:
    """What each component adds to the logit at the attributed position: by layer, largest first, and by head if there."""
    rows = site_rows(result.components)
    values = result.contributions.double().numpy()
    lead = (
        "The logit of a token is a sum: everything that was written to the [[residual stream]] at this position adds its own "
        "part. [[Direct logit attribution]] splits the logit into these parts. Bars above zero speak for the token, bars "
        "below speak against it."
    )
    if result.against_id is not None:
        lead += " Here it is the difference between two logits that is split."
    return Section(
        name="attribution",
        title="Direct logit attribution",
        label="Attribution",
        lead=lead,
        place=50,
        blocks=(_picture(result, rows, values, prompt), _sums(result, rows, values)),
        findings=_findings(result, rows, values),
    )


def _what(result: Any) -> Html:
    """The logit, or the difference of two, in words."""
    after = [" after ", token(result.tokens.pieces[result.position]), f" (position {result.position})"]
    if result.against_id is None:
        return join(["the logit of ", token(result.target_piece), *after])
    return join(["the logit of ", token(result.target_piece), " less that of ", token(result.against_piece), *after])


def _label(rows: Rows, index: int) -> str:
    layer, kind = rows.layers[index], rows.kinds[index]
    return _OUTSIDE.get(kind, kind) if layer is None else f"{_IN_LABELS.get(kind, kind)} {layer}"


def _picture(result: Any, rows: Rows, values: np.ndarray, prompt: str) -> Picture:
    order = np.argsort(-np.abs(values), kind="stable")[:_LARGEST]
    unit = "contribution to the logit" if result.against_id is None else "contribution to the logit difference"
    largest = attribution_bars(values[order], [_label(rows, int(index)) for index in order], unit=unit)
    places = Axis(
        of="layer",
        layers=tuple(rows.layers[int(index)] for index in order),
        labels=tuple(_label(rows, int(index)) for index in order),
    )
    versions = _by_layer(rows, values, unit) | {"Largest first": Version(figure=largest, x=places)}
    if result.heads is not None:
        layers = tuple(range(result.heads.shape[0]))
        axis = Axis(of="layer", layers=layers, labels=tuple(str(layer) for layer in layers))
        heads = Axis(of="head", heads=tuple(range(result.heads.shape[1])))
        versions["Heads"] = Version(figure=attribution_heads(result.heads.double().numpy()), x=heads, y=axis)
    return Picture(
        versions=versions,
        caption=f"Parts of the logit. “Largest first” shows up to {_LARGEST} of {len(values)} components.",
        prompt=prompt,
    )


def _by_layer(rows: Rows, values: np.ndarray, unit: str) -> dict[str, Version]:
    """Bars for each layer; empty where no component belongs to a layer."""
    layers = sorted({layer for layer in rows.layers if layer is not None})
    if not layers:
        return {}
    series: dict[str, np.ndarray] = {}
    for value, kind, layer in zip(values, rows.kinds, rows.layers, strict=True):
        if layer is not None:
            series.setdefault(_IN_LABELS.get(kind, kind), np.zeros(len(layers)))[layers.index(layer)] += value
    labels = tuple(str(layer) for layer in layers)
    axis = Axis(of="layer", layers=tuple(layers), labels=labels)
    return {"By layer": Version(figure=attribution_by_layer(series, labels, unit=unit), x=axis)}


def _sums(result: Any, rows: Rows, values: np.ndarray) -> Table:
    """The sums by kind of component, ending in the model's logit."""
    groups: dict[str, float] = {}
    for index, value in enumerate(values):
        kind = rows.kinds[index]
        name = _label(rows, index) if rows.layers[index] is None else f"{_IN_LABELS.get(kind, kind)}, all layers"
        groups[name] = groups.get(name, 0.0) + float(value)
    lines: list[list[Child]] = [[name, signed(value)] for name, value in groups.items()]
    lines.append(["sum of all components", signed(result.total)])
    ending = (
        "the model's own" if result.softcap is None else f"the model's own, after its softcap of {result.softcap:g}"
    )
    lines.append([ending, signed(result.model_logit)])
    caption = join(["What makes up ", _what(result)])
    return Table(columns=("part", "logit"), rows=lines, numeric=frozenset({1}), caption=caption)


def _findings(result: Any, rows: Rows, values: np.ndarray) -> tuple[Finding, ...]:
    best = int(np.argmax(values))
    layer, kind = rows.layers[best], rows.kinds[best]
    who = f"the {_label(rows, best)}" if layer is None else f"{_IN_SENTENCES.get(kind, kind)} {layer}"
    text = join([f"Of all components {who} adds most to ", _what(result)])
    figures = f": {signed(float(values[best]), 2)} of {result.total:.2f}."
    value = float(values[best])
    share = min(1.0, abs(value / result.total)) if result.total else 0.0
    return (Finding(text=join([text, figures]), rank=Evidence.READ, strength=share, value=value, unit="logits"),)

"""The residual story: what attention and the MLP of each layer write to the stream."""

from typing import Any

import numpy as np

from interp.figures import story_heatmap, story_lines
from interp.report.arrays import Words
from interp.report.blocks import Axis, Cells, Evidence, Finding, Line, LinkedTable, Picture, Section, Version
from interp.report.markup import join, token
from interp.report.sections.numbers import brief
from interp.tokens import visible

_ROOM = 50_000
"""How many pushed tokens a page of 1 MB has room for: they are what a long prompt has most of."""
_MAPS = {
    "Stream: norm": ("stream_norm", "norm of the stream"),
    "Attention: norm": ("attn_norm", "norm of what attention wrote"),
    "MLP: norm": ("mlp_norm", "norm of what the MLP wrote"),
    "Stream: cosine to the end": ("stream_cos_final", "cosine of the stream with its final state"),
    "Attention: cosine to the stream": ("attn_cos_stream", "cosine of attention's update with the stream"),
    "MLP: cosine to the stream": ("mlp_cos_stream", "cosine of the MLP's update with the stream"),
    "Attention: cosine to the end": ("attn_cos_final", "cosine of attention's update with the final state"),
    "MLP: cosine to the end": ("mlp_cos_final", "cosine of the MLP's update with the final state"),
}
_LINES = {
    "Norms": ({"stream": "stream_norm", "attention": "attn_norm", "MLP": "mlp_norm"}, "norm (log scale)"),
    "Cosine to the end": (
        {"stream": "stream_cos_final", "attention": "attn_cos_final", "MLP": "mlp_cos_final"},
        "cosine with the final state",
    ),
    "Cosine to the stream": ({"attention": "attn_cos_stream", "MLP": "mlp_cos_stream"}, "cosine with the stream"),
}


def build(result: Any, prompt: str) -> Section | None:
    """Maps over layers and tokens, lines for the selected token, and the tokens each update pushes up and down."""
    lead = (
        "Each layer reads the [[residual stream]] and adds two vectors to it: [[attention]] brings information from earlier "
        "tokens, the [[MLP]] computes within one token. The maps show how long these vectors are and where they point; "
        "the last layer is on top. A [[cosine]] near 1 with the final state means the update points where the stream ends up."
    )
    return Section(
        name="story",
        title="The residual stream, layer by layer",
        label="Residual stream",
        lead=lead,
        place=30,
        blocks=(_maps(result, prompt), _lines(result, prompt), _pushed(result, prompt)),
        findings=_findings(result),
    )


def _array(result: Any, name: str) -> np.ndarray:
    """A quantity over layers and positions; cosines keep two decimals, which is as much as their colour and line can show."""
    values = getattr(result, name).double().numpy()
    return np.round(values, 2) if "_cos_" in name else values


def _layers(result: Any) -> tuple[int, ...]:
    return tuple(range(result.stream_norm.shape[0]))


def _layer_axis(result: Any) -> Axis:
    layers = _layers(result)
    return Axis(of="layer", layers=layers, labels=tuple(str(layer) for layer in layers))


def _maps(result: Any, prompt: str) -> Picture:
    rows = [str(layer) for layer in _layers(result)]
    versions = {}
    for words, (name, title) in _MAPS.items():
        norm = name.endswith("_norm")
        figure = story_heatmap(
            _array(result, name), rows=rows, tokens=result.tokens.labels, title=title, signed=not norm, log=norm
        )
        cells = Cells(rows=rows, link="at")
        versions[words] = Version(figure=figure, x=Axis(of="token"), y=_layer_axis(result), cells=cells)
    return Picture(
        versions=versions,
        caption="Layers upwards, tokens from left to right. Norms are on a log scale. Click a cell to select its layer and token.",
        prompt=prompt,
    )


def _lines(result: Any, prompt: str) -> Picture:
    layers = _layers(result)
    versions = {}
    for words, (names, unit) in _LINES.items():
        values = {line: _array(result, name) for line, name in names.items()}
        last = {line: array[:, -1] for line, array in values.items()}
        norm = words == "Norms"
        figure = story_lines(
            last, rows=[str(layer) for layer in layers], unit=unit, log=norm, limits=None if norm else (-1.05, 1.05)
        )
        follow = [{"y": array} for array in values.values()]
        versions[words] = Version(figure=figure, follow=follow, x=_layer_axis(result))
    return Picture(
        versions=versions,
        caption="The selected token, layer by layer: the stream and the two updates written to it.",
        prompt=prompt,
    )


def _pushed(result: Any, prompt: str) -> LinkedTable:
    """The tokens whose logits each update raises and lowers most when read through the unembedding."""
    layers = _layers(result)
    texts = {int(number): visible(piece) for number, piece in result.vocabulary.items()}
    up, down = _listed(result)

    def words(name: str, count: int) -> Words:
        return Words(getattr(result, name)[..., :count].numpy(), texts)

    lines = [
        Line(
            cells=[
                part,
                *(_array(result, f"{name}_{what}") for what in ("norm", "cos_stream", "cos_final")),
                words(f"{name}_promoted_ids", up),
                words(f"{name}_suppressed_ids", down),
            ],
            rows=layers,
        )
        for part, name in (("attention", "attn"), ("MLP", "mlp"))
    ]
    caption = "What was written here, and the tokens it would raise and lower most if it were read out directly."
    held = result.attn_promoted_ids.shape[2]
    if down < held:
        caption += (
            f" The prompt is long: of the {held} that the result holds, {up} up and {down} down are on this page."
        )
    return LinkedTable(
        columns=("part", "norm", "cosine to stream", "cosine to end", "pushes up", "pushes down"),
        lines=lines,
        layers=layers,
        caption=caption,
        prompt=prompt,
    )


def _listed(result: Any) -> tuple[int, int]:
    """How many tokens that a part pushes up, and down, the page lists: all that the result holds, or as many as there is room for."""
    layers, positions, held = result.attn_promoted_ids.shape
    both = max(2, _ROOM // (2 * layers * positions))
    return min(held, (both + 1) // 2), min(held, both // 2)


def _findings(result: Any) -> tuple[Finding, ...]:
    last = len(result.tokens) - 1
    start, end = float(result.embed_norm[last]), float(result.stream_norm[-1, last])
    growth = join(
        [
            "At the last token ",
            token(result.tokens.pieces[last]),
            f" the residual stream's norm goes from {brief(start)} before the first layer to {brief(end)} after the last layer.",
        ]
    )
    found = [Finding(text=growth, rank=Evidence.HABIT, strength=0.0, value=end, unit="norm", block=1)]
    norms = _array(result, "stream_norm")
    if len(result.tokens) > 2:
        peak = int(np.nanargmax(norms.max(axis=1) / np.median(norms, axis=1)))
        pos = int(np.nanargmax(norms[peak]))
        ratio = float(norms[peak, pos] / np.median(norms[peak]))
        if ratio >= 5:
            text = join(
                [
                    "Token ",
                    token(result.tokens.pieces[pos]),
                    f" at position {pos} stands out: after layer {peak} its stream is {brief(ratio)} times as long as the median token's.",
                ]
            )
            found.append(
                Finding(
                    text=text,
                    rank=Evidence.HABIT,
                    strength=1 - 1 / ratio,
                    value=ratio,
                    unit="times the median",
                    null=1.0,
                )
            )
    return tuple(found)

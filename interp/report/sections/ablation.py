"""Ablation: what the model loses without each head, attention, MLP or block."""

from typing import Any

import numpy as np

from interp.figures.ablation import SERIES, change_bars, change_map
from interp.report.blocks import Axis, Block, Evidence, Finding, Line, LinkedTable, Picture, Section, Table, Version
from interp.report.markup import Child, Html, join, token
from interp.report.sections.numbers import brief, counted, interval_of, part_of, signed, told_from

_METHODS = {
    "zero": "set to zero",
    "mean": "set to their mean over {texts} (the first position by itself)",
    "resample": "replaced by what they are at the same position of another text, drawn from {texts}",
}
_UNITS = {"heads": "heads", "attention": "attention layers", "mlps": "MLPs", "layers": "blocks"}
_SHOWN = 8
_FINE = 0.01
"""Numbers below this are told by their digits, not by their decimals."""


def build(result: Any, prompt: str) -> Section | None:
    """The whole model, a map of heads with the selected one, the layers, and the parts whose loss matters most."""
    measured = "the [[loss]] of the text" if result.metric == "loss" else "the score of the answer"
    lead = (
        f"What does the model lose without each of its parts? By [[ablation]] one part at a time is taken out: its outputs are "
        f"{_method(result)}{_where(result)}. The change is {measured} without the part less that of the whole model."
    )
    blocks: list[Block] = [_whole(result)]
    if "heads" in result.units:
        blocks += [_map(result, prompt), _selected(result, prompt)]
    if set(result.units) != {"heads"}:
        blocks.append(_layers(result, prompt))
    blocks.append(_strongest(result))
    return Section(
        name="ablation",
        title="Ablation",
        label="Ablation",
        lead=lead,
        place=78,
        blocks=blocks,
        findings=_findings(result),
    )


def _method(result: Any) -> str:
    own = len(result.prompts)
    texts = counted(result.n_reference, "reference text")
    if result.own_reference:
        texts = "this text" if own == 1 else "the texts themselves"
    return _METHODS[result.method].format(texts=texts)


def _where(result: Any) -> str:
    if result.at_positions is None:
        return ""
    return f", at position{'s'[: len(result.at_positions) > 1]} {', '.join(map(str, result.at_positions))} only"


def _whole(result: Any) -> Html:
    """What the whole model comes to."""
    whole, n = result.whole_mean, len(result.prompts)
    texts = f"{n} texts" if n > 1 else f"one text of {len(result.prompts[0])} tokens"
    parts: list[Child] = [f"The whole model, on {texts}: {_name(result)} "]
    answers = dict.fromkeys(answer.text for answer in result.answers)
    if answers and result.metric != "kl":
        parts += ["of ", join([token(text) for text in list(answers)[:3]], ", "), " … " if len(answers) > 3 else " "]
    others = dict.fromkeys(answer.text for answer in result.against)
    if others and result.metric == "logit_difference":
        parts += ["against ", join([token(text) for text in list(others)[:3]], ", "), " … " if len(others) > 3 else " "]
    interval = f" ({_number(whole.lower)} to {_number(whole.upper)})" if np.isfinite(whole.lower) else ""
    return join([*parts, f"{_number(whole.value)}{_unit(result)}{interval}."])


def _number(value: float) -> str:
    return (f"{value:.3f}" if abs(value) >= _FINE else brief(value)).replace("-", "−")  # noqa: RUF001


def _change(value: float) -> str:
    return signed(value) if abs(value) >= _FINE else f"{value:+.2g}".replace("-", "−")  # noqa: RUF001


def _name(result: Any) -> str:
    return result.metric.replace("_", " ") if result.metric != "kl" else "KL divergence from itself"


def _unit(result: Any) -> str:
    if result.metric == "loss":
        return " nats a token"
    return {"": "", "probability": ""}.get(result.metric_unit, f" {result.metric_unit}")


def _arrays(result: Any, unit: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    change = result.change(unit)
    return change.value.numpy(), change.lower.numpy(), change.upper.numpy()


def _map(result: Any, prompt: str) -> Picture:
    figure = change_map(*_arrays(result, "heads"), result.layers, result.change_words)
    heads = Axis(of="head", heads=tuple(range(result.n_heads)))
    caption = (
        "Every head, layers upwards. Blue is a higher "
        f"{_name(result)} without the head, orange a lower one. The colours end at the change that one head in a "
        f"hundred exceeds. {_intervals(result)}"
    )
    return Picture(
        versions={"Heads": Version(figure=figure, x=heads, y=_layer_axis(result))}, caption=caption, prompt=prompt
    )


def _layer_axis(result: Any) -> Axis:
    return Axis(of="layer", layers=result.layers, labels=tuple(str(layer) for layer in result.layers))


def _intervals(result: Any) -> str:
    if not _bounded(result):
        return "There is one text, so there are no intervals."
    over = "texts" if result.over == "prompts" else "draws of the other text"
    return f"Intervals are {result.confidence:.0%} over {over}."


def _bounded(result: Any) -> bool:
    return bool(result.change(result.units[0]).lower.isfinite().any())


def _selected(result: Any, prompt: str) -> LinkedTable:
    change, without = result.change("heads"), result.without("heads")
    rows = tuple(range(len(result.layers)))
    sides = ("value", "lower", "upper") if _bounded(result) else ("value",)
    lines = [
        Line(cells=(name, *(getattr(found, side).float().numpy() for side in sides)), rows=rows)
        for name, found in (("change", change), (f"{_name(result)} without it", without))
    ]
    bounds = f"; lower and upper bound the {result.confidence:.0%} interval" if _bounded(result) else ""
    return LinkedTable(
        columns=("of the selected head", *sides),
        lines=lines,
        layers=result.layers,
        caption=f"The selected head{_in_unit(result)}{bounds}.",
        prompt=prompt,
        by="head",
    )


def _in_unit(result: Any) -> str:
    unit = _unit(result).strip()
    return f", in {unit}" if unit else ""


def _layers(result: Any, prompt: str) -> Picture:
    parts = {unit: _arrays(result, unit) for unit in SERIES if unit in result.units}
    figure = change_bars(parts, result.layers, result.change_words)
    caption = (
        "Each layer's attention, MLP and whole block, as far as they were ablated. A block adds what its attention and its MLP put out to "
        f"the stream. Bars that reach past the axis have their value beside them; intervals that do, in their text. {_intervals(result)}"
    )
    return Picture(versions={"Layers": Version(figure=figure, x=_layer_axis(result))}, caption=caption, prompt=prompt)


def _strongest(result: Any) -> Table:
    rows: list[list[Child]] = []
    for unit in result.units:
        for found in result.strongest(_SHOWN, unit):
            change = found.change
            bounds = [f"{_change(change.lower)} to {_change(change.upper)}"] if _bounded(result) else []
            rows.append([str(found.component), _change(change.value), *bounds, _number(found.without.value)])
    interval = [f"{result.confidence:.0%} interval"] if _bounded(result) else []
    return Table(
        columns=("without", "change", *interval, _name(result)),
        rows=rows,
        numeric=frozenset({1, 2, 3}),
        caption=f"The greatest changes of each kind, in either direction, and the {_name(result)} without the part{_in_unit(result)}.",
        long=True,
    )


def _findings(result: Any) -> tuple[Finding, ...]:
    kinds = [tuple(unit for unit in result.units if (unit == "heads") is heads) for heads in (True, False)]
    return tuple(_finding(result, names) for names in filter(None, kinds))


def _finding(result: Any, names: Any) -> Finding:
    """The greatest change of these units: as strong as the share of the score or of the probability that it takes or gives."""
    every = sorted((part for name in names for part in result.components(name)), key=lambda x: -abs(x.change.value))
    clear = [part for part in every if part.change.lower > 0 or part.change.upper < 0]
    change = (clear or every)[0].change
    whole = float(result.whole.double().mean())
    share = part_of(change.value, result.metric_unit, [whole])
    return Finding(
        text=_sentence(result, names, every, clear),
        rank=Evidence.CAUSED,
        strength=share if told_from(change, 0.0) else 0.0,
        value=change.value,
        unit=result.metric_unit or _name(result),
        interval=interval_of(change),
        null=0.0,
    )


def _sentence(result: Any, names: Any, every: list[Any], clear: list[Any]) -> str:
    """What changes most, of those whose interval is off 0 where there are intervals."""
    units = " and ".join([", ".join(_UNITS[name] for name in names[:-1]), _UNITS[names[-1]]]).removeprefix(" and ")
    total, metric = len(every), _name(result)
    if not _bounded(result):
        return f"Of {total} {units}, the {metric} changes most without {_told(result, every[0])}{_next(every)}."
    interval = f"{result.confidence:.0%} interval"
    if not clear:
        return f"None of {total} {units} changes the {metric} by more than the {interval} of its change."
    chance = round((1 - result.confidence) * total)
    return (
        f"{len(clear)} of {total} {units} change the {metric} by more than the {interval} of the change (chance alone: about {chance}), "
        f"most of all {_told(result, clear[0])}{_next(clear)}."
    )


def _told(result: Any, part: Any) -> str:
    change = part.change
    bounds = f" ({signed(change.lower, 2)} to {signed(change.upper, 2)})" if np.isfinite(change.lower) else ""
    return f"{part.component}, by {signed(change.value, 2)}{_unit(result)}{bounds}"


def _next(parts: Any) -> str:
    following = " and ".join(f"{part.component} ({signed(part.change.value, 2)})" for part in parts[1:3])
    return f"; next {'are' if len(parts) > 2 else 'is'} {following}" if following else ""

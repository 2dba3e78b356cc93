"""What ``interp patch`` prints: both runs, where a residual stream holds the difference, and the strongest patches."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .output import table

if TYPE_CHECKING:
    from interp.analyzers.activation_patching_result import ActivationPatchingResult, PatchedCell

_ENDS = {
    "denoising": "clean into corrupted; 0 changes nothing, 1 restores the clean run",
    "noising": "corrupted into clean; 0 changes nothing, 1 does all that the corrupted prompt does",
}
_BARS = " ▁▂▃▄▅▆▇█"
_AGAINST = "-"
_LEAST = 1 / 16
"""Effects nearer to 0 than half a step of the bars are drawn as nothing."""


def records(result: "ActivationPatchingResult", top: int) -> list[dict[str, Any]]:
    """The strongest patches of each site for --json; the result has all."""
    return [
        {
            "site": cell.site,
            "layer": cell.layer,
            "head": cell.head,
            "position": cell.position,
            "effect": cell.effect.value,
            "lower": cell.effect.lower,
            "upper": cell.effect.upper,
            "n_pairs": cell.effect.n,
            "metric": _mean_metric(result, cell),
        }
        for site in result.sites
        for cell in result.strongest(site, top)
    ]


def draw(console: Any, result: "ActivationPatchingResult", top: int) -> None:
    """Both runs, a line of bars for each position of a residual stream, and the strongest patches of each site."""
    for line in _about(result):
        console.print(line, soft_wrap=True)
    rows = [row for site in result.sites for row in _rows(result, site, top)]
    if not rows:
        console.print("the prompts do not differ in the metric, so no effect could be measured", soft_wrap=True)
        return
    for site in result.sites:
        if result.by == "position" and site.startswith("resid_"):
            _draw_bars(console, result, site)
    several, placed = result.n_pairs > 1, bool(result.position_labels())
    columns = ["site", "head" if "head" in result.by else "layer", *(["position"] if placed else []), "effect"]
    columns += [*([f"{result.confidence:.0%} interval"] if several else []), _metric(result)]
    right = "  " + " " * placed + ">>" + ">" * several
    console.print(table(columns, rows, right=right))


def _about(result: "ActivationPatchingResult") -> list[str]:
    """The prompts and answers of a pair, or how many pairs there are; the metric of both runs; what an effect is."""
    from interp.tokens import visible

    clean, corrupted = (float(values.double().mean()) for values in (result.clean_metric, result.corrupted_metric))
    runs = f"{_metric(result)}: clean {clean:.3f}, corrupted {corrupted:.3f}"
    effect = f"effect: {_ENDS[result.direction]}"
    if result.n_pairs > 1:
        return [f"{result.n_pairs} pairs; mean {runs}", effect, *_estimated(result)]
    other = f" against {visible(result.against[0].text)}" if result.against else ""
    return [
        f"clean: {visible(result.clean[0].text)}",
        f"corrupted: {visible(result.corrupted[0].text)}",
        f"answer: {visible(result.answers[0].text)}{other}",
        runs,
        effect,
        *_estimated(result),
    ]


def _estimated(result: Any) -> list[str]:
    """Of an estimate, how well it ranks the patches that were also run."""
    if result.kind != "attribution_patching":
        return []
    if result.correlation is None:
        return ["estimated from gradients; no patch was run to check it"]
    found, of_all = result.correlation, f"{result.n_checked:,} of {result.checked.n_cells:,} patches"
    value = "not measured" if math.isnan(found.value) else f"{found.value:.2f}"
    bounds = "" if math.isnan(found.lower) else f" ({found.lower:.2f} to {found.upper:.2f})"
    return [f"estimated from gradients; rank correlation with {of_all} that were run: {value}{bounds}"]


def _draw_bars(console: Any, result: "ActivationPatchingResult", site: str) -> None:
    """A line for each position where patching does something: the layers from left to right."""
    effects = result.effects(site).value.tolist()
    places = result.position_labels()
    names = [f"{position} {place}" for position, place in enumerate(places)]
    bars = ["".join(_bar(row[position]) for row in effects) for position in range(len(places))]
    shown = [(name, bar) for name, bar in zip(names, bars, strict=True) if bar.strip()]
    if not shown:
        return
    first, last = result.layers[0], result.layers[-1]
    title = (
        f"{site}, layers {first} to {last} from left to right ({_BARS[-1]} is 1, {_BARS[4]} a half, {_AGAINST} below 0)"
    )
    console.print("")
    console.print(title, soft_wrap=True)
    console.print(table(("", ""), shown, header=False))


def _bar(effect: float) -> str:
    if math.isnan(effect) or abs(effect) < _LEAST:
        return " "
    return _AGAINST if effect < 0 else _BARS[min(round(effect * 8), 8)]


def _rows(result: "ActivationPatchingResult", site: str, top: int) -> list[Sequence[str]]:
    """The strongest patches of a site, which is named in the first line."""
    places = result.position_labels()
    rows: list[Sequence[str]] = []
    for cell in result.strongest(site, top):
        row = ["" if rows else site, _name(result, cell)]
        row += [] if cell.position is None else [f"{cell.position} {places[cell.position]}"]
        row.append(_number(cell.effect.value, "+.3f"))
        row += [f"{_number(cell.effect.lower)} to {_number(cell.effect.upper)}"] if result.n_pairs > 1 else []
        rows.append([*row, _number(_mean_metric(result, cell))])
    return rows


def _name(result: "ActivationPatchingResult", cell: "PatchedCell") -> str:
    """L5, L5H3, or a key/value head with the query heads that share it."""
    if cell.head is None:
        return f"L{cell.layer}"
    served = result.query_heads(cell.site)[cell.head]
    if len(served) == 1:
        return f"L{cell.layer}H{cell.head}"
    return f"L{cell.layer} kv {cell.head} (H{served[0]}-{served[-1]})"


def _metric(result: "ActivationPatchingResult") -> str:
    unit = f" ({result.metric_unit})" if result.metric_unit not in ("", result.metric) else ""
    return result.metric.replace("_", " ") + unit


def _mean_metric(result: "ActivationPatchingResult", cell: "PatchedCell") -> float:
    """The metric with this patch, in the mean over pairs."""
    index = [result.layers.index(cell.layer), *(at for at in (cell.head, cell.position) if at is not None)]
    return float(result.patched[cell.site].double()[:, *index].mean())


def _number(value: float, form: str = ".3f") -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"

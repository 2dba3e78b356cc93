"""Activation patching: which states of one run carry the answer over into another."""

from typing import Any

import numpy as np

from interp.maths.estimates import Estimate
from interp.report.blocks import Block, Evidence, Finding, Section, Table
from interp.report.markup import Child, Html, join, quoted, token
from interp.report.sections.activation_patching_maps import picture, selected
from interp.report.sections.activation_patching_words import (
    Patched,
    amount,
    bounds,
    interval,
    layers_said,
    listed,
    prompt_pairs,
    share,
    site_name,
)
from interp.report.sections.numbers import interval_of, signed, told_from

_HALF = 0.5
_LISTED = 12


def build(result: Any, prompt: str) -> Section | None:
    """The maps, the strongest patches, and the prompts; what was found is said at the head of the page."""
    patched = Patched.of(result)
    blocks: list[Block] = []
    if patched.measured:
        blocks.append(picture(patched, prompt))
        one = selected(patched, prompt)
        blocks += [*([one] if one is not None else []), _strongest(patched)]
    blocks.append(
        prompt_pairs(result, f"; the last columns are the {patched.metric_with_unit} before anything is patched")
    )
    return Section(
        name="activation-patching",
        title="Activation patching",
        label="Patching",
        lead=_lead(patched),
        place=55,
        blocks=blocks,
        findings=_findings(patched),
    )


def _lead(patched: Patched) -> str:
    into = (
        "a state of the clean run is put into the run on the corrupted prompt ([[denoising]]): what brings the answer back "
        "holds what the prompts differ in"
        if patched.denoising
        else "a state of the corrupted run is put into the run on the clean prompt ([[noising]]): what takes the answer away "
        "was needed for it"
    )
    return (
        f"Two prompts of the same length differ in a few tokens and get different answers. By [[patching]], {into}. The [[normalised "
        "effect]] is 0 where a patch changes nothing and 1 where it does all that changing the prompt does."
    )


def _findings(patched: Patched) -> tuple[Finding, ...]:
    """What there was to carry over, then what each site carries; of several sites the first stands among other sections' first."""
    runs, total = _runs(patched), patched.result.total_effect()
    if not patched.measured:
        text = join([runs, ": the prompts do not differ in it, so no effect could be measured."])
        return (Finding(text=text, rank=Evidence.CAUSED, **_figures(total, patched.metric_with_unit)),)
    text = join([runs, f": a difference of {signed(total.value)}{bounds(total, 3)}."])
    told = [Finding(text=text, rank=Evidence.CAUSED, strength=1.0, **_figures(total, patched.metric_with_unit))]
    return (*told, *(_told_of(patched, site) for site in patched.measured))


def _told_of(patched: Patched, site: str) -> Finding:
    """What a site carries: as strong a finding as the greatest share that one patch of it carries."""
    effect = patched.result.strongest(site, 1)[0].effect
    text = _stretches(patched, site) if _is_stream(patched, site) else _greatest(patched, site)
    strength = min(1.0, abs(effect.value)) if told_from(effect, 0.0) else 0.0
    return Finding(text=text, rank=Evidence.CAUSED, strength=strength, **_figures(effect, "normalised effect"))


def _figures(estimate: Estimate, unit: str) -> dict[str, Any]:
    return {"value": estimate.value, "unit": unit, "interval": interval_of(estimate), "null": 0.0}


def _runs(patched: Patched) -> Html:
    """The metric of both runs, with the answer and the corrupted prompt where there is one pair."""
    result = patched.result
    clean, corrupted = (
        amount(float(values.double().mean())) for values in (result.clean_metric, result.corrupted_metric)
    )
    if result.n_pairs > 1:
        pairs = f"Over {result.n_pairs} pairs of prompts"
        return join([f"{pairs} the {patched.metric_with_unit} is {clean} clean and {corrupted} corrupted"])
    answer: list[Child] = [" of ", token(result.answers[0].text)]
    if result.against:
        answer += [" less ", token(result.against[0].text)]
    start: list[Child] = [f"The {patched.metric_with_unit}", *([] if result.metric == "kl" else answer)]
    after = f" is {clean} after the clean prompt and {corrupted} after the corrupted one, "
    return join([*start, after, "“", quoted(result.corrupted[0].text), "”"])


def _is_stream(patched: Patched, site: str) -> bool:
    return site.startswith("resid_") and patched.result.by == "position"


def _stretches(patched: Patched, site: str) -> Html:
    """At which positions and in which layers a patch of the stream does at least half of what changing the prompt does.

    The greatest effect alone says nothing: the stream has all of the difference at the first layer and at the last.
    """
    effects = patched.effects[site]
    values = effects.value.double().nan_to_num(nan=0.0).numpy()
    told: list[Child] = []
    for position in np.flatnonzero((values >= _HALF).any(0)).tolist():
        over = np.flatnonzero(values[:, position] >= _HALF).tolist()
        layers = patched.result.layers
        best = max(over, key=lambda row: values[row, position])
        most = f"up to {share(effects.at(best, position))} in layer {layers[best]}"
        told.append(join([patched.place(position), f" in {layers_said([layers[row] for row in over])} ({most})"]))
    start = f"The {site_name(site)} {patched.verb} half or more of the {patched.metric} "
    if not told:
        return join(
            [
                f"No one state of the {site_name(site)} {patched.verb} half of the {patched.metric}: ",
                _most(patched, site),
                ".",
            ]
        )
    return join([start, "at ", listed(told), "."])


def _greatest(patched: Patched, site: str) -> Html:
    return join(
        [f"Of the {site_name(site)} patched one at a time, ", _most(patched, site), f" of the {patched.metric}."]
    )


def _most(patched: Patched, site: str) -> Html:
    """The cell whose effect is furthest from 0, with its effect."""
    best = patched.result.strongest(site, 1)[0]
    does = f"{patched.verb} most" if best.effect.value >= 0 else "has the greatest effect, in the other direction"
    return join([patched.cell(best), f" {does}, {share(best.effect)}"])


def _strongest(patched: Patched) -> Table:
    """The patches of each site whose effects are furthest from 0."""
    result, several = patched.result, patched.result.n_pairs > 1
    rows: list[list[Child]] = []
    for site in patched.measured:
        means = patched.means(site)
        for cell in result.strongest(site, _LISTED):
            index = (result.layers.index(cell.layer), *(at for at in (cell.head, cell.position) if at is not None))
            rows.append(
                [
                    site_name(site),
                    str(cell.layer) if cell.head is None else patched.head(site, cell.layer, cell.head),
                    "all" if cell.position is None else patched.place(cell.position),
                    signed(cell.effect.value),
                    *([interval(cell.effect)] if several else []),
                    amount(float(means[index])),
                ]
            )
    bounded = [f"{result.confidence:.0%} interval"] if several else []
    where = "head" if "head" in result.by else "layer"
    return Table(
        columns=("site", where, "position", "effect", *bounded, patched.metric_with_unit),
        rows=rows,
        numeric=frozenset({3, 4, 5}) if several else frozenset({3, 4}),
        caption=f"The patches with the greatest {'estimated ' * patched.estimated}effects, up to {_LISTED} a site",
        long=True,
    )

"""The sentences about a causal trace: what was found, and how its numbers and places read."""

from dataclasses import replace
from typing import Any

import numpy as np

from interp.analyzers.causal_trace_sites import Site, above_zero, best_layers, half_back_from, lowered
from interp.maths.estimates import Estimate
from interp.report.blocks import Evidence, Finding
from interp.report.markup import Child, Html, join, token
from interp.report.sections.numbers import counted, interval_of, signed


def findings(result: Any) -> tuple[Finding, ...]:
    """What was lost, then the strongest site of each kind; none where nothing was lost."""
    total, corrupted = result.total_effect(), result.corrupted()
    what = "noise" if result.corruption == "noise" else "other text"
    subject = join([token(result.prompt.pieces[position]) for position in result.subject_positions], " ")
    moved: list[Child] = [
        f" {number_of(result.clean_probability)} without it and {number_of(corrupted.value)}{spread_of(result, corrupted)} with it"
    ]
    if not lowered(result):
        text = join(
            [
                f"With {what} in place of " if what == "other text" else "With noise on ",
                subject,
                " the answer ",
                answer_token(result.answer),
                " is not measurably less likely:",
                *moved,
                "; so no state is named.",
            ]
        )
        return (Finding(text=text, rank=Evidence.CAUSED, **_figures(total)),)
    text = join(
        [
            f"With {what} in place of " if what == "other text" else "With noise on ",
            subject,
            " the model loses the answer ",
            answer_token(result.answer),
            ": its probability is",
            *moved,
            ".",
        ]
    )
    lost = Finding(text=text, rank=Evidence.CAUSED, strength=1.0, **_figures(total))
    return (lost, *_claims(result, total))


def _claims(result: Any, total: Estimate) -> list[Finding]:
    """The early site of the stream, its late one, and the best window of MLPs and of attention."""
    claims = []
    if "resid" in result.kinds:
        early = best_layers(result, "resid", result.subject_positions)
        claims += [_claim(result, site, total) for site in early[:1]]
        last = len(result.prompt) - 1
        start = half_back_from(result, "resid", last)
        if last not in result.subject_positions and start is not None:
            effect = result.indirect_effect("resid").at(start, last)
            text = join(
                [
                    "At the last token ",
                    place_of(result, last),
                    f" the stream brings back at least half from layer {start} on: after it "
                    f"{number_of(effect.value)}{spread_of(result, effect)}.",
                ]
            )
            # The last token's state is the output in the end, so that it brings all back is no news; how early it does is.
            early_enough = 1 - start / result.n_layers
            claims.append(replace(_brought_back(text, effect, total), strength=early_enough))
    for kind in ("mlp", "attn"):
        if kind in result.kinds:
            claims += [_claim(result, site, total) for site in best_layers(result, kind)[:1]]
    return claims


def _figures(estimate: Estimate) -> dict[str, Any]:
    """The number of a finding: a difference of probabilities, which is 0 where nothing changes."""
    return {"value": estimate.value, "unit": "probability", "interval": interval_of(estimate), "null": 0.0}


def _brought_back(text: Html, effect: Estimate, total: Estimate) -> Finding:
    """A finding as strong as the share of what was lost that came back; not at all where that may be nothing."""
    share = min(1.0, effect.value / total.value) if above_zero(effect) else 0.0
    return Finding(text=text, rank=Evidence.CAUSED, strength=share, **_figures(effect))


def _claim(result: Any, site: Site, total: Estimate) -> Finding:
    """How much a site brings back, or that it brings back nothing that is told apart from 0."""
    if site.kind == "resid":
        where: list[Child] = ["Restoring the stream at ", place_of(result, site.position), f" after layer {site.layer}"]
    else:
        part = "the MLPs" if site.kind == "mlp" else "attention"
        where = [f"Restoring {part} of {_named_layers(site)} at ", place_of(result, site.position)]
    effect, spread = number_of(site.effect.value), spread_of(result, site.effect)
    amount = f"{effect} of the {number_of(total.value)} lost{spread}"
    if site.effect.value > total.value:
        amount = f"more than all of the {number_of(total.value)} lost: {effect}{spread}"
    if site.clear:
        text = join([*where, f" brings back {amount}. It was chosen as the greatest of {_tried(result, site.kind)}."])
    else:
        tried = _tried(result, site.kind)
        text = join([*where, f" brings back most of {tried}, but not measurably more than nothing: {amount}."])
    return _brought_back(text, site.effect, total)


def _tried(result: Any, kind: str) -> str:
    """What a site was chosen from: the greatest of many is great by chance as well."""
    subject = list(result.subject_positions)
    columns = subject if kind == "resid" else list(range(min(subject), len(result.prompt)))
    count = int(result.indirect_effect(kind).value[:, columns].isfinite().sum())
    if kind != "resid":
        return f"{counted(count, 'window')} from the subject on"
    return f"{counted(count, 'state')} of the subject's token{'s'[: len(subject) != 1]}"


def _named_layers(site: Site) -> str:
    if len(site.layers) == 1:
        return f"layer {site.layers[0]}"
    return f"layers {site.layers[0]} to {site.layers[-1]}"


def layers_of(site: Site) -> str:
    return str(site.layer) if len(site.layers) == 1 else f"{site.layers[0]} to {site.layers[-1]}"


def place_of(result: Any, position: int) -> Html:
    return join([token(result.prompt.pieces[position]), f" ({position})"])


def answer_token(answer: Any) -> Html:
    return join([token(piece) for piece in answer.pieces], " ")


def samples_of(result: Any) -> str:
    if result.corruption == "tokens":
        return counted(result.n_samples, "replacement")
    return f"{counted(result.n_samples, 'draw')} of the noise"


def spread_of(result: Any, estimate: Estimate) -> str:
    if not np.isfinite(estimate.lower):
        return " (one sample, so no interval)" if estimate.n == 1 else ""
    return f" ({result.confidence:.0%} interval {number_of(estimate.lower)} to {number_of(estimate.upper)})"


def without_interval(value: float) -> Estimate:
    return Estimate(value=value, lower=float("nan"), upper=float("nan"), n=1)


def number_of(value: float) -> str:
    """Two decimals; more of a number that would read 0.00."""
    if not np.isfinite(value):
        return "not measured"
    text = f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1g}"
    return text.replace("-", "−")  # noqa: RUF001


def change_of(value: float) -> str:
    return signed(value, 3) if np.isfinite(value) else "not measured"


def bounds_of(estimate: Estimate) -> str:
    if not np.isfinite(estimate.lower):
        return ""
    return f"{number_of(estimate.lower)} to {number_of(estimate.upper)}"

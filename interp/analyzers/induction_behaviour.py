"""How all heads of a model attend on repeated text, beside text without repeats: scores with intervals, and a test over all heads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.analyzers.induction_prompts import Texts
from interp.analyzers.induction_result import Behaviour
from interp.analyzers.induction_scan import scan
from interp.heads import Head
from interp.maths.estimates import Estimates
from interp.maths.induction import OFFSETS, Masses, prefix_matching
from interp.maths.statistics import benjamini_hochberg, mean_estimates, p_values
from interp.models.cache import Step
from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadScores:
    """The scores of every head; see ``InductionResult`` for what they are."""

    stripe: Estimates
    unrepeated: Estimates
    prefix_matching: Estimates
    on_first: Estimates
    diagonal: Float[Tensor, "layer head"]
    previous: Float[Tensor, "layer head"]
    around: Float[Tensor, "layer head offset"]
    stripe_by_period: Float[Tensor, "period layer head"]
    peak: Float[Tensor, "layer head"]
    p: Float[Tensor, "layer head"]
    significant: Bool[Tensor, "layer head"]

    def behaviour(self, head: Head) -> Behaviour:
        """What was measured of one head."""
        cell = head.layer, head.head
        peak = float(self.peak[cell])
        return Behaviour(
            stripe=self.stripe.at(*cell),
            unrepeated=self.unrepeated.at(*cell),
            prefix_matching=self.prefix_matching.at(*cell),
            on_first=self.on_first.at(*cell),
            p=float(self.p[cell]),
            significant=bool(self.significant[cell]),
            peak=None if peak != peak else int(peak),
        )

    def candidates(self, threshold: float) -> list[Head]:
        """The heads that attend like induction heads, best first.

        Where no period was measured, whatever their peak; where one text allows no test, without one.
        """
        follows = (self.peak == 1) | self.stripe_by_period.isnan().all(0)
        found = (self.significant | self.p.isnan().all()) & (self.prefix_matching.value >= threshold) & follows
        heads = [Head(layer, head) for layer, head in found.nonzero().tolist()]
        return sorted(heads, key=lambda head: -float(self.prefix_matching.value[head.layer, head.head]))


def head_scores(model: Model, texts: Sequence[Texts], *, random: bool, rate: float, step: Step) -> HeadScores:
    """Scans the texts and their references. A sample is a seed, over all periods, where texts are ``random``, else a prompt."""
    seen, unseen = [], []
    for done, text in enumerate(texts):
        step("attention", done, len(texts))
        seen.append(scan(model, text.ids, text.places))
        unseen.append(scan(model, text.reference[: len(text.ids)], text.places))
    step("attention", len(texts), len(texts))

    def samples(parts: Sequence[Masses], name: str) -> Float[Tensor, "sample layer head *k"]:
        values = [getattr(part, name).double() for part in parts]
        return torch.stack(values).mean(0) if random else torch.cat(values)

    on_targets, off_first = samples(seen, "on_targets"), samples(seen, "off_first")
    p = p_values(on_targets - samples(unseen, "on_targets"))
    by_period = torch.stack([part.around.double().mean(0) for part in seen])
    return HeadScores(
        stripe=mean_estimates(samples(seen, "stripe")),
        unrepeated=mean_estimates(samples(unseen, "stripe")),
        prefix_matching=mean_estimates(prefix_matching(on_targets, off_first)),
        on_first=mean_estimates(1 - off_first),
        diagonal=samples(seen, "diagonal").nanmean(0).float(),
        previous=samples(unseen, "previous").mean(0).float(),
        around=by_period.nanmean(0).float(),
        stripe_by_period=by_period[..., OFFSETS.index(1)].float(),
        peak=_common_peak(by_period),
        p=p,
        significant=benjamini_hochberg(p, rate),
    )


def _common_peak(by_period: Float[Tensor, "period layer head offset"]) -> Float[Tensor, "layer head"]:
    """The offset that gets most attention in every text that has a period; NaN where it differs or none has one."""
    with_period = by_period[~by_period.isnan().any(-1).flatten(1).any(1)]
    if not len(with_period):
        return torch.full(by_period.shape[1:3], float("nan"))
    peaks = torch.tensor(OFFSETS, dtype=torch.float)[with_period.argmax(-1)]
    return peaks[0].masked_fill((peaks != peaks[0]).any(0), float("nan"))

"""Averages over facts, by place in the prompt (Meng et al. 2022, figure 2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.causal_trace_result import CausalTraceResult
from interp.maths.estimates import Estimate, Estimates
from interp.maths.statistics import mean_estimates
from interp.maths.tracing import PLACES

MEASURE = "probability"


@dataclass(frozen=True, kw_only=True, eq=False)
class Averages:
    """Means over facts with Student t intervals: each fact is one sample, its own value a mean over noise samples and tokens.

    ``effects`` holds for each kind the average indirect effect [place layer], the places in the order of ``PLACES``. A fact without
    a place, such as one of a subject of two tokens without a middle one, is left out of that place only; ``n`` says how many are in.
    """

    effects: dict[str, Estimates]
    clean: Estimate
    corrupted: Estimate
    total: Estimate

    def peak(self, kind: str, place: str) -> tuple[int, Estimate]:
        """The layer of the greatest average indirect effect at a place, and that effect."""
        values = self.effects[kind].value[PLACES.index(place)]
        layer = int(values.nan_to_num(nan=-torch.inf).argmax())
        return layer, self.effects[kind].at(PLACES.index(place), layer)


def by_place(result: CausalTraceResult, kind: str) -> Float[Tensor, "row layer"]:
    """The mean indirect effect of one trace over the tokens of each of ``PLACES``; NaN for a place that the prompt does not have."""
    effects, places = result.indirect_effect(kind, MEASURE).value, result.places
    rows = []
    for place in PLACES:
        positions = [position for position, found in enumerate(places) if found == place]
        rows.append(effects[:, positions].mean(1) if positions else torch.full_like(effects[:, 0], torch.nan))
    return torch.stack(rows)


def averages(results: Sequence[CausalTraceResult], confidence: float = 0.95) -> Averages:
    """The averages over the traces of facts, all of the same kinds."""
    return Averages(
        effects={
            kind: mean_estimates(torch.stack([by_place(result, kind) for result in results]), confidence)
            for kind in results[0].kinds
        },
        clean=_mean([result.clean(MEASURE) for result in results], confidence),
        corrupted=_mean([result.corrupted(MEASURE).value for result in results], confidence),
        total=_mean([result.total_effect(MEASURE).value for result in results], confidence),
    )


def _mean(values: Sequence[float], confidence: float) -> Estimate:
    return mean_estimates(torch.tensor(values)[:, None], confidence).at(0)

"""Attribution patching: what patching an activation would do to a metric, to first order, and how well the estimates rank.

Activation patching replaces a part of an activation in a base run by its value in a source run. With the metric m as a function of
that activation a, all else recomputed, the change to first order is (Nanda 2023; Syed et al. 2023, "Attribution patching outperforms
automated circuit discovery", equation 3)

    m(a_source) - m(a_base)  ~  (a_source - a_base) . dm/da (a_base)

One backward gives the gradient at every activation at once. Where m bends between the two runs (a saturated softmax above all, Kramar et
al. 2024) the slope at one end misleads; integrated gradients take its mean over runs between them (Sundararajan et al. 2017).
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


def first_order(
    source: Float[Tensor, "batch ..."],
    base: Float[Tensor, "batch ..."],
    gradient: Float[Tensor, "batch ..."],
    kept: tuple[int, ...],
) -> Float[Tensor, "batch ..."]:
    """``(source - base) . gradient`` of each cell: the axes ``kept`` are the outcome's, in this order; the others are summed over."""
    return _cells((source.float() - base.float()) * gradient.float(), kept).sum(-1)


def differ(
    source: Float[Tensor, "batch ..."], base: Float[Tensor, "batch ..."], kept: tuple[int, ...]
) -> Bool[Tensor, "batch ..."]:
    """Which cells are not the same in both runs."""
    return _cells(source != base, kept).any(-1)


def _cells(values: Shaped[Tensor, "batch ..."], kept: tuple[int, ...]) -> Shaped[Tensor, "batch ..."]:
    """The axes ``kept``, and all others as one last axis."""
    others = [axis for axis in range(values.dim()) if axis not in kept]
    return values.permute(*kept, *others).flatten(len(kept)) if others else values.permute(*kept)[..., None]


def places_between(steps: int) -> tuple[float, ...]:
    """Where from base (0) to source (1) gradients are taken: at the base itself for one step, else at the middles of ``steps`` parts.

    The midpoint rule: the mean of the gradients there is the integral along the line, with an error that falls as 1 / steps^2.
    """
    return (0.0,) if steps == 1 else tuple((step + 0.5) / steps for step in range(steps))


def rank_correlation(samples: Float[Tensor, "row 2"]) -> Float[Tensor, ""]:
    """Spearman's rank correlation of two columns, ties at the mean of their ranks; NaN where a column does not vary."""
    from scipy.stats import rankdata

    if len(samples) < 2:
        return torch.tensor(float("nan"), dtype=torch.float64)
    ranks = torch.as_tensor(rankdata(samples.cpu().double().numpy(), axis=0))
    ranks = ranks - ranks.mean(0)
    spread = ranks.square().sum(0).prod().sqrt()
    return ranks.prod(1).sum() / spread if spread > 0 else torch.tensor(float("nan"), dtype=torch.float64)

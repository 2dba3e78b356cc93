"""How much of the difference between two runs a patch carries over, as a share of that difference (Wang et al. 2022).

A metric is read off a clean run, a corrupted run, and one of them with an activation of the other in place. Denoising puts a clean
activation into the corrupted run and asks how much of the metric comes back; noising puts a corrupted one into the clean run and asks how
much is lost (Heimersheim and Nanda 2024). Either way 0 is "nothing happened" and 1 is "as if the whole prompt were exchanged".
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from interp.errors import unknown
from interp.maths.estimates import Estimates
from interp.maths.statistics import bootstrap_estimates

DIRECTIONS = ("denoising", "noising")
SMALLEST_DIFFERENCE = 1e-6
"""A mean difference between clean and corrupted below this cannot be told from none, and nothing is a share of it."""
_DRAWS = 1000
_CELLS_AT_ONCE = 8192
"""Cells whose bootstrap draws are held at once: 64 MB."""


def changes(
    patched: Float[Tensor, "batch *row"],
    clean: Float[Tensor, " batch"],
    corrupted: Float[Tensor, " batch"],
    direction: str,
) -> Float[Tensor, "batch *row"]:
    """What patching changes in each pair, positive towards the run that the activation is from.

    Denoising: ``patched - corrupted``; noising: ``clean - patched``. Raises UsageError for another direction.
    """
    if direction not in DIRECTIONS:
        raise unknown("direction", direction, DIRECTIONS)
    shape = (-1, *[1] * (patched.dim() - 1))
    if direction == "denoising":
        return patched.double() - corrupted.double().reshape(shape)
    return clean.double().reshape(shape) - patched.double()


def normalised_effects(
    patched: Float[Tensor, "batch *row"],
    clean: Float[Tensor, " batch"],
    corrupted: Float[Tensor, " batch"],
    direction: str,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimates:
    """The mean over pairs of ``changes`` over the mean over pairs of ``clean - corrupted``, in double precision on the CPU.

    A ratio of means, not a mean of ratios: a pair that the model hardly tells apart then weighs little and does not blow up. The interval
    is the percentile bootstrap over pairs, the same resamples for every cell. With one pair the bounds are NaN; where the mean
    difference is within ``SMALLEST_DIFFERENCE`` of 0, everything is.
    """
    n = patched.shape[0]
    change = changes(patched.cpu(), clean.cpu(), corrupted.cpu(), direction) + 0.0  # no -0.0
    shape, flat = change.shape[1:], change.reshape(n, -1)
    difference = clean.cpu().double() - corrupted.cpu().double()
    parts = [
        _ratios(part, difference, confidence, torch.Generator().manual_seed(seed))
        for part in flat.split(_CELLS_AT_ONCE, 1)
    ]
    return Estimates(
        value=torch.cat([part.value for part in parts]).reshape(shape),
        lower=torch.cat([part.lower for part in parts]).reshape(shape),
        upper=torch.cat([part.upper for part in parts]).reshape(shape),
        n=torch.cat([part.n for part in parts]).reshape(shape),
    )


def _ratios(
    change: Float[Tensor, "batch row"], difference: Float[Tensor, " batch"], confidence: float, generator: Generator
) -> Estimates:
    # The samples are unit vectors, so that their mean is the weight of each pair: a resample then costs one product and no copy.
    def ratio(chosen: Float[Tensor, "sample batch"]) -> Float[Tensor, " row"]:
        weights = chosen.mean(0)
        below = weights @ difference
        return (
            weights @ change / below
            if abs(float(below)) >= SMALLEST_DIFFERENCE
            else torch.full_like(change[0], torch.nan)
        )

    unit = torch.eye(len(change), dtype=torch.float64)
    return bootstrap_estimates(unit, ratio, generator, draws=_DRAWS, confidence=confidence)

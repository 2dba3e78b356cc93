"""What logits are: their spread over the vocabulary, and that adding a constant to all of them changes no probability.

``softmax(l)_i = e^(l_i) / sum_j e^(l_j)``. With ``l + c`` both sides of the fraction gain the factor ``e^c``, so only differences of
logits matter: ``p_i / p_j = e^(l_i - l_j)``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """How the logits of a vocabulary lie: ``counts`` of equal intervals from ``start`` on, each ``width`` wide, with mean and deviation."""

    counts: Int[Tensor, " bin"]
    start: float
    width: float
    mean: float
    std: float
    log_sum_exp: float


def spread(logits: Float[Tensor, " d_vocab"], n_bins: int = 48) -> Spread:
    """The histogram of all logits from the least to the greatest, in float64; the greatest counts in the last interval."""
    logits = logits.double()
    least, greatest = float(logits.min()), float(logits.max())
    width = (greatest - least) / n_bins or 1.0
    bins = ((logits - least) / width).long().clamp(max=n_bins - 1)
    return Spread(
        counts=torch.bincount(bins, minlength=n_bins),
        start=least,
        width=width,
        mean=float(logits.mean()),
        std=float(logits.std(correction=0)),
        log_sum_exp=float(logits.logsumexp(-1)),
    )


def shifted_probabilities(
    logits: Float[Tensor, " d_vocab"], shift: float
) -> tuple[Float[Tensor, " d_vocab"], Float[Tensor, " d_vocab"]]:
    """The probabilities of the logits, and those of all logits plus ``shift``, in float64."""
    logits = logits.double()
    return logits.softmax(-1), (logits + shift).softmax(-1)

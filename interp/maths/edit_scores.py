"""What an edit did, in numbers: the scores of Meng et al. 2022, divergence, perplexity.

``nats`` of an answer is its mean negative log-likelihood per token after the prompt (teacher forcing), so that the "probability" of
an answer is exp(-nats), the geometric mean over its tokens. A NaN is a prompt that was not measured: it is left out.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

PAPERS_QUANTILE = 1.96
"""Standard errors that the papers' 95 % intervals reach to either side."""


def preferred(first_nats: Float[Tensor, "*batch"], other_nats: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """1 where the first answer is the likelier one, else 0: a tie is a failure. NaN where either is."""
    unmeasured = first_nats.isnan() | other_nats.isnan()
    return (first_nats < other_nats).double().masked_fill(unmeasured, float("nan"))


def magnitude(first_nats: Float[Tensor, "*batch"], other_nats: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The probability of the first answer less that of the other, each the geometric mean over its tokens."""
    return (-first_nats.double()).exp() - (-other_nats.double()).exp()


def mean_within(values: Float[Tensor, " batch"], case: Int[Tensor, " batch"], n_cases: int) -> Float[Tensor, " case"]:
    """The mean of the values of each case, NaN where it has none."""
    values, case = values.cpu().double(), case.cpu()
    there = ~values.isnan()
    sums = torch.zeros(n_cases, dtype=torch.float64).index_add(0, case, values.nan_to_num(nan=0.0))
    return sums / torch.zeros(n_cases, dtype=torch.float64).index_add(0, case, there.double())


def harmonic_mean(parts: Float[Tensor, "*batch metric"]) -> Float[Tensor, "*batch"]:
    """The harmonic mean over the last axis: 0 where any part is 0 (or below), NaN where any is NaN."""
    inverse = parts.double().clamp(min=0).reciprocal()
    return parts.shape[-1] / inverse.sum(-1)


def papers_half_width(samples: Float[Tensor, " sample"]) -> float:
    """Half the papers' 95 % interval of a mean: 1.96 standard deviations (of the samples, divisor n) over the root of n; NaN for none."""
    there = samples[~samples.isnan()].cpu().double()
    if not len(there):
        return float("nan")
    return PAPERS_QUANTILE * float(there.std(correction=0)) / len(there) ** 0.5


def divergence(
    before: Float[Tensor, "batch d_vocab"], after: Float[Tensor, "batch d_vocab"]
) -> Float[Tensor, " batch"]:
    """KL(before || after) of two sets of log-probabilities, in nats."""
    return (before.exp() * (before - after)).sum(-1).clamp(min=0)  # rounding can put it a little below its least value


def perplexity(nats: Float[Tensor, "*batch sample"], n_tokens: Int[Tensor, " sample"]) -> Float[Tensor, "*batch"]:
    """The exponential of the mean loss per token over all texts, each of which counts by its tokens.

    ``nats`` are sums over each text.
    """
    return (nats.double().sum(-1) / n_tokens.double().sum()).exp()

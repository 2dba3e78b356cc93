"""Whether a head copies: what its W_OV does to the logit of the very token it reads (Elhage et al. 2021)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from interp.analyzers.circuit_weights import layer_weights, one_of, ov_circuits, unembedding_blocks, vocabulary_moments
from interp.errors import UsageError
from interp.heads import Head
from interp.maths.estimates import Estimate
from interp.maths.head_circuits import Circuit, eigenvalue_score, own_token_ranks, vocabulary_eigenvalues
from interp.maths.statistics import mean_estimates
from interp.models.vocabulary import embeddings, n_tokens, unembeddings
from interp.runner.model import Model

_AT_ONCE = 2048
COPY_TOKENS = 2048
"""Tokens drawn for the direct copying scores: their standard error is then below 0.012."""


@dataclass(frozen=True, kw_only=True)
class Copying:
    """How often W_OV promotes the very token it reads, over ``top.n`` tokens of the vocabulary, drawn evenly or all of them.

    ``top`` is the share of tokens that are promoted most of all, ``top_percent`` that of tokens in the best hundredth of the vocabulary,
    ``percentile`` the mean share of the other tokens that are promoted less: 0.5 for a head that has nothing to do with copying.
    Over all tokens the bounds are the value itself, over ``drawn`` ones they enclose 95 %.
    """

    top: Estimate
    top_percent: Estimate
    percentile: Estimate
    drawn: bool


def ov_eigenvalue_scores(model: Model, *, centred: bool = False) -> Float[Tensor, "layer head"]:
    """The eigenvalue copying score of every head: see ``interp.maths.head_circuits.eigenvalue_score``.

    ``centred`` takes the mean over the vocabulary off every logit first, which a softmax does not see.
    """
    moments = vocabulary_moments(model)
    moment = moments.copying_centred if centred else moments.copying
    circuits = (ov_circuits(layer_weights(model, layer)) for layer in range(model.atlas.n_layers))
    return torch.stack([eigenvalue_score(vocabulary_eigenvalues(ov, moment)) for ov in circuits]).float()


def ov_copying(
    model: Model, head: Head, *, copy_tokens: int | None = COPY_TOKENS, generator: Generator | None = None
) -> Copying:
    """The direct copying scores of one head's W_OV; ``copy_tokens`` tokens drawn by the generator; None, or as many as there are: all."""
    weights = layer_weights(model, head.layer)
    drawn = torch.Generator().manual_seed(0) if generator is None else generator
    return copying_of(model, one_of(ov_circuits(weights), head.head), copy_tokens, drawn)


def copying_of(model: Model, ov: Circuit, copy_tokens: int | None, generator: Generator) -> Copying:
    """The direct copying scores of one W_OV. Raises UsageError for a number of tokens that cannot be drawn."""
    count = n_tokens(model.hf, model.atlas)
    if copy_tokens is not None and copy_tokens < 2:
        raise UsageError(f"copy_tokens is {copy_tokens}; valid: 2 to {count}, or None for all tokens")
    drawn = copy_tokens is not None and copy_tokens < count
    ids = torch.randperm(count, generator=generator)[:copy_tokens].sort().values if drawn else torch.arange(count)
    parts = []
    for some in ids.split(_AT_ONCE):
        rows = [table(model.hf, model.atlas, some).to(ov.read) for table in (embeddings, unembeddings)]
        blocks = ((block, unembedded.to(ov.read)) for block, unembedded in unembedding_blocks(model))
        parts.append(own_token_ranks(ov, some, rows[0], rows[1], blocks).cpu())
    rank = torch.cat(parts).double()
    percentile = mean_estimates(1 - rank / max(count - 1, 1)).at()
    return Copying(
        top=_share(rank == 0, drawn=drawn),
        top_percent=_share(rank < count / 100, drawn=drawn),
        percentile=percentile if drawn else _exact(percentile.value, len(rank)),
        drawn=drawn,
    )


def _share(hits: Bool[Tensor, " sample"], *, drawn: bool) -> Estimate:
    """The share of hits with its Wilson score interval, which has a width where there is no hit (Wilson 1927)."""
    n, z = len(hits), 1.959964
    share = float(hits.double().mean())
    if not drawn:
        return _exact(share, n)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(value=share, lower=max(0.0, centre - half), upper=min(1.0, centre + half), n=n)


def _exact(value: float, n: int) -> Estimate:
    return Estimate(value=value, lower=value, upper=value, n=n)

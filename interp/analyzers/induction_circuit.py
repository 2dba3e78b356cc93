"""The mechanism of an induction head, from weights: does it copy, and which earlier head tells its keys what stands before them?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.circuit_weights import layer_weights, one_of, ov_circuits, vocabulary_moments
from interp.analyzers.head_composition import HeadCompositionResult, head_composition
from interp.analyzers.ov_copying import copying_of
from interp.heads import Head
from interp.maths.estimates import Estimate
from interp.maths.head_circuits import eigenvalue_score, vocabulary_eigenvalues
from interp.models.vocabulary import n_tokens
from interp.runner.model import Model

_COPY_TOKENS = 512
PREVIOUS_TOKEN = 0.3
"""The least mean attention to the token just before for a head to count as a previous-token head."""


@dataclass(frozen=True, kw_only=True)
class Partner:
    """The previous-token head whose output the keys of an induction head read most.

    ``composition`` is the K-composition of the two, ``null_mean`` that of the partner turned at random, ``z`` how many
    standard deviations of this null it lies above. ``place`` is its place among the ``of`` earlier heads by composition, 1 being the
    strongest; ``previous_token`` its mean attention to the token just before.
    """

    head: Head
    composition: float
    null_mean: float
    z: float
    place: int
    of: int
    previous_token: float


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """What the weights say of a head.

    ``eigenvalue_score`` is from -1 (suppresses the token it reads) to 1 (copies it), ``copying`` the mean share of the other tokens that
    W_OV, read through the final norm and the unembedding, promotes less than the token itself: 0.5 for a head that has nothing
    to do with copying. ``partner`` is None where no earlier head attends to the token before.
    """

    eigenvalue_score: float
    copying: Estimate
    partner: Partner | None


def mechanisms(
    model: Model,
    heads: Sequence[Head],
    previous: Float[Tensor, "layer head"],
    *,
    draws: int,
    seed: int,
) -> tuple[Mechanism, ...]:
    """The mechanism of each head. ``previous`` is every head's mean attention to the token just before.

    Raises ModelError for a family whose heads have no weights of their own.
    """
    if not heads:
        return ()
    moments = vocabulary_moments(model)
    readers = [head for head in heads if head.layer > 0]
    composed = head_composition(model, "k", heads=readers, draws=draws, seed=seed) if readers else None
    generator = torch.Generator().manual_seed(seed)
    count = min(_COPY_TOKENS, n_tokens(model.hf, model.atlas))
    found = []
    for head in heads:
        ov = one_of(ov_circuits(layer_weights(model, head.layer)), head.head)
        found.append(
            Mechanism(
                eigenvalue_score=float(eigenvalue_score(vocabulary_eigenvalues(ov, moments.copying))),
                copying=copying_of(model, ov, count, generator).percentile,
                partner=None
                if composed is None or head not in composed.readers
                else _partner(composed, head, previous),
            )
        )
    return tuple(found)


def _partner(composed: HeadCompositionResult, reader: Head, previous: Float[Tensor, "layer head"]) -> Partner | None:
    """The strongest partner among the earlier heads that attend to the token before."""
    row, n_heads = composed.readers.index(reader), composed.n_heads
    earlier = composed.composition[row, : reader.layer * n_heads]
    looking_back = (previous.flatten()[: len(earlier)] >= PREVIOUS_TOKEN) & ~earlier.isnan()
    if not looking_back.any():
        return None
    best = int(earlier.masked_fill(~looking_back, -1.0).argmax())
    return Partner(
        head=Head(*divmod(best, n_heads)),
        composition=float(earlier[best]),
        null_mean=float(composed.null_mean[row, best]),
        z=float(composed.z[row, best]),
        place=1 + int((earlier > earlier[best]).sum()),
        of=int((~earlier.isnan()).sum()),
        previous_token=float(previous.flatten()[best]),
    )

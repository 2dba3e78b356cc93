"""How far logits lie apart, position by position, and whether another token ranks first."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EDGES = (0.25, 0.5, 1.0, 2.0)
"""Gaps between the two best tokens, in units of the drift at their position; beyond the last nothing can flip."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift:
    """What became of each position of all prompts, one after the other.

    ``drift`` is the greatest difference of any logit, ``gap`` that between the two greatest logits of what is compared with, both in
    logits; ``flipped`` says whether another token ranks first, ``equal`` whether all logits have the same bits.
    """

    dtype: str
    way: str
    drift: Float[Tensor, " pos"]
    gap: Float[Tensor, " pos"]
    flipped: Bool[Tensor, " pos"]
    equal: Bool[Tensor, " pos"]

    @property
    def n_flipped(self) -> int:
        """Positions where another token ranks first."""
        return int(self.flipped.sum())

    @property
    def reach(self) -> Float[Tensor, " pos"]:
        """The gap in units of the drift; infinite where nothing drifted.

        Where it exceeds 2 the first token stays the first: it loses one drift at most, and another gains one.
        """
        return torch.where(self.drift > 0, self.gap / self.drift, torch.inf)


def compare(
    dtype: str, way: str, found: Sequence[Float[Tensor, "pos d_vocab"]], base: Sequence[Float[Tensor, "pos d_vocab"]]
) -> Drift:
    """The logits of each prompt against those of ``base``."""
    parts = [_compared(one.double(), other.double()) for one, other in zip(found, base, strict=True)]
    drift, gap, flipped, equal = (torch.cat(column) for column in zip(*parts, strict=True))
    return Drift(dtype=dtype, way=way, drift=drift, gap=gap, flipped=flipped, equal=equal)


def _compared(found: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    best = base.topk(2).values
    apart = (found - base).abs().amax(-1)
    return apart, best[:, 0] - best[:, 1], found.argmax(-1) != base.argmax(-1), (found == base).all(-1)


def flip_rates(drifts: Sequence[Drift]) -> tuple[tuple[int, int], ...]:
    """(flips, positions) of all these together: by the gap in units of the drift, up to each of ``EDGES`` and beyond the last.

    Positions where nothing drifted are left out.
    """
    reach = torch.cat([one.reach for one in drifts])
    flipped = torch.cat([one.flipped for one in drifts])
    place = torch.bucketize(reach, torch.tensor(EDGES, dtype=reach.dtype))
    moved = reach.isfinite()
    return tuple(
        (int((flipped & moved & (place == index)).sum()), int((moved & (place == index)).sum()))
        for index in range(len(EDGES) + 1)
    )

"""Every prompt in every way and dtype: how far the logits drift from the prompt alone, and from float64."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.nondeterminism.config import Config
from experiments.nondeterminism.drift import Drift, compare
from experiments.nondeterminism.reference import in_float64
from experiments.nondeterminism.ways import logits, ways_of
from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """``ways`` are each way's drift from the prompt alone in the same dtype; ``exact`` that of the prompt alone from float64, by dtype.

    ``tied`` is, by dtype, the share of positions at which two tokens share the greatest logit.
    """

    n_positions: int
    ways: tuple[Drift, ...]
    exact: dict[str, Drift]
    tied: dict[str, float]

    def of(self, dtype: str, way: str) -> Drift:
        """The drift of one way in one dtype."""
        return next(one for one in self.ways if (one.dtype, one.way) == (dtype, way))

    def moved(self, dtype: str) -> tuple[Drift, ...]:
        """The drifts of all ways of a dtype but the one that repeats the first."""
        return tuple(one for one in self.ways if one.dtype == dtype)[1:]


def measure(
    config: Config, load: Callable[[str], Model], prompts: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> Found:
    """All ways of all dtypes; ``load`` gives the model in a dtype."""
    model = load("float32")
    ids = [list(model.tokens(prompt).ids) for prompt in prompts[: config.prompts]]
    text = list(model.tokens(" ".join(prompts)).ids)
    longer = (text * -(-config.beside // len(text)))[: max(config.beside, *map(len, ids))]
    exact = _exact(model, ids)
    ways: list[Drift] = []
    against: dict[str, Drift] = {}
    tied: dict[str, float] = {}
    for dtype in config.dtypes:
        model = load(dtype)
        first, *others = ways_of(config)
        base = [logits(model, prompt, first, longer) for prompt in ids]
        against[dtype] = compare(dtype, first.name, base, exact)
        for way in others:
            found = [logits(model, prompt, way, longer) for prompt in ids]
            ways.append(compare(dtype, way.name, found, base))
            say(_shown(ways[-1]))
        tied[dtype] = float((ways[-1].gap == 0).double().mean())
    return Found(n_positions=sum(map(len, ids)), ways=tuple(ways), exact=against, tied=tied)


@torch.no_grad()
def _exact(model: Model, ids: Sequence[Sequence[int]]) -> list[Tensor]:
    """The logits of each prompt in float64."""
    reference = in_float64(model.hf)
    return [reference(torch.tensor([list(prompt)])).logits[0] for prompt in ids]


def _shown(drift: Drift) -> str:
    return f"{drift.dtype}, {drift.way}: up to {float(drift.drift.max()):.2g} logits, {drift.n_flipped} of {len(drift.drift)} flipped"

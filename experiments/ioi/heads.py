"""Each head's effect on the logit difference, patched exactly and estimated from gradients, and how well the two agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.ioi.config import Config
from experiments.ioi.pairs import Flip
from interp.analyzers.activation_patching import activation_patching
from interp.analyzers.activation_patching_result import ActivationPatchingResult
from interp.analyzers.attribution_patching import attribution_patching
from interp.heads import Head
from interp.maths.attribution_patching import rank_correlation
from interp.maths.estimates import Estimates
from interp.runner.model import Model

SITE = "attn.z"


@dataclass(frozen=True, kw_only=True, eq=False)
class Swept:
    """Effects of all heads, [layer head], each with its bootstrap interval over pairs, and the seconds that it took to find them."""

    name: str
    effects: Estimates
    seconds: float

    @property
    def values(self) -> Float[Tensor, "layer head"]:
        """The effects alone."""
        return self.effects.value

    def top(self, k: int) -> tuple[Head, ...]:
        """The ``k`` heads whose effects are furthest from 0, furthest first."""
        order = self.values.abs().flatten().argsort(descending=True)[:k].tolist()
        return tuple(Head(*divmod(index, self.values.shape[1])) for index in order)


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """The exact sweep and its estimates: by the gradient at the corrupted run, and by integrated gradients."""

    exact: Swept
    gradient: Swept
    integrated: Swept
    n_pairs: int
    clean: float
    corrupted: float

    def overlap(self, estimate: Swept, k: int) -> int:
        """How many of the ``k`` strongest heads of the exact sweep are among those of an estimate."""
        return len(set(self.exact.top(k)) & set(estimate.top(k)))

    def correlation(self, estimate: Swept) -> float:
        """Spearman's rank correlation of an estimate with the exact effects over all heads in which anything changes."""
        both = torch.stack([estimate.values.flatten(), self.exact.values.flatten()], 1)
        return float(rank_correlation(both[(both != 0).any(1)]))


def measure(model: Model, flips: Sequence[Flip], config: Config, folder: Path, say: Callable[[str], None]) -> Heads:
    """Patches every head of the clean prompts into the corrupted ones, at all positions, exactly and by estimate.

    A stopped exact sweep goes on from the checkpoint in ``folder``.
    """
    prompts = ([flip.clean for flip in flips], [flip.corrupted for flip in flips])
    asked: dict[str, Any] = {
        "target": [flip.answer for flip in flips],
        "against": [flip.against for flip in flips],
        "metric": "logit_difference",
        "sites": (SITE,),
        "by": "head",
        "seed": config.seed,
    }
    exact, whole = _timed(
        "exact sweep", lambda: activation_patching(model, *prompts, checkpoint=folder / "exact.part", **asked), say
    )
    gradient, _ = _timed("gradient", lambda: attribution_patching(model, *prompts, check=0, **asked), say)
    integrated, _ = _timed(
        "integrated gradients",
        lambda: attribution_patching(model, *prompts, check=0, steps=config.steps, **asked),
        say,
    )
    return Heads(
        exact=exact,
        gradient=gradient,
        integrated=integrated,
        n_pairs=whole.n_pairs,
        clean=float(whole.clean_metric.double().mean()),
        corrupted=float(whole.corrupted_metric.double().mean()),
    )


def _timed(
    name: str, call: Callable[[], ActivationPatchingResult], say: Callable[[str], None]
) -> tuple[Swept, ActivationPatchingResult]:
    start = perf_counter()
    result = call()
    seconds = perf_counter() - start
    say(f"{name}: {seconds:.1f} s")
    return Swept(name=name, effects=result.effects(SITE), seconds=seconds), result

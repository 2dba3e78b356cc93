"""Each head's effect on the logit difference, patched exactly and estimated from gradients, and how well the two agree."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
from interp.files import write_bytes
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

    Finished sweeps lie in ``folder``, and an exact one that was stopped goes on from its checkpoint there.
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
    calls: dict[str, Callable[[], ActivationPatchingResult]] = {
        "exact sweep": lambda: activation_patching(model, *prompts, checkpoint=folder / "exact.part", **asked),
        "gradient": lambda: attribution_patching(model, *prompts, check=0, **asked),
        "integrated gradients": lambda: attribution_patching(model, *prompts, check=0, steps=config.steps, **asked),
    }
    digest = _digest(model, flips, config)
    found = {name: _kept(name, call, folder, digest, say) for name, call in calls.items()}
    exact, gradient, integrated = (Swept(name=n, effects=r.effects(SITE), seconds=s) for n, (r, s) in found.items())
    whole = found["exact sweep"][0]
    return Heads(
        exact=exact,
        gradient=gradient,
        integrated=integrated,
        n_pairs=whole.n_pairs,
        clean=float(whole.clean_metric.double().mean()),
        corrupted=float(whole.corrupted_metric.double().mean()),
    )


def _kept(
    name: str, call: Callable[[], ActivationPatchingResult], folder: Path, digest: str, say: Callable[[str], None]
) -> tuple[ActivationPatchingResult, float]:
    """The result of a sweep and its seconds; what an earlier run with the same pairs, settings and weights has left is read."""
    path = folder / f"{name.replace(' ', '-')}-{digest}.safetensors"
    clock = path.with_suffix(".json")
    if path.is_file() and clock.is_file():
        return ActivationPatchingResult.load(path), json.loads(clock.read_text())
    start = perf_counter()
    result = call()
    seconds = perf_counter() - start
    say(f"{name}: {seconds:.1f} s")
    result.save(path)
    write_bytes(clock, json.dumps(seconds).encode())
    return result, seconds


def _digest(model: Model, flips: Sequence[Flip], config: Config) -> str:
    """What the sweeps depend on, as a part of their files' names."""
    weights = model.source.weights_sha256 if model.source else model.name
    whole = json.dumps([weights, config.steps, config.seed, [asdict(flip) for flip in flips]])
    return hashlib.sha256(whole.encode()).hexdigest()[:12]

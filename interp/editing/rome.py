"""ROME: one fact, one layer, a rank-one change (Meng et al. 2022, section 3.1; Gupta et al. 2024 for the averaged key)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.editing.edit import ValueCurve
from interp.editing.kept_facts import kept_keys
from interp.editing.near_misses import near_miss_keys, near_misses, overhearers
from interp.editing.rewrite import Rewrite
from interp.editing.settings import EditSettings
from interp.editing.value import optimise_value
from interp.maths.rank_one import (
    Direction,
    LowRank,
    key_covariance,
    key_direction,
    mean_outer,
    rank_one_change,
    sum_outer,
)
from interp.prompts import Fact
from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Rewritten:
    """The changes of some facts by layer, and how their values were found."""

    changes: dict[int, LowRank]
    curves: tuple[ValueCurve, ...]


def rome_change(
    model: Model,
    rewrite: Rewrite,
    layer: int,
    moment: Float64[Tensor, "d_mlp d_mlp"],
    settings: EditSettings,
    keep: Sequence[Fact] = (),
) -> Rewritten:
    """The change r u^T / (u^T k) with u = C^-1 k_mean / |C^-1 k_mean|, k_mean the key averaged over contexts.

    With ``settings.averaged`` k and the value that the residual r starts from are averages too (r-ROME); without it they are those of
    the bare prompt, as in the original code. Either way r = v* - W k is delta, since v* = W k + delta.

    ``settings.context_weight`` adds that much of the covariance of the keys over contexts to C. Then u^T k hardly depends on the
    context, where with C alone the bare prompt may get a part of delta only: least squares over all contexts instead of an equation
    for their average. ``settings.near_miss_weight`` adds the keys of other subjects with the same ending (``near_miss_keys``): at the
    last token alone "Mertz Glacier" and "Hood Glacier" hardly differ. ``settings.keep_weight`` adds the key of each fact of ``keep``.
    Solved on the CPU, where second moments lie; float64 is not to be had on every device.

    With ``settings.as_heard`` the value is optimised with the share of it that each prompt will hear, u^T k of its key over that of the
    averaged key. ``settings.overhearers`` of the near misses that hear the edit all the same take part with theirs.
    """
    direction = edit_direction(model, rewrite, layer, moment, settings, keep)
    wanted = settings.overhearers if settings.overhearing_weight else 0
    others = overhearers(model, rewrite, layer, direction, wanted)
    value = optimise_value(model, rewrite, layer, settings, direction=direction, overhearers=others)
    change = rank_one_change(value.delta.cpu(), direction.vector, direction.key)
    return Rewritten(changes={layer: change}, curves=(value.curve,))


def edit_direction(
    model: Model,
    rewrite: Rewrite,
    layer: int,
    moment: Float64[Tensor, "d_mlp d_mlp"],
    settings: EditSettings,
    keep: Sequence[Fact] = (),
) -> Direction:
    """The direction u of an edit and its key k, see ``rome_change``."""
    keys = context_keys(model, rewrite, layer, subjects=settings.subject_contexts).cpu()
    mean = keys.mean(0)
    weighed = moment + settings.context_weight * key_covariance(keys)
    if settings.near_misses and settings.near_miss_weight:
        misses = near_miss_keys(model, rewrite, layer, near_misses(rewrite, model, settings.near_misses))
        weighed = weighed + settings.near_miss_weight * mean_outer(misses.cpu())
    if keep and settings.keep_weight:
        weighed = weighed + settings.keep_weight * sum_outer(kept_keys(model, keep, layer))
    return Direction(vector=key_direction(weighed, mean), key=mean if settings.averaged else keys[0])


def context_keys(model: Model, rewrite: Rewrite, layer: int, *, subjects: bool) -> Float[Tensor, "context d_mlp"]:
    """The keys at the subject's last token of the prompt in each context, the bare prompt's first; then those of "{subject} is a"."""
    tokens, positions = list(rewrite.prompts), list(rewrite.positions)
    if subjects:
        tokens, positions = [*tokens, *rewrite.subjects], [*positions, *rewrite.subject_positions]
    run = model.run(tokens, capture=f"mlp.post@{layer}", logits=False)
    return run.cache[f"mlp.post@{layer}"][torch.arange(len(tokens)), positions].float()

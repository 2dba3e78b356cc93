"""ROME: one fact, one layer, a rank-one change (Meng et al. 2022, section 3.1; Gupta et al. 2024 for the averaged key)."""

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from interp.editing.edit import ValueCurve
from interp.editing.rewrite import Rewrite
from interp.editing.settings import EditSettings
from interp.editing.value import optimise_value
from interp.maths.rank_one import LowRank, key_direction, rank_one_change
from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Rewritten:
    """The changes of some facts by layer, and how their values were found."""

    changes: dict[int, LowRank]
    curves: tuple[ValueCurve, ...]


def rome_change(
    model: Model, rewrite: Rewrite, layer: int, moment: Float64[Tensor, "d_mlp d_mlp"], settings: EditSettings
) -> Rewritten:
    """The change r u^T / (u^T k) with u = C^-1 k_mean / |C^-1 k_mean|, k_mean the key averaged over contexts.

    With ``settings.averaged`` k and the value that the residual r starts from are averages too (r-ROME); without it they are those of
    the bare prompt, as in the original code. Either way r = v* - W k is delta, since v* = W k + delta.
    """
    value = optimise_value(model, rewrite, layer, settings)
    mean = value.keys.mean(0)
    direction = key_direction(moment, mean)
    change = rank_one_change(value.delta, direction, mean if settings.averaged else value.keys[0])
    return Rewritten(changes={layer: change}, curves=(value.curve,))

"""The heads that one head composes with: those before it that it reads, and those after it that read it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from interp.analyzers.head_composition import Outputs, pair_up, read_inputs, read_outputs
from interp.heads import Head
from interp.maths.head_composition import THROUGH, random_rotations
from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Partners:
    """Composition of the head with all others; it reads (``reads``) earlier heads or is read by later ones through "q", "k" or "v".

    NaN for heads that are on the wrong side of it. ``null_*`` are those of the rotation null.
    """

    through: str
    reads: bool
    composition: Float[Tensor, "layer head"]
    null_mean: Float[Tensor, "layer head"]
    null_sd: Float[Tensor, "layer head"]

    @property
    def z(self) -> Float[Tensor, "layer head"]:
        """The composition in standard deviations above the mean of the null."""
        return (self.composition - self.null_mean) / self.null_sd

    def strongest(self, count: int) -> tuple[Head, ...]:
        """The heads that compose most, strongest first."""
        values = self.composition.flatten().nan_to_num(nan=-1.0)
        best = values.argsort(descending=True, stable=True)[:count].tolist()
        return tuple(Head(*divmod(index, self.composition.shape[1])) for index in best if float(values[index]) >= 0)

    @property
    def typical(self) -> float:
        """The median over the heads on the right side; NaN where there is none."""
        return float(self.composition.nanmedian())


def partners_of(model: Model, head: Head, generator: Generator, draws: int) -> tuple[Partners, ...]:
    """Every kind of composition with every earlier head, and with every later one."""
    n_layers, n_heads = model.atlas.n_layers, model.atlas.n_heads
    earlier, later = (
        [Head(layer, number) for layer in layers for number in range(n_heads)]
        for layers in (range(head.layer), range(head.layer + 1, n_layers))
    )
    found = []
    rotations = random_rotations(model.atlas.d_model, min(model.atlas.d_head, model.atlas.d_model), generator, draws)
    outputs = read_outputs(model, earlier) if earlier else None
    own = read_outputs(model, [head])
    for through in THROUGH:
        found.append(_as_reader(model, head, outputs, through, rotations))
    for through in THROUGH:
        blank = torch.full((3, n_layers, n_heads), float("nan"))
        if later:
            pairs = pair_up(own, read_inputs(model, later, through), rotations)
            values = torch.stack([pairs.composition, pairs.null_mean, pairs.null_sd])
            blank[:, head.layer + 1 :] = values.reshape(3, -1, n_heads)
        found.append(_partner(through, False, blank))
    return tuple(found)


def _as_reader(
    model: Model,
    head: Head,
    outputs: Outputs | None,
    through: str,
    rotations: Float[Tensor, "sample direction direction"],
) -> Partners:
    blank = torch.full((3, model.atlas.n_layers, model.atlas.n_heads), float("nan"))
    if outputs is not None:
        pairs = pair_up(outputs, read_inputs(model, [head], through), rotations)
        values = torch.stack([pairs.composition, pairs.null_mean, pairs.null_sd])
        blank[:, : head.layer] = values.reshape(3, -1, model.atlas.n_heads)
    return _partner(through, True, blank)


def _partner(through: str, reads: bool, values: Float[Tensor, "3 layer head"]) -> Partners:
    return Partners(through=through, reads=reads, composition=values[0], null_mean=values[1], null_sd=values[2])

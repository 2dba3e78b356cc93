"""Position encoding: how a model tells one place from another, and what that alone does to a query and a key by their distance."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import UsageError
from interp.maths.position_encoding import cosine_by_distance, kept_by_rotation, turning_angles
from interp.models.positions import alibi_slopes, learned_positions
from interp.models.rotary import rotations
from interp.results import Result
from interp.runner.model import Model
from interp.sites import name_layers

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

LONGEST = 4096
_STEPS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Rotation:
    """A rotation of queries and keys (RoPE) that ``layers`` share.

    ``angles`` are the radians a token by which pairs of coordinates turn; 2 pi over one is its wavelength in tokens. ``kept`` is what it
    leaves, at each distance, of the product of a query and a key that are the same vector, on average over directions. Both are None
    where the family's rotation cannot be called on its own.
    """

    layers: tuple[int, ...]
    angles: Float[Tensor, " turn"] | None
    kept: Float[Tensor, " distance"] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionEncodingResult(Result):
    """How positions enter: by ``schemes``, one a layer, ``rotary``, ``alibi``, ``learned`` or ``none``.

    ``rotations`` are the distinct rotations. ``learned_norms`` are the lengths of the learned row of each position, ``learned_cosine`` the
    mean cosine of rows at each distance. ``alibi_slopes`` is what a head's score loses a token of distance, before the softmax. What
    the model does not have is None or empty. ``distances`` are in tokens.
    """

    kind: ClassVar[str] = "position_encoding"
    schema_version: ClassVar[int] = 1

    schemes: tuple[str, ...]
    d_head: int
    n_ctx: int | None
    distances: Int[Tensor, " distance"]
    rotations: tuple[Rotation, ...]
    learned_norms: Float[Tensor, " pos"] | None
    learned_cosine: Float[Tensor, " distance"] | None
    alibi_slopes: Float[Tensor, " head"] | None

    @property
    def curves(self) -> dict[str, Float[Tensor, " distance"]]:
        """What there is to draw over ``distances``: a curve for each rotation, for learned rows, or for each head's ALiBi."""
        several = len(self.rotations) > 1
        found = {
            "rotation" + (f" of layers {name_layers(rotation.layers)}" if several else ""): rotation.kept
            for rotation in self.rotations
            if rotation.kept is not None
        }
        if self.learned_cosine is not None:
            found["learned rows"] = self.learned_cosine
        if self.alibi_slopes is not None:
            for head, slope in enumerate(self.alibi_slopes.tolist()):
                found[f"head {head}"] = -slope * self.distances.double()
        return found

    @property
    def unit(self) -> str:
        """What the curves are."""
        if self.alibi_slopes is not None:
            return "added to the score"
        return "part of q·k kept" if self.rotations else "cosine of the rows of two positions"

    def to_frame(self) -> "DataFrame":
        """One line for each curve and distance."""
        import pandas as pd

        lines = [
            {"curve": name, "distance_tokens": distance, "measure": self.unit, "value": value}
            for name, curve in self.curves.items()
            for distance, value in zip(self.distances.tolist(), curve.tolist(), strict=True)
        ]
        return pd.DataFrame(lines, columns=["curve", "distance_tokens", "measure", "value"])

    def figure(self) -> "Figure":
        """The curves over the distance. Raises UsageError where nothing could be measured."""
        from interp.figures.position_encoding import distance_curves

        curves = self.curves
        if not curves:
            raise UsageError(f"there is nothing to draw: positions enter by {', '.join(sorted(set(self.schemes)))}")
        return distance_curves(
            {name: curve.double().numpy() for name, curve in curves.items()}, self.distances.numpy(), unit=self.unit
        )


@torch.no_grad()
def position_encoding(model: Model, *, longest: int | None = None) -> PositionEncodingResult:
    """Reads how positions enter from the model's own tables and functions.

    Args:
        model: the model.
        longest: the greatest distance in tokens to look at; by default the model's context, but no more than 4096.

    Raises:
        UsageError: ``longest`` is no distance inside the model's context.

    """
    atlas = model.atlas
    learned, slopes = learned_positions(model.hf, atlas), alibi_slopes(model.hf, atlas)
    context = atlas.n_ctx if learned is None else len(learned)
    limit = LONGEST if context is None else min(LONGEST, context - 1)
    if longest is not None and (longest < 1 or (context is not None and longest >= context)):
        raise UsageError(f"longest is {longest}; valid: 1 to {'any' if context is None else context - 1}")
    distances = _spread(longest or limit)
    return PositionEncodingResult(
        provenance=model.provenance(),
        schemes=tuple(
            "rotary" if block.rotary else "alibi" if slopes is not None else "none" if learned is None else "learned"
            for block in atlas.blocks
        ),
        d_head=atlas.d_head,
        n_ctx=atlas.n_ctx,
        distances=distances,
        rotations=_rotations(model, distances),
        learned_norms=None if learned is None else learned.float().norm(dim=-1).cpu(),
        learned_cosine=None if learned is None else cosine_by_distance(learned.cpu(), distances),
        alibi_slopes=None if slopes is None else slopes.cpu(),
    )


def _spread(longest: int) -> Int[Tensor, " distance"]:
    """Distances from 1, all of the first few and then ever further apart; the powers of ten are among them."""
    even = torch.logspace(0, 1, _STEPS, base=float(longest), dtype=torch.float64).round().long()
    tens = torch.tensor([10**power for power in range(20) if 10**power <= longest])
    return torch.cat([torch.arange(1, min(longest, 16) + 1), even, tens]).unique()


def _rotations(model: Model, distances: Int[Tensor, " distance"]) -> tuple[Rotation, ...]:
    """The distinct rotations, each with its layers. Layers are told apart by what they do to position 1."""
    groups: list[tuple[Tensor | None, list[int]]] = []
    for layer, block in enumerate(model.atlas.blocks):
        if block.rotary:
            step = rotations(model.hf, model.atlas, layer, [1])
            group = next((group for group in groups if _same(group[0], step)), None)
            if group is None:
                groups.append((step, [layer]))
            else:
                group[1].append(layer)
    found = []
    for step, layers in groups:
        turned = None if step is None else rotations(model.hf, model.atlas, layers[0], [0, *distances.tolist()])
        found.append(
            Rotation(
                layers=tuple(layers),
                angles=None if step is None else turning_angles(step[0].cpu()),
                kept=None if turned is None else kept_by_rotation(turned.cpu())[1:],
            )
        )
    return tuple(found)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)

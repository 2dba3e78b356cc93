"""What position encodings do to the product of a query and a key by their distance."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def turning_angles(step: Float[Tensor, "d_head d_head"]) -> Float[Tensor, " turn"]:
    """The angles in radians by which one step of a rotation turns its pairs of coordinates, greatest first.

    ``step`` is the rotation of position 1 as a matrix: every coordinate is mixed with one other, its partner, or with none. A scale of the
    whole matrix does not matter.
    """
    mixed = step.double().abs()
    mixed.fill_diagonal_(0)
    sines, partners = mixed.max(1)
    # Each pair once. A coordinate without a partner is not turned.
    first = (sines > 0) & (torch.arange(len(step), device=step.device) < partners)
    return torch.atan2(sines[first], step.double().diagonal()[first]).sort(descending=True).values


def kept_by_rotation(rotations: Float[Tensor, "distance d_head d_head"]) -> Float[Tensor, " distance"]:
    """What is left of q·k, on average, when key and query are the same vector of any direction and only the rotation lies between.

    ``rotations`` are those of positions 0 (the first) and of each distance. It is the mean over coordinates of cos(distance * angle), 1
    where a coordinate is not turned (Su et al. 2021, section 3.4.3): trace(R_0 R_dᵀ) / trace(R_0 R_0ᵀ).
    """
    products = (rotations[0].double() * rotations.double()).sum((-1, -2))
    return products / products[0]


def cosine_by_distance(
    rows: Float[Tensor, "pos d_model"], distances: Int[Tensor, " distance"]
) -> Float[Tensor, " distance"]:
    """The mean cosine of all pairs of rows that lie each distance apart."""
    directions = torch.nn.functional.normalize(rows.float(), dim=-1)
    means = [
        (directions[: len(rows) - apart] * directions[apart:]).sum(-1).double().mean() for apart in distances.tolist()
    ]
    return torch.stack(means)

"""Direct logit attribution: a logit as a sum over everything that was written to the residual stream.

The stream that the final norm reads is a sum of parts, x = sum_c x_c (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"). With the norm's divisor s(x) held at its actual value the norm is affine, so the logit of token t before a softcap is

    l_t = scale * (w_t . (gamma * centre(x) / s) + w_t . beta + b_t)
        = sum_c scale * centre(gamma * w_t) . x_c / s  +  scale * w_t . beta  +  scale * b_t

exactly, not to first order: nothing is dropped, the divisor is merely shared out. Centring is a symmetric projection, so it may be
applied to the weight once in place of every part.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.maths.norms import Norm
from interp.maths.unembedding import Unembedding


@dataclass(frozen=True, kw_only=True, eq=False)
class LogitReader:
    """A logit, or a difference of two, as an affine function of the stream before the final norm: ``x . direction + offsets``.

    Everything is in double precision on the CPU. ``norm_bias`` and ``unembed_bias`` are the two constant parts, in logits.
    """

    direction: Float[Tensor, " d_model"]
    norm_bias: float
    unembed_bias: float

    def contributions(self, parts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """What each part of the stream adds to the logit."""
        return parts.cpu().double() @ self.direction

    def minus(self, other: "LogitReader") -> "LogitReader":
        """The reader of the logit difference."""
        return LogitReader(
            direction=self.direction - other.direction,
            norm_bias=self.norm_bias - other.norm_bias,
            unembed_bias=self.unembed_bias - other.unembed_bias,
        )


def read_logit(
    stream: Float[Tensor, " d_model"], norm: Norm | None, unembedding: Unembedding, target: int
) -> LogitReader:
    """How token ``target``'s logit, before any softcap, reads the stream, with the final norm's divisor fixed at that of ``stream``.

    ``norm`` is None for a model without a final norm.
    """
    row = unembedding.rows(slice(target, target + 1))
    weight = row.weight[0].cpu().double() * row.scale
    unembed_bias = 0.0 if row.bias is None else float(row.bias[0]) * row.scale
    if norm is None:
        return LogitReader(direction=weight, norm_bias=0.0, unembed_bias=unembed_bias)
    return LogitReader(
        direction=_before(norm, weight) / norm.scale(stream.cpu().double()),
        norm_bias=0.0 if norm.bias is None else float(weight @ norm.bias.detach().cpu().double()),
        unembed_bias=unembed_bias,
    )


def _before(norm: Norm, weight: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """The direction in the stream that ``weight`` reads through the norm's weight and centring."""
    scaled = weight if norm.weight is None else weight * norm.weight.detach().cpu().double()
    return norm.centre(scaled)


def through_norm(
    parts: Float[Tensor, "*batch d_model"], whole: Float[Tensor, "*#batch d_model"], norm: Norm | None
) -> Float[Tensor, "*batch d_model"]:
    """Parts of ``whole`` after a norm whose divisor is that of ``whole``, without the norm's bias, in fp32 at least.

    They sum to ``norm(whole) - bias`` if the parts sum to ``whole``.
    """
    if norm is None:
        return parts
    scaled = norm.centre(parts) / norm.scale(whole)
    return scaled if norm.weight is None else scaled * norm.weight.detach()


def agrees(total: float, expected: float, contributions: Float[Tensor, "*batch"], dtype: torch.dtype) -> bool:
    """Whether a sum of contributions equals a value, up to the rounding of a stream that was added up in ``dtype``."""
    size = float(contributions.abs().sum()) + abs(expected) + 1.0
    tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 8 * torch.finfo(dtype).eps
    return abs(total - expected) <= tolerance * size

"""RMSNorm and LayerNorm in parts: the divisor, the normalised stream, and the affine map after it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """``weight * (x - centre) / sqrt(mean((x - centre)²) + eps) + bias``; ``centred`` says whether the mean is taken off first.

    ``weight`` is what multiplies: for families that store an offset from one (Gemma) the one is already added.
    Divisor and quotient are computed in fp32 at least, as the models do.
    """

    centred: bool
    eps: float
    weight: Float[Tensor, " d_model"] | None = None
    bias: Float[Tensor, " d_model"] | None = None

    def centre(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """``x`` without its mean over d_model where the norm is centred, in fp32 at least."""
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch 1"]:
        """The divisor."""
        root_mean_square = torch.linalg.vector_norm(self.centre(x), dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        return root_mean_square.hypot(root_mean_square.new_full((), self.eps**0.5))

    def normalized(
        self, x: Float[Tensor, "*batch d_model"], scale: Float[Tensor, "*batch 1"] | None = None
    ) -> Float[Tensor, "*batch d_model"]:
        """The stream over its divisor, before weight and bias; ``scale`` is the divisor where it is known already."""
        return self.centre(x) / (self.scale(x) if scale is None else scale)

    def __call__(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The whole norm, in the dtype of ``x``."""
        out = self.normalized(x)
        out = out if self.weight is None else out * self.weight
        out = out if self.bias is None else out + self.bias
        return out.to(x.dtype)

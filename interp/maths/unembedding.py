"""The unembedding: the linear map from the normed residual stream to logits, with the transform some families put after it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear


@dataclass(frozen=True, kw_only=True, eq=False)
class Unembedding:
    """``softcap * tanh(scale * (x W_Uᵀ + b) / softcap)``, or ``scale * (x W_Uᵀ + b)`` without a softcap.

    ``scale`` multiplies (Cohere's ``logit_scale``; Granite divides, so its scale is the inverse of ``logits_scaling``); ``softcap``
    is Gemma 2's, in logits. The weight is stored row by token, as Hugging Face's ``lm_head`` has it.
    """

    weight: Float[Tensor, "d_vocab d_model"]
    bias: Float[Tensor, " d_vocab"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    def linear(self, normed: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """The logits before the softcap: what is linear in the stream, so what parts of it can add up to."""
        logits = normed @ self.weight.T
        logits = logits if self.bias is None else logits + self.bias
        return logits if self.scale == 1.0 else logits * self.scale

    def logits(self, normed: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """The model's logits from the stream after the final norm, in the dtype of the weight."""
        return self.cap(self.linear(normed))

    def cap(self, logits: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The softcap alone: ``softcap * tanh(logits / softcap)``, or nothing."""
        return logits if self.softcap is None else (logits / self.softcap).tanh() * self.softcap

    def rows(self, ids: Tensor | slice) -> "Unembedding":
        """The unembedding onto the tokens ``ids`` alone, in that order."""
        return Unembedding(
            weight=self.weight[ids],
            bias=None if self.bias is None else self.bias[ids],
            scale=self.scale,
            softcap=self.softcap,
        )


class RowProducts:
    """``x Wᵀ + b`` of the same rows ``x`` with one part of a weight after another.

    On a CPU with AVX-512 products of fp32 run in oneDNN. ``torch.mm`` runs in MKL, which leaves AVX-512 unused on AMD's processors and
    takes twice as long there.
    """

    def __init__(self, x: Float[Tensor, "row d_model"]) -> None:
        self.x = x.to_mkldnn() if suits_onednn(x) else x

    def __call__(
        self, weight: Float[Tensor, "d_vocab d_model"], bias: Float[Tensor, " d_vocab"] | None = None
    ) -> Float[Tensor, "row d_vocab"]:
        """The product with ``weight``, in memory of its own."""
        product = linear(self.x, weight, bias)
        return product.to_dense() if self.x.is_mkldnn else product


def suits_onednn(x: Tensor) -> bool:
    """Whether oneDNN serves products with this tensor: fp32 on a CPU with AVX-512."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not x.numel():
        return False
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"

"""The same function of the same weights in float64 throughout, which the others are held against."""

import copy
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import UsageError


def in_float64(hf: Any) -> Any:
    """A copy of a Llama model that computes in float64.

    Hugging Face's norm and its rotary positions compute in float32 whatever the weights are; here they do not.

    Raises UsageError for a model of another family.
    """
    if type(hf).__name__ != "LlamaForCausalLM":
        raise UsageError(f"the reference is of Llama models only, got {type(hf).__name__}")
    exact = copy.deepcopy(hf).double()
    for module in exact.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = MethodType(_norm, module)
        elif type(module).__name__ == "LlamaRotaryEmbedding":
            module.register_buffer("inv_freq", _frequencies(hf, module).double(), persistent=False)
            module.forward = MethodType(_rotary, module)
    return exact


def _frequencies(hf: Any, module: nn.Module) -> Tensor:
    """The model's own frequencies, as the float32 numbers that they are."""
    name = next(name for name, one in hf.named_modules() if type(one) is type(module))
    return hf.get_submodule(name).inv_freq


def _norm(self: Any, stream: Tensor) -> Tensor:
    return self.weight * stream * torch.rsqrt(stream.square().mean(-1, keepdim=True) + self.variance_epsilon)


def _rotary(self: Any, stream: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    angles = position_ids[..., None].double() * self.inv_freq
    both = torch.cat([angles, angles], -1)
    return both.cos() * self.attention_scaling, both.sin() * self.attention_scaling

"""Reads a Hugging Face norm module as ``interp.maths.norms.Norm``, and checks that both compute the same."""

import torch
from torch import nn

from interp.errors import ModelError
from interp.maths.norms import Norm
from interp.models.offload import read_weight


@torch.no_grad()
def read_norm(module: nn.Module) -> Norm:
    """The norm's parts. Raises ModelError when no known form gives the module's own output.

    The weight may be stored as it is or as an offset from one; which of them holds is found by computing both.
    """
    eps = next(
        (float(getattr(module, name)) for name in ("eps", "variance_epsilon", "norm_eps") if hasattr(module, name)),
        1e-5,
    )
    weight, bias = read_weight(module), read_weight(module, "bias")
    probe = _probe(module, weight)
    expected = module.forward(probe)  # not the call, which would run torch's hooks; accelerate's are part of it
    weights = (weight,) if weight is None else (weight, 1 + weight.float())
    for centred in ("RMS" not in type(module).__name__, "RMS" in type(module).__name__):
        for candidate in weights:
            norm = Norm(centred=centred, eps=eps, weight=candidate, bias=bias)
            if torch.allclose(
                norm(probe).float(), expected.float(), rtol=2e-2 if probe.dtype == torch.bfloat16 else 1e-3, atol=1e-4
            ):
                return norm
    raise ModelError(
        f"the norm {type(module).__name__} computes neither an RMSNorm nor a LayerNorm; it cannot be taken apart"
    )


def _probe(module: nn.Module, weight: torch.Tensor | None) -> torch.Tensor:
    """A fixed input whose mean and spread tell the forms apart."""
    if weight is None:
        shape = getattr(module, "normalized_shape", None)
        width = int(shape[-1]) if shape is not None else 64
        device, dtype = torch.device("cpu"), torch.float32
    else:
        width, device, dtype = weight.shape[-1], weight.device, weight.dtype
    return (torch.linspace(-1.0, 3.0, width, device=device).sin() * 2 + 0.7)[None].to(dtype)

"""Linear maps whose weights are arranged for oneDNN once, for work that takes a few rows through the same weights again and again.

With few rows a product mostly reads the matrix, and MKL arranges it anew in every call; a matrix that is arranged beforehand takes about
two thirds of the time. The products are the same but for their rounding.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from interp.maths.unembedding import suits_onednn
from interp.models.linear import linear_weight

LEAST = 1 << 16
"""Numbers of a weight from which on it is worth packing."""
ROWS = 256
"""Rows beyond which the products themselves take so long that packing gains little."""


class PackedLinears:
    """Those of some modules that are plain linear maps on a CPU that oneDNN serves well, packed for inputs of about ``rows`` rows.

    Gradients go to the inputs alone. Under autocast the modules compute as ever. While it lives it holds each weight twice more, for the
    product and for its gradient; weights that are changed meanwhile are not seen.
    """

    def __init__(self, modules: Iterable[nn.Module], rows: int) -> None:
        suited = [module for module in modules if rows <= ROWS and _suits(module)]
        self._forwards = {module: _forward(module, rows) for module in suited}

    def __len__(self) -> int:
        return len(self._forwards)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While the block runs, the modules compute with their packed weights; then with their own again."""
        try:
            for module, forward in self._forwards.items():
                module.__dict__["forward"] = forward
            yield
        finally:
            for module in self._forwards:
                module.__dict__.pop("forward", None)


def packed_bytes(modules: Iterable[nn.Module]) -> int:
    """What packing some modules takes beside the weights themselves, where all of them suit it."""
    return sum(2 * weight.nbytes for module in modules if (weight := linear_weight(module)) is not None)


def _suits(module: nn.Module) -> bool:
    """A forward of its own, such as one that fetches offloaded weights, is left alone."""
    weight = linear_weight(module)
    if weight is None or "forward" in module.__dict__ or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return weight.numel() >= LEAST and suits_onednn(weight)


def _forward(module: nn.Module, rows: int) -> Callable[[Tensor], Tensor]:
    weight = linear_weight(module)
    assert weight is not None, "it suits"
    there, back = (
        torch.ops.mkldnn._reorder_linear_weight(one.contiguous(), rows)  # there is no public name for it
        for one in (weight, weight.T)
    )
    bias = module.bias.detach() if isinstance(module.bias, Tensor) else None

    def forward(x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):  # its products are of another dtype
            return type(module).forward(module, x)
        return _Product.apply(x, there, back, bias)

    return forward


class _Product(torch.autograd.Function):
    """``x @ weight.T + bias``, differentiable with respect to the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, bias: Tensor | None) -> Tensor:
        ctx.back = back
        return _product(x, there, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _product(gradients[0].contiguous(), ctx.back, None), None, None, None


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")

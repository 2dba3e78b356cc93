"""Blocks that return their input while a forward runs that has nothing to do in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from interp.models.atlas import module_at

if TYPE_CHECKING:
    from interp.runner.model import Model


@contextmanager
def passing_over(model: "Model", n_blocks: int, returns: tuple[type, int]) -> Iterator[None]:
    """While the block runs, the first ``n_blocks`` blocks return their input. Their own forward is restored after.

    ``returns`` is the type and length of what a block of this family returns.
    """
    identity = partial(_identity, returns)
    saved: list[tuple[nn.Module, Any]] = []
    try:
        for block in model.atlas.blocks[:n_blocks]:
            module = module_at(model.hf, block.block)
            assert module is not None, "the atlas checked this path"
            saved.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = identity
        yield
    finally:
        for module, own in saved:
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own


def _identity(returns: tuple[type, int], /, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    kind, length = returns
    return hidden_states if kind is Tensor else (hidden_states, *[None] * (length - 1))

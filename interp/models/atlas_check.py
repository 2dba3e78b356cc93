"""Checks an atlas on the model itself: one forward pass of a few tokens, in which the parts must add up to the whole.

The shipped architectures are tested; one that TransformerLens resolved at run time is checked here before anything is built on it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.errors import ModelError
from interp.models.atlas_parts import Atlas
from interp.models.offload import execution_device

_TOKENS = 5
_TOLERANCE = 1e-3  # of the largest expected value, in single precision


@torch.no_grad()
def check_atlas(model: PreTrainedModel, atlas: Atlas) -> None:
    """Raises ModelError where the blocks' updates do not add up to the residual stream, or the logits are not those of its end."""
    paths = {path for block in atlas.blocks for path in (block.block, block.attn_out, block.mlp_out)}
    paths |= {path for path in (atlas.embed, atlas.pos_embed, atlas.embed_norm) if path}
    ids = torch.arange(_TOKENS, device=execution_device(model))[None] % atlas.d_vocab
    with _recorded(model, paths) as seen:
        logits = model(ids, use_cache=False).logits
    start = _embedded(atlas, seen)
    _must_equal(atlas, "the embedding", start, seen[atlas.blocks[0].block][0])
    for layer, block in enumerate(atlas.blocks):
        before, after = seen[block.block]
        attn, mlp = (seen[path][1].reshape(before.shape) for path in (block.attn_out, block.mlp_out))
        _must_equal(atlas, f"block {layer}", before + block.attn_scale * attn + block.mlp_scale * mlp, after)
    end = seen[atlas.blocks[-1].block][1]
    normed = end if atlas.ln_final is None else model.get_submodule(atlas.ln_final)(end)
    _must_equal(atlas, "the unembedding", atlas.logits.apply(model.get_submodule(atlas.unembed)(normed)), logits)


def _embedded(atlas: Atlas, seen: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    start = seen[atlas.embed][1] * atlas.embed_scale
    if atlas.pos_embed is not None:
        start = start + seen[atlas.pos_embed][1]
    return start if atlas.embed_norm is None else seen[atlas.embed_norm][1]


def _must_equal(atlas: Atlas, part: str, parts: Tensor, whole: Tensor) -> None:
    loosened = max(1.0, torch.finfo(whole.dtype).eps / torch.finfo(torch.float32).eps / 100)
    gap, scale = (parts.float() - whole.float()).abs().max().item(), whole.float().abs().max().item()
    if not gap <= _TOLERANCE * loosened * scale:
        raise ModelError(
            f"{atlas.architecture} is not supported: its parts do not add up at {part} "
            f"(off by {gap:.2g}, largest value {scale:.2g})"
        )


@contextmanager
def _recorded(model: nn.Module, paths: set[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """First input and first output of the modules at these paths, copied while the model runs."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(path: str) -> Callable[..., None]:
        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
            result = output[0] if isinstance(output, tuple | list) else output
            seen[path] = first.clone(), result.clone()

        return keep

    handles = [model.get_submodule(path).register_forward_hook(hook(path), with_kwargs=True) for path in paths]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()

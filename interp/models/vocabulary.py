"""What every token of the vocabulary brings to the stream and takes from it, in blocks, so that no copy of the vocabulary is made."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError
from interp.models.atlas import Atlas, module_at
from interp.models.head_weights import at_least_fp32, norm_at
from interp.models.offload import execution_device, read_weight

BLOCK = 4096
"""Tokens at once: 16 MB of fp32 for a stream 1,024 wide."""


def embedding_matrix(hf: Any, atlas: Atlas) -> Float[Tensor, "d_vocab d_model"]:
    """The table of embeddings W_E as it is stored; not a copy where it is in memory. Raises ModelError for a model that has none."""
    module = module_at(hf, atlas.embed)
    weight = None if module is None else read_weight(module)
    if weight is None:
        raise ModelError(f"{atlas.embed} of {atlas.architecture} has no table of embeddings")
    return weight


def n_tokens(hf: Any, atlas: Atlas) -> int:
    """Tokens that have both an embedding and a logit."""
    embed: Any = module_at(hf, atlas.embed)
    return min(len(embed.weight), atlas.d_vocab)


@torch.no_grad()
def embedding_scale(hf: Any, atlas: Atlas, token: int) -> float:
    """What a row of the table is multiplied by on its way to the stream, in the embedding's own module and after it.

    Measured on the row of ``token``; 1 where that is zero, or where the module does more than to scale it.
    """
    embed, rows = module_at(hf, atlas.embed), embedding_matrix(hf, atlas)
    assert embed is not None, "the atlas checked this path"
    row = rows[token]
    out = embed(torch.tensor([token], device=row.device))[0].float()
    row = row.float()
    if out.shape != row.shape or not bool(row.any()):
        return atlas.embed_scale
    scale = float(out @ row / (row @ row))
    if not torch.allclose(out, scale * row, rtol=0.02, atol=1e-3 * float(out.abs().max())):
        return atlas.embed_scale
    return atlas.embed_scale * (1.0 if abs(scale - 1) < 1e-3 else scale)


@torch.no_grad()
def embeddings(hf: Any, atlas: Atlas, ids: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
    """What each token alone puts into the stream before the first block, without positions: scaled and normed as the model does."""
    embed = module_at(hf, atlas.embed)
    assert embed is not None, "the atlas checked this path"
    rows = embed(ids.to(execution_device(embed))) * atlas.embed_scale
    norm = None if atlas.embed_norm is None else module_at(hf, atlas.embed_norm)
    return at_least_fp32(rows if norm is None else norm(rows))


@torch.no_grad()
def unembeddings(hf: Any, atlas: Atlas, ids: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
    """The direction of the stream that raises each token's logit, but for the final norm's divisor.

    The final norm's weight and centring and the scale of the logits are folded in; biases and a softcap are not.
    """
    unembed = module_at(hf, atlas.unembed)
    assert unembed is not None, "the atlas checked this path"
    weight = read_weight(unembed)
    assert weight is not None, "the atlas checked that it has one"
    rows = at_least_fp32(weight[ids.to(weight.device)]) * atlas.logits.scale
    norm = norm_at(hf, atlas.ln_final)
    if norm is None:
        return rows
    return norm.centre(rows if norm.weight is None else rows * at_least_fp32(norm.weight.detach()).to(rows.device))


def blocks_of_ids(count: int, size: int = BLOCK) -> Iterator[Int[Tensor, " row"]]:
    """The ids 0 to ``count`` - 1, ``size`` at a time."""
    for start in range(0, count, size):
        yield torch.arange(start, min(start + size, count))

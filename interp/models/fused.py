"""Fused maps taken apart and put together: one output that holds q, k and v, or gate and up.

The layouts of a fused q, k, v map, with the last axis written as einops does (``h`` heads, ``g`` key/value heads, ``d`` d_head):

==============  =================================================================  =====================================
``qkv_split``   last axis                                                          models
==============  =================================================================  =====================================
``concat``      ``q: (h d) | k: (g d) | v: (g d)``                                 gpt2, phi3, mpt; multi-query falcon and
                                                                                   gpt_bigcode (g = 1)
``per_head``    ``(h 3 d)``, the 3 in the order q, k, v                            gpt_neox, bloom, falcon-rw, gpt_bigcode
                                                                                   without multi-query
``grouped``     ``(g (h/g + 2) d)``: the queries of a group, its key, its value    falcon with the new decoder
``codegen_mp4`` ``(4 3 (h/4 d))``, the 3 in the order q, v, k                      codegen
==============  =================================================================  =====================================

``per_head`` is ``grouped`` with one query in each group. Splitting gives views where it can: never write to them.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.models.atlas import Atlas, BlockMap

_CODEGEN_PARTS = 4  # codegen's weights are cut for four cores, and so is every checkpoint


def split_qkv(
    fused: Float[Tensor, "batch pos _"], block: BlockMap, atlas: Atlas
) -> tuple[
    Float[Tensor, "batch pos head d_head"],
    Float[Tensor, "batch pos kv_head d_head"],
    Float[Tensor, "batch pos kv_head d_head"],
]:
    """q, k and v from the output of the fused map ``block.qkv``: before clamping, norms and rotation.

    Raises ModelError where the layout of this architecture is not known.
    """
    heads, groups, width = atlas.n_heads, atlas.n_kv_heads, atlas.d_head
    match _layout(block, atlas):
        case "concat":
            q, k, v = fused.split([heads * width, groups * width, groups * width], dim=-1)
        case "codegen_mp4":
            parts = rearrange(fused, "batch pos (part width) -> batch pos part width", part=_CODEGEN_PARTS)
            q, v, k = (rearrange(x, "batch pos part width -> batch pos (part width)") for x in parts.chunk(3, dim=-1))
        case _:  # per_head, grouped
            grouped = rearrange(
                fused, "batch pos (group slot d_head) -> batch pos group slot d_head", group=groups, d_head=width
            )
            k, v = grouped[..., -2, :], grouped[..., -1, :]
            return rearrange(grouped[..., :-2, :], "batch pos group slot d_head -> batch pos (group slot) d_head"), k, v
    q, k, v = (rearrange(x, "batch pos (head d_head) -> batch pos head d_head", d_head=width) for x in (q, k, v))
    return q, k, v


def merge_qkv(
    q: Float[Tensor, "batch pos head d_head"],
    k: Float[Tensor, "batch pos kv_head d_head"],
    v: Float[Tensor, "batch pos kv_head d_head"],
    block: BlockMap,
    atlas: Atlas,
) -> Float[Tensor, "batch pos _"]:
    """The inverse of ``split_qkv``: a new tensor in the layout of ``block.qkv``. Raises ModelError like it."""
    layout = _layout(block, atlas)
    if layout in ("per_head", "grouped"):
        queries = rearrange(q, "batch pos (group slot) d_head -> batch pos group slot d_head", group=atlas.n_kv_heads)
        grouped = torch.cat([queries, k.unsqueeze(-2), v.unsqueeze(-2)], dim=-2)
        return rearrange(grouped, "batch pos group slot d_head -> batch pos (group slot d_head)")
    q, k, v = (rearrange(x, "batch pos head d_head -> batch pos (head d_head)") for x in (q, k, v))
    if layout == "concat":
        return torch.cat([q, k, v], dim=-1)
    parts = [rearrange(x, "batch pos (part width) -> batch pos part width", part=_CODEGEN_PARTS) for x in (q, v, k)]
    return rearrange(torch.cat(parts, dim=-1), "batch pos part width -> batch pos (part width)")


def split_gate_up(
    fused: Float[Tensor, "batch pos _"], block: BlockMap
) -> tuple[Float[Tensor, "batch pos d_mlp"], Float[Tensor, "batch pos d_mlp"]]:
    """Gate (before its activation) and up from the output of the fused map ``block.gate_up``."""
    assert block.gate_up_split == "gate_first", f"{block.block} has no fused gate and up"
    gate, up = fused.chunk(2, dim=-1)
    return gate, up


def merge_gate_up(
    gate: Float[Tensor, "batch pos d_mlp"], up: Float[Tensor, "batch pos d_mlp"], block: BlockMap
) -> Float[Tensor, "batch pos _"]:
    """The inverse of ``split_gate_up``: a new tensor."""
    assert block.gate_up_split == "gate_first", f"{block.block} has no fused gate and up"
    return torch.cat([gate, up], dim=-1)


def _layout(block: BlockMap, atlas: Atlas) -> str:
    if block.qkv is None:
        raise ModelError(
            f"{block.block} of {atlas.architecture} has no fused q, k, v map; it has {block.q}, {block.k} and {block.v}"
        )
    if block.qkv_split not in ("concat", "per_head", "grouped", "codegen_mp4"):
        raise ModelError(
            f"how {atlas.architecture} lays out q, k and v in {block.qkv} is not known; capture other sites"
        )
    return block.qkv_split

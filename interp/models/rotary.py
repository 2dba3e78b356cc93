"""The rotation that a layer puts on queries and keys, as matrices, from the model's own tables (Su et al. 2021, RoFormer).

A rotary layer scores a query at position i against a key at position j by ``q R_i (k R_j)ᵀ``, which depends on i - j alone. The
matrices come from the model's own rotary module and function, so that partial, interleaved and rescaled rotations are what the
model does.
"""

import inspect
import sys
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.atlas import Atlas, module_at
from interp.models.offload import execution_device

_APPLY = "apply_rotary_pos_emb"


@torch.no_grad()
def rotations(hf: Any, atlas: Atlas, layer: int, positions: Sequence[int]) -> Float[Tensor, "pos d_head d_head"] | None:
    """``R_p`` of each position, with which the layer multiplies a query or key as a row from the right: ``q R_p``, in fp32.

    None where the layer does not rotate, or where the family's rotation cannot be called on its own (codegen, gptj).
    A scale that the family puts on its tables (YaRN) is part of the matrices.
    """
    block = atlas.blocks[layer]
    attention = module_at(hf, block.attn)
    table = getattr(hf.base_model, "rotary_emb", None) or _text_table(hf)
    apply = getattr(sys.modules[type(attention).__module__], _APPLY, None)
    if not block.rotary or table is None or apply is None or not _takes_cos_and_sin(apply):
        return None
    width = int(getattr(attention, "rotary_ndims", atlas.d_head))
    device = execution_device(table)
    place = torch.tensor([list(positions)], device=device)
    arguments = (
        {"layer_type": _layer_type(hf, layer)} if "layer_type" in inspect.signature(table.forward).parameters else {}
    )
    cos, sin = table(torch.zeros(1, device=device), position_ids=place, **arguments)
    # Each basis vector plays one head: rows of the identity come back as the rows of R_p.
    basis = torch.eye(width, device=device)[None, :, None].expand(1, width, len(positions), width)
    rotated = apply(basis, basis, cos, sin)[0]
    whole = torch.eye(atlas.d_head, device=device).repeat(len(positions), 1, 1)
    whole[:, :width, :width] = rotated[0].transpose(0, 1)
    return whole


def _takes_cos_and_sin(apply: Any) -> bool:
    return list(inspect.signature(apply).parameters)[:4] == ["q", "k", "cos", "sin"]


def _text_table(hf: Any) -> nn.Module | None:
    """The table of a model whose language model is one of several parts."""
    language = getattr(hf.base_model, "language_model", None)
    return getattr(language, "rotary_emb", None)


def _layer_type(hf: Any, layer: int) -> str:
    return hf.config.get_text_config(decoder=True).layer_types[layer]

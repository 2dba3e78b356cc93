"""What the router of a layer of experts decides, by the family's own module."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError
from interp.models.atlas import Atlas, module_at


@dataclass(frozen=True, kw_only=True, eq=False)
class Routing:
    """For each token the ``scores`` of all experts (logits), the ``chosen`` ones, and the ``weights`` of what these put out."""

    scores: Float[Tensor, "pos expert"]
    chosen: Int[Tensor, "pos k"]
    weights: Float[Tensor, "pos k"]


@torch.no_grad()
def route(hf: Any, atlas: Atlas, layer: int, stream: Float[Tensor, "pos d_model"]) -> Routing:
    """What the router of ``layer`` decides on the stream between attention and MLP.

    Raises ModelError where the family's router does not tell what it chose.
    """
    block = atlas.blocks[layer]
    assert block.router is not None, "the layer has experts"
    norm = None if block.ln2 is None else module_at(hf, block.ln2)
    router = module_at(hf, block.router)
    assert router is not None, "the atlas checked this path"
    told = router(stream if norm is None else norm(stream))
    if not (isinstance(told, tuple) and len(told) == 3):
        raise ModelError(f"{block.router} of {atlas.architecture} does not tell which experts it chose")
    scores, weights, chosen = told
    return Routing(scores=scores.float(), chosen=chosen, weights=weights.float())

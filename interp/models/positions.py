"""Where positions enter a model other than by rotation: the table of learned ones, and ALiBi's slopes (Press et al. 2022)."""

import math
import sys
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.atlas import Atlas, module_at
from interp.models.offload import execution_device, read_weight


def learned_positions(hf: Any, atlas: Atlas) -> Float[Tensor, "pos d_model"] | None:
    """The learned row of each position from 0, as stored and not a copy; None where the model has none."""
    if atlas.pos_embed is None:
        return None
    module: Any = module_at(hf, atlas.pos_embed)
    weight = read_weight(module)
    return None if weight is None else weight[getattr(module, "offset", 0) :]  # OPT's first rows belong to no position


@torch.no_grad()
def alibi_slopes(hf: Any, atlas: Atlas) -> Float[Tensor, " head"] | None:
    """What each head's score loses for each token of distance between query and key; None where the model has no ALiBi.

    Taken from the model's own function, as the difference of what it adds at two neighbouring keys.
    """
    base = hf.base_model
    mask = torch.ones(1, 2, dtype=torch.long, device=execution_device(hf))
    if hasattr(base, "build_mpt_alibi_tensor"):
        added = base.build_mpt_alibi_tensor(atlas.n_heads, 2, device=mask.device)
    elif hasattr(base, "build_alibi_tensor"):
        added = base.build_alibi_tensor(mask, atlas.n_heads, dtype=torch.float32)
    elif getattr(base, "use_alibi", False):  # Falcon adds it before the scores are scaled
        build = vars(sys.modules[type(base).__module__])["build_alibi_tensor"]
        added = build(mask, atlas.n_heads, dtype=torch.float32) / math.sqrt(atlas.d_head)
    else:
        return None
    return (added[:, 0, 1] - added[:, 0, 0]).float()

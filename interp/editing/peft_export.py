"""An edit as a LoRA adapter (Hu et al. 2022), in the files that the library peft reads; peft itself is not needed to write them.

A low-rank change ``left @ right`` is LoRA's ``B A``: A = right, B = left, and lora_alpha = r makes LoRA's factor alpha / r one.
"""

import json
import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.editing.new_folder import new_folder
from interp.errors import UsageError
from interp.files import save_tensors, write_bytes

if TYPE_CHECKING:
    from interp.editing.edit import Edit


def export_peft(edit: "Edit", folder: str | os.PathLike[str]) -> None:
    """Writes ``adapter_model.safetensors`` and ``adapter_config.json`` into a new folder, all of it or nothing.

    The adapter names the full path of each edited module, so that it touches no other. All layers get the rank of the highest, which
    every reader of adapters understands; zeros fill the others and change nothing.
    Raises UsageError where the edit changes no layer or where the folder holds something or cannot be written.
    """
    if not edit.layers:
        raise UsageError("the edit changes no layer, so there is nothing to export")
    rank = max(change.rank for change in edit.layers)
    tensors: dict[str, Tensor] = {}
    for change in edit.layers:
        name = f"base_model.model.{change.path}"
        tensors[f"{name}.lora_A.weight"] = _padded(change.right, rank, 0)
        tensors[f"{name}.lora_B.weight"] = _padded(change.left, rank, 1)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": edit.provenance.model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": any(change.transposed for change in edit.layers),
        "target_modules": [change.path for change in edit.layers],
    }
    with new_folder(folder) as building:
        save_tensors(building / "adapter_model.safetensors", tensors, {"format": "pt"})
        write_bytes(building / "adapter_config.json", (json.dumps(config, indent=2) + "\n").encode())


def _padded(factor: Tensor, rank: int, axis: int) -> Tensor:
    """``factor`` with zeros along its rank up to ``rank``."""
    shape = list(factor.shape)
    shape[axis] = rank - shape[axis]
    factor = factor.detach().to("cpu", torch.float32)
    return torch.cat([factor, factor.new_zeros(shape)], axis)
